"""cast.cu, executed on the CPU, against NumPy's casts: the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpumlp.backends.cuda.source import CASTS
from tests.support.harness.catalogue import CATALOGUE, DTYPES
from tests.support.harness.comparing import NUMPY_TYPE, same_in_every_order
from tests.support.harness.compiled import kernel
from tests.support.harness.memory import aligned, aligned_empty, unaligned

i32, i64 = np.int32, np.int64
PAIRS = [(source, dtype) for dtype in DTYPES for source in CASTS if source != dtype]


def values(kind: np.dtype[Any], out: np.dtype[Any], n: int) -> Any:
    """Integers over their whole range; floating-point numbers of all sizes that `out` can hold."""
    rng = np.random.default_rng(n)
    if kind.kind in "iu":
        info = np.iinfo(kind)
        a = rng.integers(info.min, info.max, n, endpoint=True)
        a[: min(n, 2)] = (info.min, info.max)[: min(n, 2)]
        return a.astype(kind)
    if out.name == "float16" or kind.name == "float16":
        low, high = -9, 15  # float16's normal numbers, and a few subnormal ones
    else:
        low, high = -100, 120  # a GPU flushes float's subnormal numbers to 0
    a = rng.normal(size=n) * 2.0 ** rng.uniform(low, high, n)
    # just above the middle between two neighbours in bfloat16, float16 and float32
    middles = 1 + np.array([2.0**-8, 2.0**-11, 2.0**-24]) + 2.0**-45
    a[: min(n, 3)] = middles[: min(n, 3)]
    a[-1] = 0
    return np.clip(a, -60000, 60000).astype(kind) if high == 15 else a.astype(kind)


@pytest.mark.parametrize(("source", "dtype"), PAIRS)
@pytest.mark.parametrize("n", [1, 2, 7, 8, 63, 513, 4096, 5001])
def test_cast(source: str, dtype: str, n: int) -> None:
    kind, out_kind = NUMPY_TYPE.get(source, np.dtype(source)), NUMPY_TYPE[dtype]
    a = values(kind, out_kind, n)
    # the kernel rounds by way of float32; ml_dtypes rounds once, from its version 0.7 on
    by_float = kind == np.float64 and dtype == "bfloat16"
    expected = (a.astype(np.float32) if by_float else a).astype(out_kind).tobytes()

    def call(order: int, packed: int, blocks: int, place: Any = aligned) -> Any:
        out = place(aligned_empty((n,), out_kind))
        kernel("cast", CATALOGUE[dtype][f"cast from {source}"])(
            (blocks, 1), (256, 1), (place(a), out, i64(n), i32(packed)), order=order
        )
        return (out,)

    for packed, blocks in ((1, 1), (1, 3), (0, 2)):
        (out,) = same_in_every_order(lambda order, p=packed, b=blocks: call(order, p, b))
        assert out.tobytes() == expected
    (out,) = call(0, 0, 2, unaligned)
    assert out.tobytes() == expected
