"""Call NumPy's BLAS directly for a product that NumPy does not offer: out ← α a b + β out."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from gpumlp.io.types import HostArray as Array

ROW_MAJOR, NOT_TRANSPOSED, TRANSPOSED = 101, 111, 112  # of CBLAS
# The names of the functions that read and set the number of threads, after the same prefix
THREADS = ("openblas_get_num_threads", "openblas_set_num_threads")
# The name of CBLAS's gemm and its integer type in the libraries that NumPy is built with; {} is s
# or d.  In order: OpenBLAS of NumPy's wheels, other OpenBLAS, Accelerate, plain CBLAS
NAMES = (
    ("scipy_cblas_{}gemm64_", ctypes.c_int64),
    ("cblas_{}gemm64_", ctypes.c_int64),
    ("cblas_{}gemm$NEWLAPACK$ILP64", ctypes.c_int64),
    ("scipy_cblas_{}gemm", ctypes.c_int32),
    ("cblas_{}gemm$NEWLAPACK", ctypes.c_int32),
    ("cblas_{}gemm", ctypes.c_int32),
)


class Blas:
    """The float32 and float64 products of one library.

    Attributes:
        size_bits: of the integers that its functions take.
        get_threads, set_threads: the addresses of OpenBLAS's functions; 0 if it is another library.
    """

    def __init__(self, library: ctypes.CDLL, name: str, size: Any) -> None:
        self.size_bits = 8 * ctypes.sizeof(size)
        self._largest = 2 ** (self.size_bits - 1) - 1
        prefix, suffix = name.split("cblas_{}gemm")
        self.get_threads, self.set_threads = (
            _address(getattr(library, f"{prefix}{each}{suffix}", None)) for each in THREADS
        )
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

    def address(self, dtype: np.dtype[Any]) -> int:
        """The address of CBLAS's gemm for this dtype."""
        return _address(self._gemm[dtype])

    def gemm(self, a: Array, b: Array, out: Array, alpha: float, beta: float) -> None:
        """out ← α a b + β out, in place.  If β is 0, out is not read.

        a (m, k) and b (k, n) are C-contiguous or transposes of C-contiguous arrays; out (m, n) is
        C-contiguous.  All have one dtype, float32 or float64, and no two overlap.

        Raises:
            ValueError: shapes, dtypes or memory layouts are different from these.
        """
        (m, k), n = a.shape, b.shape[1]
        layouts = [_layout(x) for x in (a, b)]
        if (
            not all(layouts) or not out.flags.c_contiguous
            or len(b) != k or out.shape != (m, n) or max(m, n, k) > self._largest
            or {a.dtype, b.dtype, out.dtype} - {out.dtype} or out.dtype not in self._gemm
        ):  # fmt: skip
            described = ", ".join(f"{x.shape} {x.dtype}" for x in (a, b, out))
            raise ValueError(f"BLAS cannot multiply arrays like these: {described}")
        leading = [
            max(1, x.shape[layout == NOT_TRANSPOSED])
            for x, layout in zip((a, b), layouts, strict=True)
        ]
        self._gemm[out.dtype](
            ROW_MAJOR, *layouts, m, n, k, alpha, a.ctypes.data, leading[0],
            b.ctypes.data, leading[1], beta, out.ctypes.data, max(1, n),
        )  # fmt: skip


@cache
def numpy_blas() -> Blas | None:
    """The library that computes NumPy's products, or None if it cannot be called directly."""
    try:
        extension = import_module("numpy._core._multiarray_umath")
        library = ctypes.CDLL(extension.__file__)  # also finds the libraries that it is linked to
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
    """Whether it multiplies correctly: the name alone does not prove the integer type."""
    a, b = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(4, 3)
    for dtype in (np.float32, np.float64):
        out = np.ones((2, 4), dtype)
        blas.gemm(a.astype(dtype), b.astype(dtype).T, out, 2.0, 3.0)
        if not np.array_equal(out, 2 * a @ b.T + 3):
            return False
    return True


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0 if function else 0


def _layout(a: Array) -> int:
    """CBLAS's flag for the memory layout of `a`, or 0 if CBLAS cannot read it."""
    return NOT_TRANSPOSED if a.flags.c_contiguous else TRANSPOSED if a.flags.f_contiguous else 0
