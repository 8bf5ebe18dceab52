"""Compare the results of a kernel with the entries' NumPy expressions in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from tests.support.harness.compiled import SANITIZE

Array = npt.NDArray[Any]

# of blocks, warps and lanes: forward, backward, a shuffle.  Sanitizers need only one: they check
# addresses and barriers, which no order changes.
ORDERS = (2,) if SANITIZE else (0, 1, 2)
NUMPY_TYPE = {
    "float64": np.dtype("float64"), "float32": np.dtype("float32"),
    "float16": np.dtype("float16"), "bfloat16": np.dtype(ml_dtypes.bfloat16),
}  # fmt: skip
# A few units in the last place of the storage type.  The elementary functions of a GPU and of the C
# library differ by as much.
TOLERANCE = {"float64": 1e-12, "float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}
# The smallest number above 0, which is the distance of a type's numbers near 0.
FINEST = {d: float(ml_dtypes.finfo(t).smallest_subnormal) for d, t in NUMPY_TYPE.items()}
PACK = {"float64": 2, "float32": 4, "float16": 8, "bfloat16": 8}  # in 16 bytes


def real_of(dtype: str) -> type[np.floating[Any]]:
    """The type of arithmetic that kernels use for a storage type."""
    return np.float64 if dtype == "float64" else np.float32


def strip(dtype: str) -> tuple[int, int]:
    """The block of whole_columns.cu: threads of 16 bytes of θ's type, for 32 bytes of a row."""
    lanes = 32 // (16 // np.dtype(real_of(dtype)).itemsize * NUMPY_TYPE[dtype].itemsize)
    return lanes, 256 // lanes


def assert_close(got: Array, want: Array, dtype: str, magnitude: npt.ArrayLike = 1.0) -> None:
    """Check |got − want| ≤ tolerance · (|want| + magnitude) + finest, and NaN where `want` is NaN.

    magnitude: the size of the terms of `want`, which may cancel: 1 for functions of numbers of that
        size, |gh| for gh ⊙ f', Σ|terms| for sums.
    """
    got, want = np.asarray(got).astype(np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    with np.errstate(invalid="ignore"):
        near = TOLERANCE[dtype] * (np.abs(want) + magnitude) + FINEST[dtype]
        far = np.abs(got - want) > near
    bad = far | (np.isnan(got) != np.isnan(want)) | (np.isinf(want) & (got != want))
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise AssertionError(f"{bad.sum()} of {bad.size} differ, [{at}]: {got[at]}, not {want[at]}")


def same_in_every_order(call: Callable[[int], Sequence[Array]]) -> Sequence[Array]:
    """The results of call(order).  They must have the same bits in every order."""
    first, *others = [call(order) for order in ORDERS]
    for other in others:
        for a, b in zip(first, other, strict=True):
            assert a.tobytes() == b.tobytes()
    return first
