"""A new activation is one entry: snake, z + sin²(az)/a, which extrapolates periodic functions.

Snake is of Ziyin, Hartwig and Ueda, "Neural Networks Fail to Learn Periodic Functions and How to
Fix It" (2020).
"""

import numpy as np

import gpumlp

snake = gpumlp.Activation(
    "snake",
    f=lambda z, a: z + np.sin(a * z) ** 2 / a,
    df=lambda z, h, a: 1 + np.sin(2 * a * z),
    cuda_f="z + sin(a * z) * sin(a * z) / a",
    cuda_df="real(1) + sin(real(2) * a * z)",
    reads="z",  # df is computed from z; h need not be stored
    params={"a": 1.0},
)


def season(t):
    """Return a trend plus a season."""
    return 0.1 * t + np.sin(t)


def errors(activation):
    """Train a network on [−7, 7]; return its root mean squared errors there and on [7, 14]."""
    t = np.random.default_rng(0).uniform(-7, 7, (1000, 1))
    net = gpumlp.MLP([1, 128, 1], activation, loss="squared_error")
    trainer = gpumlp.Trainer(net, lr=3e-3, batch_size=64, schedule="warmup_cosine")
    trainer.fit(t, season(t), epochs=150)
    beyond = np.linspace(7, 14, 101)[:, None]
    return [np.sqrt(np.mean((net.predict(u) - season(u)) ** 2)) for u in (t, beyond)]


z, e = np.linspace(-4, 4, 101), 1e-6
slope = (snake.f(z + e, a=1.0) - snake.f(z - e, a=1.0)) / (2 * e)
error = abs(snake.df(z, None, a=1.0) - slope).max()
print(f"f' and central differences differ by at most {error:.0e}")

print(f"{'activation':<14}{'on the data':>12}{'beyond it':>12}")
for activation in ("relu", "tanh", snake, snake.set(a=2.0)):
    name = activation if isinstance(activation, str) else f"snake, a = {activation.params['a']:g}"
    within, beyond = errors(activation)
    print(f"{name:<14}{within:>12.3f}{beyond:>12.3f}")
