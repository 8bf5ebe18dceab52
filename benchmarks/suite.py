"""What the pytest-benchmark suites share: the backend, a network in training, bytes and FLOPs.

GPUMLP_BENCH_BACKEND chooses the backend (numpy), GPUMLP_BENCH_PRECISION its arithmetic (float32),
GPUMLP_BENCH_WIDTH the layers' width (1024), GPUMLP_BENCH_ROWS the minibatch (256), GPUMLP_BENCH_MB
the largest array of a kernel (16 MB on the CPU, 2048 on a GPU, far beyond its caches).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from gpumlp.bench.peers.ours import copy_bandwidth

import gpumlp
from gpumlp.backends import Backend, get_backend
from gpumlp.io.types import Array
from gpumlp.loader.examples import Examples

BACKEND = os.environ.get("GPUMLP_BENCH_BACKEND", "numpy")
PRECISION = os.environ.get("GPUMLP_BENCH_PRECISION", "float32")
WIDTH = int(os.environ.get("GPUMLP_BENCH_WIDTH", "1024"))
ROWS = int(os.environ.get("GPUMLP_BENCH_ROWS", "256"))
MEGABYTES = int(os.environ.get("GPUMLP_BENCH_MB", "2048" if BACKEND == "cupy" else "16"))
OUTPUTS = 10


def backend() -> Backend:
    """The backend that the environment names."""
    return get_backend(BACKEND, PRECISION)


def timed(
    benchmark: Any,
    where: Backend,
    call: Callable[[], Any],
    moved: int = 0,
    flops: int = 0,
    before: Callable[[], Any] | None = None,
) -> None:
    """Benchmark a call together with the wait for its end, so that a device's work is within it.

    moved: bytes that it must read and write; "share_of_copy" is its speed over that of a copy of
    as many bytes in the same backend.  flops: of its products.  before: done before each call, not
    timed.
    """

    def run() -> None:
        call()
        where.synchronize()

    def ready() -> None:
        if before is not None:
            before()
        where.synchronize()

    bandwidth = copy_bandwidth(where, moved // 2) if moved else 0.0
    if before is None:
        benchmark(run)
    else:
        benchmark.pedantic(run, setup=ready, rounds=30, warmup_rounds=3)
    if benchmark.stats is None:  # --benchmark-disable
        return
    seconds = benchmark.stats.stats.median
    if moved:
        benchmark.extra_info |= {
            "gigabytes_per_second": moved / seconds / 1e9,
            "share_of_copy": moved / seconds / bandwidth,
        }
    if flops:
        benchmark.extra_info["tflops"] = flops / seconds / 1e12


def normal(where: Backend, *shape: int) -> Array:
    """Standard normal numbers in the backend; zeros would draw less power, and run faster."""
    numbers = np.random.default_rng(len(shape)).standard_normal(shape, np.float32)
    return where.asarray(numbers, dtype=where.storage)


def empty(where: Backend, *shape: int) -> Array:
    """Of activations or gradients."""
    return where.empty(shape, where.storage)


class Training:
    """A network WIDTH wide and three layers deep, one minibatch loaded and one step done."""

    def __init__(self, activation: str = "relu", optimizer: str = "sgd") -> None:
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((ROWS, WIDTH), np.float32)
        self.y = rng.integers(0, OUTPUTS, ROWS)
        self.backend = backend()
        self.net = gpumlp.MLP([WIDTH, WIDTH, WIDTH, OUTPUTS], activation, backend=self.backend)
        self.trainer = gpumlp.Trainer(self.net, optimizer, lr=1e-3, batch_size=ROWS)
        self.batches = self.trainer.batches(Examples.checked(self.net, self.x, self.y))
        self.batches.start(0, np.array([self.trainer.control(1e-3, 1)]), np.zeros(1), at=0)
        J = self.net.cost(self.x, self.y)
        assert abs(J - np.log(OUTPUTS)) < 2  # the network works before it is timed
        self.step()
        self.backend.synchronize()

    def step(self) -> None:
        """Gather, forward, backward, update."""
        self.trainer.step(self.batches)
