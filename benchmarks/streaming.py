"""What it costs that the examples stay on a disk: steps on a file beside steps on an array.

    python -m benchmarks.streaming [--write]

Steps of 784-1024-1024-10 (relu, cross-entropy, minibatch 256, SGD), five in a row, in turn.  Before
they are timed, an epoch of each must end with the same θ, bit for bit.  --write keeps the figures
in results/; GPUMLP_BENCH_BACKEND chooses the backend (numpy).  The files, just written, are in the
system's page cache: a disk that is slower than training is not what is timed.  "A large file" is
one whose rows are read, as those of files above `mapped.LARGE_MAP` bytes are, not mapped.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import gpumlp
from benchmarks.timing import interleaved, write
from gpumlp.backends import mapped
from gpumlp.loader.examples import Examples

EXAMPLES, ROWS, WIDTHS = 12_800, 256, (784, 1024, 1024, 10)
BURST, ROUNDS = 5, 24
BACKEND = os.environ.get("GPUMLP_BENCH_BACKEND", "numpy")


class Training:
    """A network at work on data that lies as `data` says."""

    def __init__(self, x: Any, y: Any, data: str) -> None:
        self.net = gpumlp.MLP(WIDTHS, "relu", backend=BACKEND)
        self.trainer = gpumlp.Trainer(self.net, "sgd", lr=1e-3, batch_size=ROWS)
        examples = Examples.checked(self.net, x, y, data=data, rows=ROWS)
        self.batches = self.trainer.batches(examples)
        self.controls = np.array([self.trainer.control(1e-3, 1)] * self.batches.steps)
        self.epoch = -1
        self.batches.at = self.batches.steps

    def run(self, steps: int = BURST) -> None:
        """So many steps."""
        for _ in range(steps):
            if self.batches.at == self.batches.steps:
                self.epoch += 1
                self.batches.start(self.epoch, self.controls, np.zeros(self.batches.steps), 0)
            self.trainer.step(self.batches)
        self.net.backend.synchronize()

    def theta(self) -> bytes:
        """θ's bytes."""
        return b"".join(t.tobytes() for t in self.net.tensors().values())


def competitors(folder: Path) -> dict[str, Training]:
    """The same values as an array in the backend, as one that is streamed, and as files."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (EXAMPLES, WIDTHS[0])).astype(np.uint8)
    y = rng.integers(0, WIDTHS[-1], EXAMPLES)
    made = {"in the backend": Training(x, y, "device"), "uint8 in memory": Training(x, y, "stream")}
    for dtype in ("uint8", "float16", "float32", "float64"):
        path = folder / f"{dtype}.npy"
        np.save(path, x.astype(dtype))
        made[f"a file of {dtype}"] = Training(np.load(path, mmap_mode="r"), y, "stream")
        mapped.LARGE_MAP, held = 0, mapped.LARGE_MAP
        made[f"a large file of {dtype}"] = Training(np.load(path, mmap_mode="r"), y, "stream")
        mapped.LARGE_MAP = held
    return made


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        each = competitors(Path(folder))
        for training in each.values():
            training.run(training.batches.steps)
        if len({training.theta() for training in each.values()}) > 1:
            raise SystemExit("they do not train alike: nothing was timed")
        timings = interleaved({name: t.run for name, t in each.items()}, ROUNDS, warmup=1)
        backend = each["in the backend"].net.backend.describe()
        del each  # before the files
    base, table = timings["in the backend"], {}
    print(
        f"{'a step, data':24s} {'median ms':>10s} {'quartiles ms':>18s} {'over the backend':>14s}"
    )
    for name, timing in timings.items():
        median, low, high = (1e3 * t / BURST for t in (timing.median, *timing.quartiles))
        ratio = timing.ratio(base)
        print(f"{name:24s} {median:10.2f} {low:9.2f} {high:8.2f} {ratio:13.3f}x")
        table[name] = {"median_ms": median, "quartiles_ms": [low, high], "over_the_backend": ratio}
    if "--write" in sys.argv[1:]:
        print(f"written: {write(f'streaming_{BACKEND}', {'backend': backend, 'step': table})}")


if __name__ == "__main__":
    main()
