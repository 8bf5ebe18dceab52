"""Networks trained together: µs for one step of all of them, beside separate trainings and JAX.

    python -m benchmarks.ensembles [--gpu] [--write] [--rounds N] [--epochs N]

Adam trains K = 16 networks 64-64-64-10 on minibatches of 64, in float32, each with its own order of
the same 12,800 examples.  A round times some epochs of each competitor; shuffles, gathers and what
a fit begins with count.

- gpumlp: `Trainer(Ensemble(…))`.
- 16 trainers: a `Trainer` of each network, one after the other.  Each is as fast on one thread, so
  gpumlp's time cannot be below theirs over the number of cores.
- numpy: `Trainer(Ensemble(…))` on the NumPy backend; 16 trainers numpy: a `Trainer` of each there.
- jax vmap: `jit(vmap(step))`, one call for a step of all, with donated buffers.
- jax scan: the same within `lax.scan`, one call for an epoch.

With --gpu: K = 64 networks 512-512-512-512 on minibatches of 256, with products in tf32, beside
torch: `torch.func.vmap` of the gradient, compiled with mode="max-autotune", and a fused Adam.

Before it is timed, the θ of each competitor after an epoch is compared with that of gpumlp.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import gpumlp
from benchmarks.output import compare_with_gpumlp, note, write
from gpumlp.bench.timing import interleaved
from gpumlp.io.types import HostArray

M, LR = 12_800, 1e-3
# the most of gpumlp's time over theirs
BARS = {"jax vmap": 0.9, "16 trainers": 0.3, "16 trainers numpy": 0.3, "torch vmap": 0.7}
# of θ after an epoch: ‖θ − θ'‖ / ‖θ − θ of the start‖.  Adam divides a gradient by its size, so the
# rounding of gradients near 0 counts in full; with another order of the examples it is about 1.
CLOSE = 0.1

Epochs = Callable[[int], HostArray]
"""Train for so many epochs, and return W of the first layers, (K, n_1, n_0)."""


@dataclass(frozen=True)
class Case:
    """K networks of these widths, trained on minibatches of so many rows."""

    K: int
    widths: tuple[int, ...]
    rows: int
    backend: str
    precision: str

    @property
    def steps(self) -> int:
        """The steps of an epoch."""
        return M // self.rows

    def members(self, backend: str = "") -> gpumlp.Ensemble:
        """The networks before the training."""
        return gpumlp.Ensemble(
            self.K, self.widths, backend=backend or self.backend, precision=self.precision
        )

    def order(self, epoch: int) -> HostArray:
        """The minibatches of an epoch, (steps, K, rows)."""
        of_each = [
            np.random.default_rng([i, epoch]).permutation(M).reshape(self.steps, self.rows)
            for i in range(self.K)
        ]
        return np.stack(of_each, axis=1)


CPU = Case(16, (64, 64, 64, 10), 64, "cpu", "float32")
GPU = Case(64, (512, 512, 512, 512), 256, "cupy", "tf32")


def first_weights(nets: Any) -> HostArray:
    """W of the first layers, (K, n_1, n_0)."""
    return np.stack([net.tensors()["0.weight"] for net in nets])


def together(case: Case, x: HostArray, y: HostArray, backend: str = "") -> Epochs:
    """One trainer of the ensemble."""
    trainer = gpumlp.EnsembleTrainer(case.members(backend), "adam", lr=LR, batch_size=case.rows)

    def run(epochs: int) -> HostArray:
        trainer.fit(x, y, epochs, metric=None)
        return first_weights(trainer.ensemble)

    return run


def separate(case: Case, x: HostArray, y: HostArray, backend: str = "") -> Epochs:
    """A trainer of each network."""
    trainers = [
        gpumlp.Trainer(net, "adam", lr=LR, batch_size=case.rows, seed=net.seed)
        for net in case.members(backend)
    ]

    def run(epochs: int) -> HostArray:
        for trainer in trainers:
            trainer.fit(x, y, epochs, metric=None, progress=False)
        return first_weights([trainer.net for trainer in trainers])

    return run


def stacked(case: Case) -> list[HostArray]:
    """W and b of each layer of all networks, (K, …)."""
    each = [net.tensors() for net in case.members()]
    return [np.stack([tensors[name] for tensors in each]) for name in each[0]]


def torch_epochs(case: Case, x: HostArray, y: HostArray, mode: str) -> Epochs:
    """`torch.func.vmap`: a compiled call for the gradients of a step of all, and a fused Adam."""
    import torch
    from torch.nn.functional import cross_entropy

    torch.set_float32_matmul_precision("high" if case.precision == "tf32" else "highest")
    device = "cuda" if case.backend == "cupy" else "cpu"
    X, Y = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
    params = [torch.from_numpy(a).to(device) for a in stacked(case)]
    optimizer = torch.optim.Adam(params, lr=LR, fused=True)

    def cost(params: list[Any], index: Any) -> Any:
        h = X[index]
        for W, b in zip(params[:-2:2], params[1:-2:2], strict=True):
            h = torch.relu(h @ W.T + b)
        return cross_entropy(h @ params[-2].T + params[-1], Y[index])

    gradients = torch.compile(torch.func.vmap(torch.func.grad(cost)), mode=mode)
    done = [0]

    def run(epochs: int) -> HostArray:
        for number in range(done[0], done[0] + epochs):
            for index in torch.from_numpy(case.order(number)).to(device):
                for a, g in zip(params, gradients(params, index), strict=True):
                    a.grad = g
                optimizer.step()
        done[0] += epochs
        found: HostArray = params[0].cpu().numpy()
        return found.copy()

    return run


def jax_epochs(case: Case, x: HostArray, y: HostArray, scan: bool) -> Epochs:
    """JAX: a call for each step or, with `scan`, for each epoch."""
    import jax
    import optax

    X, Y = jax.numpy.asarray(x), jax.numpy.asarray(y)
    optimizer = optax.adam(LR)
    params = [jax.numpy.asarray(a) for a in stacked(case)]

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
            indices = case.order(number)
            for each in [indices] if scan else indices:
                params, state = one(params, state, each)
        now[:] = params, state, done + epochs
        return np.array(jax.block_until_ready(params)[0])

    return run


def check(case: Case, name: str, found: HostArray, want: HostArray) -> None:
    """Raise unless θ is that of gpumlp, but for rounding."""
    moved = np.linalg.norm(want - first_weights(case.members()))
    off = float(np.linalg.norm(found - want) / moved)
    if not off < CLOSE:
        raise RuntimeError(f"{name} trains to other weights: they differ by {off:.2g} of the way")


def competitors(case: Case, x: HostArray, y: HostArray) -> dict[str, Epochs]:
    """What is timed; gpumlp comes first."""
    trainers = f"{case.K} trainers"
    ours = {"gpumlp": together(case, x, y), trainers: separate(case, x, y)}
    if case.backend == "cupy":
        return {**ours, "torch vmap": torch_epochs(case, x, y, "max-autotune")}
    return {
        **ours, "numpy": together(case, x, y, "numpy"),
        f"{trainers} numpy": separate(case, x, y, "numpy"),
        "jax vmap": jax_epochs(case, x, y, scan=False),
        "jax scan": jax_epochs(case, x, y, scan=True),
    }  # fmt: skip


def main() -> None:
    """Time all competitors, and print a table and whether the bars are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=10, help="epochs of a round")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--save", type=Path, help="write the figures to this file")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    case, rng = GPU if options.gpu else CPU, np.random.default_rng(0)
    x = rng.normal(size=(M, case.widths[0])).astype("f4")
    y = rng.integers(0, case.widths[-1], M)
    timing_of = competitors(case, x, y)
    want = timing_of["gpumlp"](1)
    for name in list(timing_of)[1:]:
        check(case, name, timing_of[name](1), want)
    timed = interleaved(
        {name: lambda run=run: run(options.epochs) for name, run in timing_of.items()},
        options.rounds, warmup=1,
    )  # fmt: skip
    table = compare_with_gpumlp(f"{options.epochs} epochs of {case.steps} steps", timed)
    steps = options.epochs * case.steps
    micros = {name: 1e6 * timing.median / steps for name, timing in timed.items()}
    for name, value in micros.items():
        print(f"{name}: {value:.0f} µs for a step of {case.K} networks")
    bars = {name: bar for name, bar in BARS.items() if name in timed}
    for name, bar in bars.items():
        ratio = timed["gpumlp"].ratio(timed[name])
        said = "met" if ratio <= bar else "not met"
        print(f"at most {bar} of {name}: {ratio:.2f}, {said}")
    if "numpy" in timed:
        ratio = timed["numpy"].ratio(timed[f"{case.K} trainers numpy"])
        print(f"numpy over {case.K} trainers numpy: {ratio:.2f}")
    note()
    results = {"us_a_step": micros, "bars": bars, "epochs": table}
    write("ensembles_gpu" if options.gpu else "ensembles", results, options.save)


if __name__ == "__main__":
    main()
