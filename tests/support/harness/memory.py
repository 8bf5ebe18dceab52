"""Memory as a device allocates it: aligned, exactly as long as requested, and full of NaN."""

from __future__ import annotations

import ctypes
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

ALIGNMENT = 256  # bytes

libc = ctypes.CDLL(None)
libc.free.argtypes = [ctypes.c_void_p]


class _Memory:
    """`size` bytes of 0xff, freed with the last array that uses them.

    They come from the C library, whose functions AddressSanitizer replaces.  So AddressSanitizer
    sees an access to the first byte past the end.  NumPy's own allocator has spare bytes there.
    """

    def __init__(self, size: int) -> None:
        self.address = ctypes.c_void_p()
        if libc.posix_memalign(ctypes.byref(self.address), ALIGNMENT, ctypes.c_size_t(size)):
            raise MemoryError(f"cannot allocate {size} bytes")
        ctypes.memset(self.address, 0xFF, size)
        self.__array_interface__ = {
            "data": (self.address.value, False), "shape": (size,), "typestr": "|u1", "version": 3,
        }  # fmt: skip

    def __del__(self) -> None:
        libc.free(self.address)


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array of 0xff bytes, which are NaN in every floating type, 256-byte aligned."""
    dtype = np.dtype(dtype)
    size = prod(shape) * dtype.itemsize
    return np.asarray(_Memory(max(size, 1)))[:size].view(dtype).reshape(shape)


def aligned(a: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> npt.NDArray[Any]:
    """A copy of `a` in such memory, cast to `dtype` if it is given."""
    a = np.asarray(a)
    out = aligned_empty(a.shape, a.dtype if dtype is None else dtype)
    np.copyto(out, a, casting="unsafe")
    return out


def unaligned(a: npt.ArrayLike) -> npt.NDArray[Any]:
    """A copy of `a` in such memory, one element past an aligned address."""
    a = np.asarray(a)
    out = aligned_empty((a.size + 1,), a.dtype)[1:].reshape(a.shape)
    np.copyto(out, a)
    return out
