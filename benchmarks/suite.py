"""What the pytest-benchmark suites share: the backend, a network in training, bytes and FLOPs.

Environment variables choose the sizes: GPUMLP_BENCH_BACKEND the backend (numpy),
GPUMLP_BENCH_PRECISION its precision (float32), GPUMLP_BENCH_WIDTH the width of the layers (1024),
GPUMLP_BENCH_ROWS the minibatch (256), GPUMLP_BENCH_COLS the columns of a kernel's arrays (4096),
and GPUMLP_BENCH_MB its largest array (16 MB on the CPU; 512 MB on a GPU, far more than its caches
hold).

On a GPU, several calls are recorded as one graph. So neither the time of the host for a launch nor
that of a synchronization is timed with a kernel that takes microseconds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from gpumlp.backends import Backend, get_backend
from gpumlp.backends.declaration import Call
from gpumlp.bench.cases import Case
from gpumlp.bench.peers import Problem
from gpumlp.bench.peers.gpumlp_peer import GpumlpStep, copy_bandwidth
from gpumlp.io.types import Array

BACKEND = os.environ.get("GPUMLP_BENCH_BACKEND", "numpy")
PRECISION = os.environ.get("GPUMLP_BENCH_PRECISION", "float32")
WIDTH = int(os.environ.get("GPUMLP_BENCH_WIDTH", "1024"))
ROWS = int(os.environ.get("GPUMLP_BENCH_ROWS", "256"))
COLS = int(os.environ.get("GPUMLP_BENCH_COLS", "4096"))
MEGABYTES = int(os.environ.get("GPUMLP_BENCH_MB", "512" if BACKEND == "cupy" else "16"))
OUTPUTS = 10
CALLS = 20  # in a graph
COPY = 2 << 30  # bytes that a copy on a GPU reads, for comparison
DRAWN = 1 << 22  # different numbers in a large array


def backend() -> Backend:
    """The backend that the environment names."""
    return get_backend(BACKEND, PRECISION)


def timed(
    benchmark: Any,
    where: Backend,
    call: Callable[[], Any] | Sequence[Callable[[], Any]],
    moved: int = 0,
    flops: int = 0,
    before: Callable[[], Any] | None = None,
    record: bool = True,
) -> None:
    """Benchmark a call and the wait for its end, so that the work of a GPU is timed too.

    Args:
        benchmark: fixture of pytest-benchmark.
        where: the backend.
        call: what is timed: a function, or operations that a program may join.
        moved: bytes that the call must read and write. "share_of_copy" is its speed over the speed
            of a copy in the same backend: of as many bytes, or on a GPU of COPY.
        flops: FLOPs of its products.
        before: called before each call, and not timed. It is for the CPU: on a GPU no number takes
            more time than others.
        record: whether calls are recorded on a GPU; they are operations then.
    """
    calls, several = 1, [call] if callable(call) else call
    if record and not where.on_host:
        before, calls = None, CALLS
        many = where.compile({"sequential": CALLS * list(map(Call, several))}, "a benchmark")
        many(2)  # the second time records them
        several = [partial(many, 1)]

    def run() -> None:
        for each in several:
            each()
        where.synchronize()

    def ready() -> None:
        if before is not None:
            before()
        where.synchronize()

    bandwidth = 0.0
    if moved:
        bandwidth = copy_bandwidth(where, moved // 2 if BACKEND != "cupy" else COPY)
    if before is None:
        benchmark(run)
    else:
        benchmark.pedantic(run, setup=ready, rounds=30, warmup_rounds=3)
    if benchmark.stats is None:  # --benchmark-disable
        return
    seconds = benchmark.stats.stats.median / calls
    benchmark.extra_info["seconds"] = seconds  # of a call
    if moved:
        benchmark.extra_info |= {
            "gigabytes_per_second": moved / seconds / 1e9,
            "share_of_copy": moved / seconds / bandwidth,
        }
    if flops:
        benchmark.extra_info["tflops"] = flops / seconds / 1e12


def normal(where: Backend, *shape: int) -> Array:
    """Standard normal numbers. A GPU would need less power for zeros, and so run faster.

    After the first DRAWN they repeat: to draw all of a large array would take longer than to time
    it.
    """
    size = math.prod(shape)
    numbers = np.random.default_rng(len(shape)).standard_normal(min(size, DRAWN), np.float32)
    return where.asarray(np.resize(numbers, shape), dtype=where.storage)


def empty(where: Backend, *shape: int) -> Array:
    """An array for activations or gradients."""
    return where.empty(shape, where.storage)


class Training(GpumlpStep):
    """A network in training: three layers, two of them WIDTH wide, after its first step."""

    def __init__(self, activation: str = "relu", optimizer: str = "sgd") -> None:
        widths = (WIDTH, WIDTH, WIDTH, OUTPUTS)
        self.case = Case("suite", widths, ROWS, activation, optimizer, PRECISION)
        problem = Problem(self.case, BACKEND)
        super().__init__(problem)
        self.x, self.y = problem.x, problem.y
        J = self.net.cost(self.x, self.y)
        assert 0 < J < 3 * np.log(OUTPUTS)  # the network works before it is timed
        self.run()
        self.synchronize()
