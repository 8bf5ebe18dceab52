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
from gpumlp.backends import Array, Backend, get_backend
from gpumlp.backends.threads import Threads, blas_threads
from gpumlp.bench.cases import HostArray
from gpumlp.bench.peers import Plain, Problem, Unsupported, float_type
from gpumlp.training.examples import Examples

COPY_BYTES = {"numpy": 128 << 20, "cupy": 1 << 30}  # far more than any cache holds
COPIES = 9


class OurStep(Plain):
    """`Trainer.step` on one minibatch."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        case = problem.case
        room = _room(problem)
        self.net = gpumlp.MLP(
            case.widths, case.activation, loss=case.loss, initializer=_undrawn, backend=room
        )
        self.net.assign(dict(problem.theta()))
        self._trainer = gpumlp.Trainer(
            self.net, case.optimizer, lr=case.lr, batch_size=case.batch_size
        )
        self._batches = self._trainer.batches(Examples.checked(self.net, problem.x, problem.y))
        self.start(case.lr)
        self.theta_type = float_type(case.precision)
        self.notes["room"] = room.describe()

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
        case, self._room = problem.case, _room(problem)
        room, widths, m = self._room, case.widths, case.batch_size
        rng = np.random.default_rng(0)

        def normal(rows: int, cols: int) -> Array:  # zeros would draw less power, and run faster
            return room.asarray(rng.standard_normal((rows, cols), np.float32), dtype=room.storage)

        self._h = [normal(m, n) for n in widths]
        self._gz = [normal(m, n) for n in widths]
        self._W = [normal(n_out, n_in) for n_in, n_out in pairwise(widths)]
        # the doors have no product with the transpose of W, so it is laid out transposed
        self._WT = [normal(n_in, n_out) for n_in, n_out in pairwise(widths)]
        bandwidth = copy_bandwidth(room, COPY_BYTES[room.name])
        self.extra_seconds = case.rest_bytes() / bandwidth
        self.notes = {"copy_bytes_per_second": bandwidth, "room": room.describe()}

    def run(self) -> None:
        """As many products, of the same shapes, as a step has."""
        room, h, gz = self._room, self._h, self._gz
        layers = range(len(self._W))
        for k in layers:
            room.input_gradient(h[k], self._WT[k], h[k + 1])
        for k in reversed(layers):
            room.weight_gradient(gz[k + 1], h[k], self._W[k], None)
            if k > 0:
                room.input_gradient(gz[k + 1], self._W[k], gz[k])

    def synchronize(self) -> None:
        """Wait for the device."""
        self._room.synchronize()

    def peak_bytes(self) -> int | None:
        """As for a step; of no interest."""
        return _pool_bytes()


def step(problem: Problem) -> OurStep:
    """gpumlp."""
    return OurStep(problem)


def floor(problem: Problem) -> Floor:
    """Its floor."""
    return Floor(problem)


def copy_bandwidth(room: Backend, size: int) -> float:
    """Bytes read and written a second by a copy of `size` bytes within the room."""
    count = size // room.dtype.itemsize
    a, b = room.full((count,), 1.0), room.full((count,), 0.0)
    threads = Threads(blas_threads())
    cuts = [count * i // (4 * threads.count) for i in range(4 * threads.count + 1)]

    def on_cpu(part: int) -> None:
        np.copyto(b[cuts[part] : cuts[part + 1]], a[cuts[part] : cuts[part + 1]])

    seconds = []
    for _ in range(COPIES + 1):
        room.synchronize()
        start = time.perf_counter()
        if room.name == "numpy":  # one thread does not fill a CPU's memory bus
            threads.map(on_cpu, range(4 * threads.count))
        else:
            room.asarray(a, out=b)
        room.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * count * room.dtype.itemsize / statistics.median(seconds[1:])


def _room(problem: Problem) -> Backend:
    try:
        return get_backend(problem.backend, problem.case.precision)
    except ValueError as error:
        raise Unsupported(str(error)) from error


def _pool_bytes() -> int | None:
    cupy: Any = sys.modules.get("cupy")  # the device has imported it, where there is one
    return int(cupy.get_default_memory_pool().total_bytes()) if cupy else None


_undrawn = gpumlp.Initializer("undrawn", draw=lambda rng, n_out, n_in: np.zeros((n_out, n_in)))
