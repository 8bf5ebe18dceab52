"""Training by several processes of one thread beside one process with as many threads, on CPUs.

    python -m benchmarks.distributed [--write] [--processes P] [--rounds N]

784-1024-1024-10, minibatch 1024, adamw, float32.  The two take turns: in each round one process
with P threads trains, and P processes with one thread each, started by mpiexec.  A process leaves
out its first epoch and gives the median of the others.  With `shards`, what the same bits for any
number of processes cost a single one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from importlib.metadata import files
from typing import Any

import numpy as np

from benchmarks.output import write
from gpumlp.cli.output import print_table

WIDTHS, BATCH, EXAMPLES = (784, 1024, 1024, 10), 1024, 8 * 1024
EPOCHS = 6
SHARDS = (2, 4, 8)


def main() -> None:
    """Time the turns, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--turn", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.turn is not None:
        _turn(options.turn)
        return
    P = options.processes
    turns = {"one process": (1, P, 1), f"{P} processes": (P, 1, P)}
    turns |= {f"one process, {V} shards": (1, P, V) for V in SHARDS}
    found: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(options.rounds):
        for name, turn in turns.items():
            found[name].append(_seconds(*turn))
    steps = EXAMPLES // BATCH
    base = found["one process"]
    results = {
        name: {
            "milliseconds a step": [round(1e3 * each / steps, 3) for each in seconds],
            "ratio": statistics.median(a / b for a, b in zip(seconds, base, strict=True)),
        }
        for name, seconds in found.items()
    }
    rows = [
        [name, f"{statistics.median(each['milliseconds a step']):.2f}", f"{each['ratio']:.3f}"]
        for name, each in results.items()
    ]
    print_table(["", "ms a step", "to one process"], rows)
    network = {"widths": WIDTHS, "minibatch": BATCH, "optimizer": "adamw", "processes": P}
    write("distributed", {**network, "results": results})


def _seconds(processes: int, threads: int, shards: int) -> float:
    """The seconds of an epoch with so many processes, of so many threads each."""
    command = [sys.executable, "-m", "benchmarks.distributed", "--turn", str(shards)]
    if processes > 1:
        command = [_mpiexec(), "-n", str(processes), *command]
    counts = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    done = subprocess.run(
        command, env=os.environ | counts, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


def _mpiexec() -> str:
    own = [str(f.locate()) for f in files("mpich") or () if f.name == "mpiexec"]
    found = own[0] if own else shutil.which("mpiexec")
    if found is None:
        sys.exit('this benchmark needs mpiexec: pip install "gpumlp[distributed]"')
    return found


def _turn(shards: int) -> None:
    """Train in this process, one of some; rank 0 prints the median seconds of an epoch."""
    import gpumlp
    from gpumlp.distributed import world

    ranks = world()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((EXAMPLES, WIDTHS[0]), np.float32)
    y = rng.integers(0, WIDTHS[-1], EXAMPLES)
    net = gpumlp.MLP(WIDTHS, "relu", backend="auto", seed=0)
    trainer = gpumlp.Trainer(net, "adamw", batch_size=BATCH, world=ranks, shards=shards)
    ends: list[float] = []

    class Clock(gpumlp.Callback):
        def on_epoch_end(self, trainer: Any, row: Any) -> None:
            ends.append(time.perf_counter())

    trainer.fit(x, y, EPOCHS, callbacks=[Clock()], progress=False)
    if ranks.rank == 0:
        print(json.dumps(statistics.median(np.diff(ends))))


if __name__ == "__main__":
    main()
