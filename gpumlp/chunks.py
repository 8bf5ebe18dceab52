"""Arrays too large to be read, cast or copied as a whole, piece by piece."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

CHUNK_BYTES = 4 << 20


def chunks(a: Any) -> Iterator[slice]:
    """Slices of a's rows, one after the other, of some 4 MiB each and a row at least."""
    rows = max(1, CHUNK_BYTES // max(1, math.prod(a.shape[1:]) * a.dtype.itemsize))
    for start in range(0, len(a), rows):
        yield slice(start, min(start + rows, len(a)))
