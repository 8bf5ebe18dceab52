"""A training in 16 bits compared with float32: the accuracy on 5,000 digits of MNIST, and the time.

    python -m benchmarks.half_precision [--backend cpu] [--write]

The network, the splits and the settings of the accuracy are those of `benchmarks.accuracy`.  On the
CPU, which needs AVX512_BF16, epochs of 784-1024-1024-10 on minibatches of 256 are timed in both
precisions, one after the other.  It prints JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

import gpumlp
from benchmarks.accuracy import SEEDS, TASKS, estimator, run
from benchmarks.output import write
from gpumlp import estimators
from gpumlp.bench.timing import interleaved

PRECISIONS = ("float32", "bfloat16")
WIDTHS, ROWS, STEPS, EPOCHS = (784, 1024, 1024, 10), 256, 10, 2


def accuracies(backend: str) -> dict[str, list[float]]:
    """Train with each precision on each split."""
    return {
        precision: [
            run(TASKS["mnist5k"], estimator(estimators, backend=backend, precision=precision), seed)
            for seed in range(SEEDS)
        ]
        for precision in PRECISIONS
    }


def steps(optimizer: str, rounds: int = 9) -> dict[str, float]:
    """Milliseconds of a step in each precision, and the ratio of both."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(STEPS * ROWS, WIDTHS[0])).astype("f4")
    y = rng.integers(0, WIDTHS[-1], len(x))

    def trained(precision: str) -> Any:
        net = gpumlp.MLP(WIDTHS, backend="cpu", precision=precision)
        trainer = gpumlp.Trainer(net, optimizer, batch_size=ROWS)
        return lambda: trainer.fit(x, y, EPOCHS, metric=None, progress=False)

    timed = interleaved({each: trained(each) for each in PRECISIONS}, rounds, warmup=1)
    found = {each: 1e3 * timing.median / (EPOCHS * STEPS) for each, timing in timed.items()}
    return {**found, "ratio": timed["bfloat16"].ratio(timed["float32"])}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="cupy", choices=["cupy", "cpu"])
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    found: dict[str, Any] = {"accuracy": accuracies(options.backend)}
    if options.backend == "cpu":
        found["ms_a_step"] = {optimizer: steps(optimizer) for optimizer in ("adamw", "sgd")}
    print(json.dumps(found, indent=1))
    write(f"half_precision_{options.backend}", found)


if __name__ == "__main__":
    main()
