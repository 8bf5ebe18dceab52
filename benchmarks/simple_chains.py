"""SimpleChains' published problem, in full: the exponential of 2 x 2 matrices, on one thread.

    python -m benchmarks.simple_chains [--write] [--epochs N]

4-32-16-4, tanh, squared error, 10,000 random matrices and their exponentials, full batch, Adam,
10,000 epochs, float32 (julialang.org/blog/2022/04/simple-chains). The libraries take turns of
EPOCHS_A_TURN epochs, each in a process of its own on the same core. JAX's turn is one compiled
call, `lax.scan` over its epochs. A first turn, which is not timed, must change the parameters of
all alike.

The published seconds are those of a further 10,000 epochs, after compilation, on all cores of other
machines.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import epochs
from benchmarks.output import note, write
from benchmarks.race import Race
from gpumlp.cli.output import print_table

SOURCE = "https://julialang.org/blog/2022/04/simple-chains/"
PUBLISHED = {  # seconds of 10,000 epochs: medians of those on the page
    "Intel i9-10980XE, 18 cores": {"SimpleChains": 0.41, "PyTorch": 15.25},
    "AMD EPYC 7513, 32 cores": {"SimpleChains": 0.72, "PyTorch": 69.46},
}
EPOCHS_A_TURN = 250
COMPETITORS = [name for name in epochs.available() if name in ("cpu", "jax", "torch eager")]


@dataclass(frozen=True)
class MatrixExponential(epochs.Network):
    """A network that learns exp(A) of random 2 x 2 matrices A."""

    activation: str = "tanh"
    loss: str = "squared_error"

    def problem(self, seed: int = 0) -> tuple[Any, Any]:
        """Return the matrices (m, 4), whose entries are normal, and their exponentials (m, 4)."""
        a = np.random.default_rng(seed).normal(size=(self.batch, 2, 2))
        return tuple(each.reshape(-1, 4).astype(np.float32) for each in (a, exponential(a)))


NETWORK = MatrixExponential((4, 32, 16, 4), batch=10_000, optimizer="adam", steps=1)


def exponential(a: Any) -> Any:
    """exp(a) of matrices (…, n, n): the series of a / 2¹⁰, then squared 10 times."""
    a = a / 1024
    term = total = np.broadcast_to(np.eye(a.shape[-1]), a.shape)
    for k in range(1, 9):
        term = term @ a / k
        total = total + term
    for _ in range(10):
        total = total @ total
    return total


def main() -> None:
    """Train all libraries, and print their seconds beside those that are published."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10_000)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    turns = max(1, round(options.epochs / EPOCHS_A_TURN))
    race = Race(NETWORK, COMPETITORS, EPOCHS_A_TURN, one_thread=True)
    found = []
    for i in range(turns):
        seconds = race.turns(i, EPOCHS_A_TURN)
        found.append({name: EPOCHS_A_TURN * each for name, each in seconds.items()})
        each = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in found[-1].items())
        print(f"{(i + 1) * EPOCHS_A_TURN:,} epochs: {each}", flush=True)
    results = {
        name: {
            "seconds": sum(each[name] for each in found),
            "cpu_over_this": statistics.median(each["cpu"] / each[name] for each in found),
            **errors(parameters),
        }
        for name, parameters in race.end().items()
    }
    titles = ["", "seconds", "cpu / this", "error of training", "of other data"]
    here = [
        (name, f"{each['seconds']:.2f}", f"{each['cpu_over_this']:.2f}",
         f"{each['train_error']:.2g}", f"{each['test_error']:.2g}")
        for name, each in results.items()
    ]  # fmt: skip
    there = [
        (f"{name}, {machine}, published", f"{seconds:.2f}", "", "", "")
        for machine, by in PUBLISHED.items()
        for name, seconds in by.items()
    ]
    print_table(titles, [*here, *there])
    note()
    write(
        "simple_chains",
        {
            "epochs": turns * EPOCHS_A_TURN, "threads": 1, "here": results,
            "published": {"source": SOURCE, "epochs": 10_000, "seconds": PUBLISHED},
        },
    )  # fmt: skip


def errors(parameters: list[Any]) -> dict[str, float]:
    """The mean squared errors of a network on its own matrices, and on others."""
    net = NETWORK.network()
    net.assign(dict(zip(net.tensors(), parameters, strict=True)))
    return {
        f"{name}_error": net.cost(*NETWORK.problem(seed))
        for seed, name in enumerate(("train", "test"))
    }


if __name__ == "__main__":
    main()
