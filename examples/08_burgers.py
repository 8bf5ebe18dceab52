"""A surrogate of a partial differential equation: u(x, t, ν) of the viscous Burgers equation.

    u_t + u u_x = ν u_xx,   u(x, 0) = sin x,   x periodic in [0, 2π)

A spectral solver (Fourier in x, fourth-order Runge-Kutta in t) runs for 16 viscosities.  A network
learns all of these solutions, and predicts those for viscosities in between.  Writes burgers.png.
"""

import matplotlib.pyplot as plt
import numpy as np

import gpumlp

N, TIMES = 128, np.linspace(0, 3, 31)
X = np.arange(N) * 2 * np.pi / N
K = np.fft.rfftfreq(N, 1 / N)  # wave numbers
RESOLVED = K < N / 3  # products of higher wave numbers would be aliases (Orszag, 1971)


def solve(nu, steps=10):
    """Return u (times, N), with `steps` steps from one time to the next."""
    dt = (TIMES[1] - TIMES[0]) / steps
    half = np.exp(-nu * K**2 * dt / 2)  # viscosity over half a step, exactly

    def convection(v):
        return -0.5j * dt * K * RESOLVED * np.fft.rfft(np.fft.irfft(v) ** 2)

    v, found = np.fft.rfft(np.sin(X)), [np.sin(X)]
    for _ in TIMES[1:]:
        for _ in range(steps):
            a = convection(v)
            b = convection(half * (v + a / 2))
            c = convection(half * v + b / 2)
            d = convection(half**2 * v + half * c)
            v = half**2 * (v + a / 6) + half * (b + c) / 3 + d / 6
        found.append(np.fft.irfft(v))
    return np.array(found)


def inputs(nu):
    """Return a row (sin x, cos x, t, log ν) for each time and place: periodic in x, as u is."""
    t, x = np.meshgrid(TIMES, X, indexing="ij")
    columns = np.sin(x), np.cos(x), t - 1.5, np.full_like(x, np.log10(nu) + 1)
    return np.stack([column.ravel() for column in columns], axis=1)


def draw(path, nus, solved, learnt):
    """Draw the solver's and the network's u(x) at six times, in a panel for each viscosity."""
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.6), sharey=True, layout="constrained")
    for axes, nu, u, v in zip(panels, nus, solved, learnt, strict=True):
        for i in range(0, len(TIMES), 6):
            colour = plt.get_cmap("viridis")(0.9 * i / len(TIMES))
            axes.plot(X, u[i], color=colour, linewidth=5, alpha=0.35, solid_capstyle="round")
            axes.plot(X, v[i], color=colour, linewidth=1.4, label=f"t = {TIMES[i]:g}")
        axes.set_title(f"ν = {nu:.3f}", fontsize=11)
        axes.set_xlabel("x")
        axes.set_xlim(0, 2 * np.pi)
        axes.set_xticks([0, np.pi, 2 * np.pi], ["0", "π", "2π"])
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("u(x, t)")
    panels[-1].legend(frameon=False, fontsize=9)
    figure.suptitle(
        "Burgers: solver (broad) and network (thin), at unseen viscosities", fontsize=11
    )
    figure.savefig(path, dpi=120)


known = np.geomspace(0.05, 0.5, 16)
x = np.concatenate([inputs(nu) for nu in known])
y = np.concatenate([solve(nu).reshape(-1, 1) for nu in known])
net = gpumlp.MLP([4, 64, 64, 64, 1], activation="tanh", loss="squared_error")
trainer = gpumlp.Trainer(net, lr=1e-2, batch_size=512, schedule="warmup_cosine")
trainer.fit(x, y, epochs=40)

between = np.sqrt(known[1:] * known[:-1])[[1, 7, 13]]
solved = [solve(nu) for nu in between]
learnt = [net.predict(inputs(nu)).reshape(-1, N) for nu in between]
for nu, u, v in zip(between, solved, learnt, strict=True):
    print(f"ν = {nu:.3f}   relative error {np.linalg.norm(v - u) / np.linalg.norm(u):.1%}")
draw("burgers.png", between, solved, learnt)
