"""gpumlp's step, and the floor: its products alone, and its other bytes at a copy's speed."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

import gpumlp
from gpumlp.backends import Backend, get_backend
from gpumlp.bench.peers import Plain, Problem, Unsupported, float_type
from gpumlp.io.threads import Threads, blas_threads
from gpumlp.io.types import Array, HostArray
from gpumlp.loader.examples import Examples

COPY_BYTES = {"numpy": 128 << 20, "cupy": 1 << 30}  # far more than any cache holds
COPIES = 9


class OurStep(Plain):
    """`Trainer.step` on one minibatch."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        case = problem.case
        backend = _backend(problem)
        self.net = gpumlp.MLP(
            case.widths, case.activation, loss=case.loss, initializer=_undrawn, backend=backend
        )
        self.net.assign(dict(problem.theta()))
        self._trainer = gpumlp.Trainer(
            self.net, case.optimizer, lr=case.lr, batch_size=case.batch_size
        )
        self._batches = self._trainer.batches(Examples.checked(self.net, problem.x, problem.y))
        self.start(case.lr)
        self.theta_type = float_type(case.precision)
        self.notes["backend"] = backend.describe()

    def start(self, lr: float) -> None:
        """Every step from now on is the first one of an optimizer with this learning rate."""
        controls = np.array([self._trainer.control(lr, 1)])
        self._batches.start(0, controls, np.zeros(1), at=0)

    def run(self) -> None:
        """Gather, forward, backward, update."""
        self._trainer.step(self._batches)

    def synchronize(self) -> None:
        """Wait for the device."""
        self.net.backend.synchronize()

    def tensors(self) -> Iterator[tuple[str, HostArray]]:
        """θ by torch's names."""
        yield from self.net.tensors().items()

    def peak_bytes(self) -> int | None:
        """What CuPy's pool has taken from the device; it gives nothing back."""
        return _pool_bytes()


class Floor(Plain):
    """A step's products, bare; `extra_seconds` is its other bytes over the bandwidth of a copy."""

    trains = False

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        case, self._backend = problem.case, _backend(problem)
        backend, widths, m = self._backend, case.widths, case.batch_size
        rng = np.random.default_rng(0)

        def normal(rows: int, cols: int) -> Array:  # zeros would draw less power, and run faster
            return backend.asarray(
                rng.standard_normal((rows, cols), np.float32), dtype=backend.storage
            )

        self._h = [normal(m, n) for n in widths]
        self._gz = [normal(m, n) for n in widths]
        self._W = [normal(n_out, n_in) for n_in, n_out in pairwise(widths)]
        # the operations have no product with the transpose of W, so it is laid out transposed
        self._WT = [normal(n_in, n_out) for n_in, n_out in pairwise(widths)]
        bandwidth = copy_bandwidth(backend, COPY_BYTES[backend.name])
        self.extra_seconds = case.rest_bytes() / bandwidth
        self.notes = {"copy_bytes_per_second": bandwidth, "backend": backend.describe()}

    def run(self) -> None:
        """As many products, of the same shapes, as a step has."""
        backend, h, gz = self._backend, self._h, self._gz
        layers = range(len(self._W))
        for k in layers:
            backend.input_gradient(h[k], self._WT[k], h[k + 1])
        for k in reversed(layers):
            backend.weight_gradient(gz[k + 1], h[k], self._W[k], None)
            if k > 0:
                backend.input_gradient(gz[k + 1], self._W[k], gz[k])

    def synchronize(self) -> None:
        """Wait for the device."""
        self._backend.synchronize()

    def peak_bytes(self) -> int | None:
        """As for a step; of no interest."""
        return _pool_bytes()


def step(problem: Problem) -> OurStep:
    """gpumlp."""
    return OurStep(problem)


def floor(problem: Problem) -> Floor:
    """Its floor."""
    return Floor(problem)


def copy_bandwidth(backend: Backend, size: int) -> float:
    """Bytes read and written a second by a copy of `size` bytes within the backend."""
    count = size // backend.dtype.itemsize
    a, b = backend.full((count,), 1.0), backend.full((count,), 0.0)
    threads = Threads(blas_threads())
    cuts = [count * i // (4 * threads.count) for i in range(4 * threads.count + 1)]

    def on_cpu(part: int) -> None:
        np.copyto(b[cuts[part] : cuts[part + 1]], a[cuts[part] : cuts[part + 1]])

    seconds = []
    for _ in range(COPIES + 1):
        backend.synchronize()
        start = time.perf_counter()
        if backend.name == "numpy":  # one thread does not fill a CPU's memory bus
            threads.map(on_cpu, range(4 * threads.count))
        else:
            backend.asarray(a, out=b)
        backend.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * count * backend.dtype.itemsize / statistics.median(seconds[1:])


def _backend(problem: Problem) -> Backend:
    try:
        return get_backend(problem.backend, problem.case.precision)
    except ValueError as error:
        raise Unsupported(str(error)) from error


def _pool_bytes() -> int | None:
    cupy: Any = sys.modules.get("cupy")  # the device has imported it, where there is one
    return int(cupy.get_default_memory_pool().total_bytes()) if cupy else None


_undrawn = gpumlp.Initializer("undrawn", draw=lambda rng, n_out, n_in: np.zeros((n_out, n_in)))
