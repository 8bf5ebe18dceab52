"""The step of gpumlp, and its floor: bare products, and the other bytes at a copy's speed."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import gpumlp
from gpumlp.backends import Backend, get_backend
from gpumlp.bench.peers import BareProducts, Problem, Step, Unsupported, float_type
from gpumlp.io.threads import Threads, blas_threads
from gpumlp.io.types import Array, HostArray
from gpumlp.loader.examples import Examples

COPY_BYTES = {"host": 128 << 20, "GPU": 1 << 30}  # far more than any cache holds
COPIES = 9


class OnBackend(Step):
    """A step on a backend of this library."""

    backend: Backend

    def synchronize(self) -> None:
        self.backend.synchronize()

    def peak_bytes(self) -> int | None:
        """GPU memory that the pool of CuPy has allocated; it frees none of it."""
        cupy: Any = sys.modules.get("cupy")  # on a GPU the backend has imported it
        return int(cupy.get_default_memory_pool().total_bytes()) if cupy else None


class GpumlpStep(OnBackend):
    """`Trainer.step` on one minibatch."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        case = problem.case
        self.backend = open_backend(problem)
        self.net = gpumlp.MLP(  # θ is assigned below, so nothing is drawn here
            case.widths, case.activation, loss=case.loss, initializer="zeros", backend=self.backend
        )
        self.net.assign(dict(problem.theta()))
        self._trainer = gpumlp.Trainer(
            self.net, case.optimizer, lr=case.lr, batch_size=case.batch_size
        )
        self._batches = self._trainer.batches(Examples.checked(self.net, problem.x, problem.y))
        self.start(case.lr)
        self.theta_type = float_type(case.precision)
        self.notes["backend"] = self.backend.describe()

    def start(self, lr: float) -> None:
        """From now on every step is the first step of an optimizer with this learning rate."""
        controls = self._trainer.controls([lr], 1)
        self._batches.start(0, controls, np.zeros(1), at=0)

    def run(self) -> None:
        self._trainer.step(self._batches)

    def tensors(self) -> Iterator[tuple[str, HostArray]]:
        yield from self.net.tensors().items()


class Floor(OnBackend, BareProducts):
    """The products of a step. `extra_seconds` is the time of a copy of its other bytes."""

    def __init__(self, problem: Problem) -> None:
        self.backend = backend = open_backend(problem)
        rng = np.random.default_rng(0)

        def normal(rows: int, cols: int) -> Array:
            numbers = rng.standard_normal((rows, cols), np.float32)
            return backend.asarray(numbers, dtype=backend.storage)

        def forward(h: Array, W: Array, out: Array) -> None:
            # no operation multiplies by Wᵀ alone; the numbers are random, so its shape is enough
            backend.input_gradient(h, W.reshape(h.shape[1], -1), out)

        def weight_gradient(gz: Array, h: Array, out: Array) -> None:
            backend.weight_gradient(gz, h, out, None)

        super().__init__(problem.case, normal, forward, weight_gradient, backend.input_gradient)
        bandwidth = copy_bandwidth(backend, COPY_BYTES["host" if backend.on_host else "GPU"])
        self.extra_seconds = problem.case.rest_bytes() / bandwidth
        self.notes = {"copy_bytes_per_second": bandwidth, "backend": backend.describe()}


def copy_bandwidth(backend: Backend, size: int) -> float:
    """Bytes read and written per second by a copy of `size` bytes in the memory of the backend."""
    count = size // backend.dtype.itemsize
    a, b = backend.full((count,), 1.0), backend.full((count,), 0.0)
    threads = Threads(blas_threads())
    cuts = [count * i // (4 * threads.count) for i in range(4 * threads.count + 1)]

    def copy_part(part: int) -> None:
        np.copyto(b[cuts[part] : cuts[part + 1]], a[cuts[part] : cuts[part + 1]])

    seconds = []
    for _ in range(COPIES + 1):
        backend.synchronize()
        start = time.perf_counter()
        if backend.on_host:  # one thread does not fill the memory bus of a CPU
            threads.map(copy_part, range(4 * threads.count))
        else:
            backend.asarray(a, out=b)
        backend.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * count * backend.dtype.itemsize / statistics.median(seconds[1:])


def open_backend(problem: Problem) -> Backend:
    """The backend of the problem, in the precision of its case."""
    try:
        return get_backend(problem.backend, problem.case.precision)
    except ValueError as error:
        raise Unsupported(str(error)) from error
