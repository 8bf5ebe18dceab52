"""Steps on examples that are streamed from host memory or files, compared with steps on an array.

    python -m benchmarks.streaming [--write]

The steps are those of 784-1024-1024-10 (relu, cross-entropy, minibatch 256, SGD), five in a row.
Before the timing, an epoch of each must end with the same θ, bit for bit. --write stores the
figures in results/; GPUMLP_BENCH_BACKEND chooses the backend (numpy).

The files were just written, so they are in the page cache of the system, and no slow disk is timed.
"a large file" is one whose rows are read and not mapped, as with files above `mapped.LARGE_MAP`
bytes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import gpumlp
from benchmarks.output import compare, write
from benchmarks.suite import BACKEND
from gpumlp.bench.timing import Timing, interleaved
from gpumlp.io import mapped
from gpumlp.loader.examples import Examples

EXAMPLES, ROWS, WIDTHS = 12_800, 256, (784, 1024, 1024, 10)
BURST, ROUNDS = 5, 24
BASE = "in the backend"


class Training:
    """A network in training on examples that are placed as `data` says."""

    def __init__(self, x: Any, y: Any, data: str) -> None:
        self.net = gpumlp.MLP(WIDTHS, "relu", backend=BACKEND)
        self.trainer = gpumlp.Trainer(self.net, "sgd", lr=1e-3, batch_size=ROWS)
        examples = Examples.checked(self.net, x, y, data=data, rows=ROWS)
        self.batches = self.trainer.batches(examples)
        self.controls = np.repeat(
            self.trainer.controls([1e-3], 1), self.batches.order.steps, axis=0
        )
        self.epoch = -1
        self.batches.order.at = self.batches.order.steps

    def run(self, steps: int = BURST) -> None:
        """Take so many steps."""
        for _ in range(steps):
            if self.batches.order.at == self.batches.order.steps:
                self.epoch += 1
                self.batches.start(self.epoch, self.controls, np.zeros(self.batches.order.steps), 0)
            self.trainer.step(self.batches)
        self.net.backend.synchronize()

    def theta(self) -> bytes:
        """The bytes of θ."""
        return b"".join(t.tobytes() for t in self.net.tensors().values())


def competitors(folder: Path) -> dict[str, Training]:
    """The same values as an array of the backend, as a streamed array, and as files."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (EXAMPLES, WIDTHS[0])).astype(np.uint8)
    y = rng.integers(0, WIDTHS[-1], EXAMPLES)
    made = {BASE: Training(x, y, "device"), "uint8 in memory": Training(x, y, "stream")}
    for dtype in ("uint8", "float16", "float32", "float64"):
        path = folder / f"{dtype}.npy"
        np.save(path, x.astype(dtype))
        made[f"a file of {dtype}"] = Training(np.load(path, mmap_mode="r"), y, "stream")
        mapped.LARGE_MAP, usual = 0, mapped.LARGE_MAP
        made[f"a large file of {dtype}"] = Training(np.load(path, mmap_mode="r"), y, "stream")
        mapped.LARGE_MAP = usual
    return made


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        trainings = competitors(Path(folder))
        for training in trainings.values():
            training.run(training.batches.order.steps)
        if len({training.theta() for training in trainings.values()}) > 1:
            raise SystemExit("the trainings do not end with the same θ: nothing was timed")
        bursts = interleaved({name: t.run for name, t in trainings.items()}, ROUNDS, warmup=1)
        backend = trainings[BASE].net.backend.describe()
        del trainings, training  # they have the files open
    steps = {name: Timing([s / BURST for s in t.seconds]) for name, t in bursts.items()}
    base = steps[BASE]
    table = compare("a step, data", steps, "over_the_backend", lambda step: step.ratio(base))
    write(f"streaming_{BACKEND}", {"backend": backend, "step": table})


if __name__ == "__main__":
    main()
