"""Epochs of small and wide networks on the CPU, beside JAX with lax.scan over an epoch, and torch.

    python -m benchmarks.cpu_epochs [--write] [--rounds N] [--only TEXT]

An epoch shuffles, gathers each minibatch, and makes a step on it: relu, softmax cross-entropy,
float32.  JAX's epoch is one compiled call, `lax.scan` over the minibatches with donated buffers.
torch is timed eager as installed, eager with products that may round to bfloat16 ("medium"), and
under torch.compile.  One round times each competitor once; `benchmarks/race.py` says how.

"busy" times the same epochs while as many other processes as there are cores multiply matrices.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any

from benchmarks import epochs
from benchmarks.epochs import Network
from benchmarks.output import note, write
from benchmarks.race import Race
from gpumlp.bench.worker import load
from gpumlp.cli.output import print_table
from gpumlp.io.threads import cores

COMPETITORS = epochs.available()
NETWORKS = [
    Network((32, 32, 2), 32, "sgd", 1000),
    Network((20, 24, 3), 50, "adamw", 1000),
    Network((64, 128, 128, 10), 64, "adamw", 200),
    Network((48, 160, 160, 7), 96, "adamw", 100),
    Network((784, 128, 10), 128, "adamw", 60),
    Network((300, 300, 300, 5), 128, "sgd", 60),
    Network((784, 1024, 1024, 10), 256, "adamw", 10),
    Network((784, 1024, 1024, 10), 256, "sgd", 10),
    Network((2048, 2048, 2048, 2048, 2048, 10), 512, "sgd", 2),
    Network((27, 256, 256, 2), 64, "adamw", 100),
    Network((27, 256, 256, 2), 64, "adamw", 100, busy=True),
]


def timed(network: Network, rounds: int) -> dict[str, dict[str, float]]:
    """Return µs of a step, and the time of the CPU backend over it, by competitor."""
    race = Race(network, COMPETITORS)
    with load(cores() if network.busy else 0):
        race.warm_up()
        found = [race.turns(i) for i in range(rounds)]
    race.end()
    rounds_of = {name: [each for each in found if name in each] for name in found[0]}
    return {
        "median_us_a_step": {
            name: 1e6 * statistics.median(each[name] for each in its) / network.steps
            for name, its in rounds_of.items()
        },
        "cpu_over_this": {
            name: statistics.median(each["cpu"] / each[name] for each in its)
            for name, its in rounds_of.items()
        },
    }


def main() -> None:
    """Time all networks and print a table; Ctrl-C ends it after those that are timed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="networks whose names contain this text")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    try:
        for network in (each for each in NETWORKS if options.only in str(each)):
            print(f"{network} …", file=sys.stderr, flush=True)
            found[str(network)] = timed(network, options.rounds)
    finally:
        columns = [name.replace(" ", "\n") for name in COMPETITORS]
        print_table(["µs a step\n(cpu / this)", *columns], [cells(*row) for row in found.items()])
        note()
    write("cpu_epochs", found)


def cells(name: str, found: dict[str, dict[str, float]]) -> list[str]:
    """The row of a network; those that were left out have no number."""
    micros, ratios = found["median_us_a_step"], found["cpu_over_this"]
    return [
        name,
        *(f"{micros[k]:.1f} ({ratios[k]:.2f})" if k in micros else "" for k in COMPETITORS),
    ]


if __name__ == "__main__":
    main()
