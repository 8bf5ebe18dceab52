"""Arrays too large to be read, cast or copied as a whole, piece by piece."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gpumlp.io.mapped import can_let_go, let_go
from gpumlp.io.types import Array

CHUNK_BYTES = 4 << 20


def chunks(a: Array, *others: Array, rows: int | None = None) -> Iterator[slice]:
    """Slices of a's rows, one after the other, of some 4 MiB each and a row at least.

    What files hold of a slice, of `a` and of `others` with as many rows, is let go of after it.

    rows: of a slice; None for some 4 MiB.
    """
    if rows is None:
        rows = max(1, CHUNK_BYTES // max(1, math.prod(a.shape[1:]) * a.dtype.itemsize))
    files = [each for each in (a, *others) if can_let_go(each)]
    for start in range(0, len(a), rows):
        part = slice(start, min(start + rows, len(a)))
        yield part
        for each in files:
            let_go(each[part])


def extent(a: Array, name: str) -> tuple[float, float]:
    """The least and the largest value of `a`, read once, piece by piece.

    Raises unless every value is finite; the message names the first that is not.
    """
    low, high = math.inf, -math.inf
    with np.errstate(invalid="ignore", over="ignore"):
        for rows in chunks(a) if a.size else ():
            part = _readable(a[rows])
            least, largest = float(part.min()), float(part.max())
            if not (math.isfinite(least) and math.isfinite(largest)):
                raise _not_finite(a, name)
            low, high = min(low, least), max(high, largest)
    return low, high


def _not_finite(a: Array, name: str) -> ValueError:
    """The error for an array with values that are not finite."""
    count, first = 0, ""
    for rows in chunks(a):
        part = _readable(a[rows])
        bad = np.argwhere(~np.isfinite(part))
        if len(bad) and not first:
            at = tuple(int(i) for i in bad[0])
            first = f"{name}{[rows.start + at[0], *at[1:]]} is {float(part[at])}"
        count += len(bad)
    return ValueError(
        f"{first} ({count} such values); remove or impute what is missing before training"
    )


def _readable(part: Array) -> Array:
    """`part` in a type that all functions know, with float64's range at most."""
    if part.dtype.name == "bfloat16":
        return part.astype(np.float32)
    return part.astype(np.float64) if part.dtype.itemsize > 8 else part
