"""The NumPy backend's passes over memory: by blocks that the cache holds, on all threads.

The cuts depend on the sizes alone, so that a run repeats bit for bit on any thread count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpumlp.functions import Regularizer
from gpumlp.io.threads import Threads
from gpumlp.io.types import HostArray as Array

BLOCK_BYTES = 512 << 10  # of one operand: half of a core's L2 cache; see `Threads` for why not less


def over_rows(threads: Threads, block: Callable[[slice], Any], a: Array) -> list[Any]:
    """block(rows) for blocks of a's rows, on all threads; the results in the rows' order."""
    rows = max(1, BLOCK_BYTES // max(1, a.shape[1] * a.itemsize))
    return threads.map(block, _parts(0, len(a), rows))


def over_flat(threads: Threads, block: Callable[[slice], Any], theta: Array) -> list[Any]:
    """block(entries) for blocks of θ."""
    return threads.map(block, _parts(0, len(theta), BLOCK_BYTES // theta.itemsize))


def over_theta(
    threads: Threads,
    block: Callable[[slice, float], Any],
    theta: Array,
    split: int,
    regularizer: Regularizer,
    part: tuple[int, int] | None = None,
) -> list[Any]:
    """block(entries, strength of λΩ there) for blocks of θ, first weights, then biases."""
    size, (begin, end) = BLOCK_BYTES // theta.itemsize, part or (0, len(theta))
    both = (begin, min(split, end)), (max(split, begin), end)
    regions = zip(both, regularizer.strengths(), strict=True)
    work = [(p, s) for (low, high), s in regions for p in _parts(low, high, size)]
    return threads.map(lambda item: block(*item), work)


def _parts(low: int, high: int, size: int) -> list[slice]:
    """[low, high) cut into parts of at most `size`."""
    return [slice(i, min(i + size, high)) for i in range(low, high, size)]
