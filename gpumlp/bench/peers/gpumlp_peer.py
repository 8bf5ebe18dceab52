"""The step of gpumlp, and its floor: bare products, and the other bytes at a copy's speed."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

import gpumlp
from gpumlp.backends import Backend, cuda, get_backend
from gpumlp.backends.declaration import Call
from gpumlp.bench.peers import BareProducts, Problem, Step, Unsupported, float_type
from gpumlp.bench.profile import profile
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
    """`Trainer.step` on one minibatch.

    tuned: on a GPU, the products and the step are measured first, as `gpumlp tune` does.  Their
        time counts for the first step, as that of torch's max-autotune does.
    """

    def __init__(self, problem: Problem, tuned: bool = True) -> None:
        super().__init__()
        self._case = case = problem.case
        self.backend = open_backend(problem)
        self.net = gpumlp.MLP(  # θ is assigned below, so nothing is drawn here
            case.widths, case.activation, loss=case.loss, initializer="zeros", backend=self.backend
        )
        examples = Examples.checked(self.net, problem.x, problem.y)
        if tuned and problem.on_gpu:
            with tuning():
                self._prepare(examples)
                self.run()  # plans the products
                self.run()  # records the step
            del self._trainer, self._batches
            free_unused()
        self.net.assign(dict(problem.theta()))
        self._prepare(examples)
        self.theta_type = float_type(case.precision)
        self.notes["backend"] = self.backend.describe()

    def _prepare(self, examples: Examples) -> None:
        """A new trainer, before its first step."""
        case = self._case
        self._trainer = gpumlp.Trainer(
            self.net, case.optimizer, lr=case.lr, batch_size=case.batch_size
        )
        self._batches = self._trainer.batches(examples)
        self.start(case.lr)

    def start(self, lr: float) -> None:
        """From now on every step is the first step of an optimizer with this learning rate."""
        controls = self._trainer.controls([lr], 1)
        self._batches.start(0, controls, np.zeros(1), at=0)

    def run(self) -> None:
        self._trainer.step(self._batches)

    def tensors(self) -> Iterator[tuple[str, HostArray]]:
        yield from self.net.tensors().items()

    def profile(self) -> dict[str, Any]:
        """See `gpumlp.bench.profile.profile`.  θ is of no use afterwards."""
        return profile(self.backend, self._batches, copy_bandwidth(self.backend))


def untuned(problem: Problem) -> GpumlpStep:
    """The step without measurements, for a comparison of results."""
    return GpumlpStep(problem, tuned=False)


class Floor(OnBackend, BareProducts):
    """The products of a step. `extra_seconds` is the time of a copy of its other bytes.

    On a GPU they are tuned, and recorded as a graph, as those of a step are.
    """

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
        if problem.on_gpu:
            name = f"bare products, {problem.case.slug}"
            calls = [Call(product) for product in self._products]
            self._replay = backend.compile({"sequential": calls}, name)
            with tuning():
                self.run()  # plans the products
            self.run()  # records them
            free_unused()
        bandwidth = copy_bandwidth(backend)
        self.extra_seconds = problem.case.rest_bytes() / bandwidth
        self.notes = {
            "copy_bytes_per_second": bandwidth, "extra_seconds": self.extra_seconds,
            "backend": backend.describe(),
        }  # fmt: skip

    def run(self) -> None:
        if self.backend.on_host:
            super().run()
        else:
            self._replay(1)


def tuning() -> AbstractContextManager[None]:
    """Measure all products and steps that run meanwhile on the GPU."""
    return cuda.open_device().tuner.everything()


def free_unused() -> None:
    """Give the GPU memory that only the measurements needed back, so that it is not counted."""
    gc.collect()
    cupy: Any = sys.modules.get("cupy")
    if cupy:
        cupy.get_default_memory_pool().free_all_blocks()


def copy_bandwidth(backend: Backend, size: int | None = None) -> float:
    """Bytes read and written per second by a copy of `size` bytes in the memory of the backend."""
    size = size or COPY_BYTES["host" if backend.on_host else "GPU"]
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
