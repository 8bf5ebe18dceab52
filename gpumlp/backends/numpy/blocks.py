"""Elementwise work of the NumPy backend: in blocks that fit into the cache, on all threads.

The blocks depend on the sizes of the arrays alone, so a run repeats bit for bit with any number of
threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpumlp.functions import Regularizer
from gpumlp.io.threads import Threads
from gpumlp.io.types import HostArray as Array

BLOCK_BYTES = 512 << 10  # of one operand: half of a core's L2 cache; `Threads` says why not less


def over_rows(threads: Threads, block: Callable[[slice], Any], a: Array) -> list[Any]:
    """The results of block(rows) for blocks of rows of `a`, in the order of the rows."""
    rows = max(1, BLOCK_BYTES // max(1, a.shape[1] * a.itemsize))
    return threads.map(block, _parts(0, len(a), rows))


def over_flat(threads: Threads, block: Callable[[slice], Any], theta: Array) -> list[Any]:
    """The results of block(entries) for blocks of θ."""
    return threads.map(block, _parts(0, len(theta), BLOCK_BYTES // theta.itemsize))


def over_theta(
    threads: Threads,
    block: Callable[[slice, float], Any],
    theta: Array,
    split: int,
    regularizer: Regularizer,
    part: tuple[int, int] | None = None,
) -> list[Any]:
    """The results of block(entries, strength) for blocks of θ, first of weights, then of biases.

    strength: the factor of λΩ for weights or for biases.
    part: (first, end), to visit only these entries of θ.
    """
    size, (begin, end) = BLOCK_BYTES // theta.itemsize, part or (0, len(theta))
    both = (begin, min(split, end)), (max(split, begin), end)
    regions = zip(both, regularizer.strengths(), strict=True)
    work = [(p, s) for (low, high), s in regions for p in _parts(low, high, size)]
    return threads.map(lambda item: block(*item), work)


def _parts(low: int, high: int, size: int) -> list[slice]:
    """Slices of at most `size` entries that cover [low, high)."""
    return [slice(i, min(i + size, high)) for i in range(low, high, size)]
