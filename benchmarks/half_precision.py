"""The accuracy of a training in 16 bits on a GPU, compared with float32: 5,000 digits of MNIST.

    python -m benchmarks.half_precision

The network, the splits and the settings are those of `benchmarks.accuracy`. It prints JSON.
"""

from __future__ import annotations

import json

from benchmarks.accuracy import SEEDS, TASKS, estimator, run
from gpumlp import estimators

PRECISIONS = ("float32", "bfloat16")


def main() -> None:
    """Train with each precision on each split."""
    scores = {
        precision: [
            run(TASKS["mnist5k"], estimator(estimators, backend="cupy", precision=precision), seed)
            for seed in range(SEEDS)
        ]
        for precision in PRECISIONS
    }
    print(json.dumps({"accuracy": scores}, indent=1))


if __name__ == "__main__":
    main()
