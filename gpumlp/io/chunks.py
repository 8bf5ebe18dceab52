"""Arrays too large to be read, cast or copied as a whole: they are read in chunks of rows."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gpumlp.io.mapped import can_unmap, unmap_pages
from gpumlp.io.types import Array

CHUNK_BYTES = 4 << 20


def chunks(a: Array, *others: Array, rows: int | None = None) -> Iterator[slice]:
    """Yield slices that together cover the rows of `a`, in order.

    After each slice, its pages of the files that the arrays map are unmapped.  So reading a file
    larger than memory does not fill the memory; values and files do not change.

    Args:
        a: the array.
        *others: arrays with as many rows, or None.
        rows: rows of a slice; None for one row or more, of about 4 MiB.
    """
    if rows is None:
        rows = max(1, CHUNK_BYTES // max(1, math.prod(a.shape[1:]) * a.dtype.itemsize))
    mapped = [each for each in (a, *others) if can_unmap(each)]
    for start in range(0, len(a), rows):
        part = slice(start, min(start + rows, len(a)))
        yield part
        for each in mapped:
            unmap_pages(each[part])


def extent(a: Array, name: str) -> tuple[float, float]:
    """Return the smallest and the largest value of `a`, which is read once, in chunks.

    Raises:
        ValueError: a value is not finite; the message names the first such value.
    """
    low, high = math.inf, -math.inf
    with np.errstate(invalid="ignore", over="ignore"):
        for rows in chunks(a) if a.size else ():
            part = _comparable(a[rows])
            least, largest = float(part.min()), float(part.max())
            if not (math.isfinite(least) and math.isfinite(largest)):
                raise _not_finite(a, name)
            low, high = min(low, least), max(high, largest)
    return low, high


def _not_finite(a: Array, name: str) -> ValueError:
    """Return the error for an array with values that are not finite."""
    count, first = 0, ""
    for rows in chunks(a):
        part = _comparable(a[rows])
        bad = np.argwhere(~np.isfinite(part))
        if len(bad) and not first:
            at = tuple(int(i) for i in bad[0])
            first = f"{name}{[rows.start + at[0], *at[1:]]} is {float(part[at])}"
        count += len(bad)
    return ValueError(
        f"{first} ({count} such values); remove or impute missing values before training"
    )


def _comparable(part: Array) -> Array:
    """Return `part` in a dtype that NumPy compares, with at most the range of float64."""
    if part.dtype.name == "bfloat16":
        return part.astype(np.float32)
    return part.astype(np.float64) if part.dtype.itemsize > 8 else part
