"""Networks trained together: µs for one step of all of them, beside separate trainings and JAX.

    python -m benchmarks.ensembles [--write] [--rounds N] [--epochs N]

Adam trains K = 16 networks 64-64-64-10 on minibatches of 64, in float32, each with its own order of
the same 12,800 examples.  A round times some epochs of each competitor; shuffles, gathers and what
a fit begins with count.

- gpumlp: `Trainer(Ensemble(…))`.
- 16 trainers: a `Trainer` of each network, one after the other.  Each is as fast on one thread, so
  gpumlp's time cannot be below theirs over the number of cores.
- 16 trainers numpy: the same on the NumPy backend.
- jax vmap: `jit(vmap(step))`, one call for a step of all, with donated buffers.
- jax scan: the same within `lax.scan`, one call for an epoch.

Before it is timed, the θ of each competitor after an epoch is compared with that of gpumlp.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import gpumlp
from benchmarks.output import compare_with_gpumlp, note, write
from gpumlp.bench.timing import interleaved
from gpumlp.io.types import HostArray

K, WIDTHS, ROWS, M, LR = 16, (64, 64, 64, 10), 64, 12_800, 1e-3
STEPS = M // ROWS
# the most of gpumlp's time over theirs
BARS = {"jax vmap": 0.9, "16 trainers": 0.3, "16 trainers numpy": 0.3}
# of θ after an epoch: ‖θ − θ'‖ / ‖θ − θ of the start‖.  Adam divides a gradient by its size, so the
# rounding of gradients near 0 counts in full; with another order of the examples it is about 1.
CLOSE = 0.1

Epochs = Callable[[int], HostArray]
"""Train for so many epochs, and return W of the first layers, (K, 64, 64)."""


def members(backend: str = "cpu") -> gpumlp.Ensemble:
    """The networks before the training."""
    return gpumlp.Ensemble(K, WIDTHS, backend=backend)


def first_weights(nets: Any) -> HostArray:
    """W of the first layers, (K, 64, 64)."""
    return np.stack([net.layers[0].W for net in nets])


def order(member: int, epoch: int) -> HostArray:
    """The minibatches of an epoch, (steps, 64)."""
    return np.random.default_rng([member, epoch]).permutation(M).reshape(STEPS, ROWS)


def together(x: HostArray, y: HostArray) -> Epochs:
    """One trainer of the ensemble."""
    trainer = gpumlp.EnsembleTrainer(members(), "adam", lr=LR, batch_size=ROWS)

    def run(epochs: int) -> HostArray:
        trainer.fit(x, y, epochs, metric=None)
        return first_weights(trainer.ensemble)

    return run


def separate(x: HostArray, y: HostArray, backend: str = "cpu") -> Epochs:
    """A trainer of each network."""
    trainers = [
        gpumlp.Trainer(net, "adam", lr=LR, batch_size=ROWS, seed=net.seed)
        for net in members(backend)
    ]

    def run(epochs: int) -> HostArray:
        for trainer in trainers:
            trainer.fit(x, y, epochs, metric=None, progress=False)
        return first_weights([trainer.net for trainer in trainers])

    return run


def jax_epochs(x: HostArray, y: HostArray, scan: bool) -> Epochs:
    """JAX: a call for each step or, with `scan`, for each epoch."""
    import jax
    import optax

    X, Y = jax.numpy.asarray(x), jax.numpy.asarray(y)
    optimizer = optax.adam(LR)
    nets = members()
    params = [
        jax.numpy.asarray(np.stack([getattr(net.layers[k], name) for net in nets]))
        for k in range(len(WIDTHS) - 1)
        for name in ("W", "b")
    ]

    def cost(params: list[Any], index: Any) -> Any:
        h = X[index]
        for W, b in zip(params[:-2:2], params[1:-2:2], strict=True):
            h = jax.nn.relu(h @ W.T + b)
        logits = h @ params[-2].T + params[-1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, Y[index]).mean()

    def step(params: list[Any], state: Any, index: Any) -> tuple[list[Any], Any]:
        updates, state = optimizer.update(jax.grad(cost)(params, index), state, params)
        return optax.apply_updates(params, updates), state

    def epoch(params: list[Any], state: Any, indices: Any) -> Any:
        def body(carry: Any, index: Any) -> tuple[Any, None]:
            return jax.vmap(step)(*carry, index), None

        return jax.lax.scan(body, (params, state), indices)[0]

    one = jax.jit(epoch if scan else jax.vmap(step), donate_argnums=(0, 1))
    now = [params, jax.jit(jax.vmap(optimizer.init))(params), 0]

    def run(epochs: int) -> HostArray:
        params, state, done = now
        for number in range(done, done + epochs):
            indices = np.stack([order(i, number) for i in range(K)], axis=1)
            for each in [indices] if scan else indices:
                params, state = one(params, state, each)
        now[:] = params, state, done + epochs
        return np.array(jax.block_until_ready(params)[0])

    return run


def check(name: str, found: HostArray, want: HostArray) -> None:
    """Raise unless θ is that of gpumlp, but for rounding."""
    moved = np.linalg.norm(want - first_weights(members()))
    off = float(np.linalg.norm(found - want) / moved)
    if not off < CLOSE:
        raise RuntimeError(f"{name} trains to other weights: they differ by {off:.2g} of the way")


def main() -> None:
    """Time all competitors, and print a table and whether the bars are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=10, help="epochs of a round")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(M, WIDTHS[0])).astype("f4"), rng.integers(0, WIDTHS[-1], M)
    competitors = {
        "gpumlp": together(x, y), "16 trainers": separate(x, y),
        "16 trainers numpy": separate(x, y, "numpy"),
        "jax vmap": jax_epochs(x, y, scan=False), "jax scan": jax_epochs(x, y, scan=True),
    }  # fmt: skip
    want = competitors["gpumlp"](1)
    for name in list(competitors)[1:]:
        check(name, competitors[name](1), want)
    timed = interleaved(
        {name: lambda run=run: run(options.epochs) for name, run in competitors.items()},
        options.rounds, warmup=1,
    )  # fmt: skip
    table = compare_with_gpumlp(f"{options.epochs} epochs of {STEPS} steps", timed)
    steps = options.epochs * STEPS
    micros = {name: 1e6 * timing.median / steps for name, timing in timed.items()}
    for name, value in micros.items():
        print(f"{name}: {value:.0f} µs for a step of {K} networks")
    for name, bar in BARS.items():
        ratio = timed["gpumlp"].ratio(timed[name])
        said = "met" if ratio <= bar else "not met"
        print(f"at most {bar} of {name}: {ratio:.2f}, {said}")
    note()
    write("ensembles", {"us_a_step": micros, "bars": BARS, "epochs": table})


if __name__ == "__main__":
    main()
