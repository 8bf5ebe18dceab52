"""A step operation by operation: the model of its time, and the time of each operation alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from math import prod
from typing import Any

import numpy as np

from gpumlp.backends import Backend
from gpumlp.backends.cuda.paper import KIND, Gpu
from gpumlp.backends.declaration import Call
from gpumlp.loader.batches import Batches
from gpumlp.training.explaining import on_paper

SECONDS = 0.01  # that a burst of one operation should take
BURSTS = 5
MOST = 200  # repetitions in a burst

Shape = tuple[int, int, int]


def profile(backend: Backend, batches: Batches, bandwidth: float) -> dict[str, Any]:
    """The device by its measured numbers, and the operations of the next step.

    It runs each operation of the step many times, so θ is of no use afterwards.

    Args:
        backend: the backend of the step.
        batches: minibatches that have been started.
        bandwidth: bytes read and written per second by a copy.

    Returns:
        "device": what `Gpu` has, with measured rates.  "model": the seconds of the step by
        `explain` on that device.  "operations": for each its name, its result, its seconds in the
        model and its seconds alone.
    """
    planned, calls = batches.operations()
    shapes = dict.fromkeys(shape for op in planned.program for shape in op.products)
    products = tuple((*shape, _product_rate(backend, shape)) for shape in shapes)
    peak = {KIND.get(backend.precision, backend.precision): max(rate for *_, rate in products)}
    device = Gpu(backend.describe(), "", 1, bandwidth, peak, products, _gap(backend))
    explained = on_paper(planned, device, backend.precision)
    operations = [
        {"operation": line.operation, "result": line.result, "model": line.seconds,
         "alone": _seconds(backend, Call(call.work))}
        for line, call in zip(explained.lines, calls, strict=True)
    ]  # fmt: skip
    return {"device": asdict(device), "model": explained.seconds, "operations": operations}


def rows(profiled: dict[str, Any]) -> list[tuple[str, ...]]:
    """A table of `profile`, in microseconds."""
    return [
        (f"  {each['operation']}", each["result"], f"{1e6 * each['model']:,.1f}",
         f"{1e6 * each['alone']:,.1f}")
        for each in profiled["operations"]
    ]  # fmt: skip


def _product_rate(backend: Backend, shape: Shape) -> float:
    """FLOP per second of a bare product (m, k) (k, n)."""
    m, n, k = shape
    rng = np.random.default_rng(0)
    a, b = (
        backend.asarray(rng.standard_normal(size, np.float32), dtype=backend.storage)
        for size in ((m, k), (k, n))
    )
    multiply = partial(backend.input_gradient, a, b, backend.empty((m, n), backend.storage))
    return 2 * prod(shape) / _seconds(backend, Call(multiply))


def _gap(backend: Backend) -> float:
    """Seconds between operations that have next to nothing to do."""
    position, J, costs = (backend.full((1,), 0, kind) for kind in ("int64", "float64", "float64"))
    return _seconds(backend, Call(partial(backend.end, position, J, costs)))


def _seconds(backend: Backend, call: Call) -> float:
    """The seconds of a call, in a row of many: the median of several bursts."""
    once = _burst(backend, call, 1)
    repeat = max(1, min(MOST, int(SECONDS / once())))
    run = once if repeat == 1 else _burst(backend, call, repeat)
    return statistics.median(run() for _ in range(BURSTS)) / repeat


def _burst(backend: Backend, call: Call, repeat: int) -> Callable[[], float]:
    """A function that makes the call so many times, and returns the seconds it takes."""
    compiled = backend.compile({"alone": [call] * repeat}, "an operation alone")
    for _ in range(2):  # a GPU compiles and plans in the first run, and records in the second
        compiled(1)

    def run() -> float:
        backend.synchronize()
        begun = time.perf_counter()
        compiled(1)
        backend.synchronize()
        return time.perf_counter() - begun

    return run
