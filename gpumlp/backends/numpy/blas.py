"""NumPy's own BLAS, called for a product that NumPy does not offer: out ← α a b + β out."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from gpumlp.io.types import HostArray as Array

ROW_MAJOR, AS_IT_IS, TRANSPOSED = 101, 111, 112  # of CBLAS
# What CBLAS's gemm is called in the libraries that NumPy is built with, {} being s or d, and the
# type of its sizes: OpenBLAS of NumPy's wheels, of others, Accelerate, and plain CBLAS
NAMES = (
    ("scipy_cblas_{}gemm64_", ctypes.c_int64),
    ("cblas_{}gemm64_", ctypes.c_int64),
    ("cblas_{}gemm$NEWLAPACK$ILP64", ctypes.c_int64),
    ("scipy_cblas_{}gemm", ctypes.c_int32),
    ("cblas_{}gemm$NEWLAPACK", ctypes.c_int32),
    ("cblas_{}gemm", ctypes.c_int32),
)


class Blas:
    """The products of one library, float32 and float64."""

    def __init__(self, library: ctypes.CDLL, name: str, size: Any) -> None:
        self._largest = 2 ** (8 * ctypes.sizeof(size) - 1) - 1
        pointer, flag = ctypes.c_void_p, ctypes.c_int
        self._gemm: dict[np.dtype[Any], Callable[..., None]] = {}
        for letter, real, dtype in (
            ("s", ctypes.c_float, np.float32),
            ("d", ctypes.c_double, np.float64),
        ):
            gemm = library[name.format(letter)]
            gemm.restype = None
            gemm.argtypes = [
                flag, flag, flag, size, size, size,
                real, pointer, size, pointer, size, real, pointer, size,
            ]  # fmt: skip
            self._gemm[np.dtype(dtype)] = gemm

    def gemm(self, a: Array, b: Array, out: Array, alpha: float, beta: float) -> None:
        """out ← α a b + β out, in place; where β is 0, out is not read.

        a (m, k), b (k, n), C-contiguous or the transpose of such; out (m, n), C-contiguous; all of
        one dtype, float32 or float64, and overlapping nowhere.

        Raises:
            ValueError: they are not.
        """
        (m, k), n = a.shape, b.shape[1]
        ways = [_layout(x) for x in (a, b)]
        if (
            not all(ways) or not out.flags.c_contiguous
            or len(b) != k or out.shape != (m, n) or max(m, n, k) > self._largest
            or {a.dtype, b.dtype, out.dtype} - {out.dtype} or out.dtype not in self._gemm
        ):  # fmt: skip
            described = ", ".join(f"{x.shape} {x.dtype}" for x in (a, b, out))
            raise ValueError(f"no product of arrays like these: {described}")
        leading = [max(1, x.shape[way == AS_IT_IS]) for x, way in zip((a, b), ways, strict=True)]
        self._gemm[out.dtype](
            ROW_MAJOR, *ways, m, n, k, alpha, a.ctypes.data, leading[0],
            b.ctypes.data, leading[1], beta, out.ctypes.data, max(1, n),
        )  # fmt: skip


@cache
def numpy_blas() -> Blas | None:
    """The library that NumPy's products come from; None where it cannot be called directly."""
    try:
        extension = import_module("numpy._core._multiarray_umath")
        library = ctypes.CDLL(extension.__file__)  # and so what it was linked to
    except (ImportError, OSError):
        return None
    for name, size in NAMES:
        try:
            blas = Blas(library, name, size)
        except AttributeError:
            continue
        return blas if _works(blas) else None
    return None


def _works(blas: Blas) -> bool:
    """Whether it multiplies as it should: a name alone does not tell the sizes' type for sure."""
    a, b = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(4, 3)
    for dtype in (np.float32, np.float64):
        out = np.ones((2, 4), dtype)
        blas.gemm(a.astype(dtype), b.astype(dtype).T, out, 2.0, 3.0)
        if not np.array_equal(out, 2 * a @ b.T + 3):
            return False
    return True


def _layout(a: Array) -> int:
    """How CBLAS can read it: as it is, transposed, or not at all (0)."""
    return AS_IT_IS if a.flags.c_contiguous else TRANSPOSED if a.flags.f_contiguous else 0
