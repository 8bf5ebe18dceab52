"""A stand-in for cuda.tile: NumPy arrays as tiles, so that a tile kernel's text runs on the CPU.

What a kernel reads beyond an array's end is NaN, unless it asks for zeros.  What it writes there is
dropped, as on a GPU.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np

from gpumlp.backends.cuda.tiles import ALIGNED, TileSource, loaded
from tests.support.harness.host_module import KernelError

Tile = np.ndarray[Any, Any]


class PaddingMode(enum.Enum):
    """What is read beyond an array's end."""

    UNDETERMINED = np.nan
    ZERO = 0.0


def _inside(array: Tile, index: tuple[int, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The part of the array in a tile.  cuTile demands that there is one."""
    places = list(zip(index, shape, array.shape, strict=True))
    if any(not 0 <= i * n < size for i, n, size in places):
        raise KernelError(f"tile {index} of {shape} is outside an array of {array.shape}")
    return tuple(slice(i * n, min((i + 1) * n, size)) for i, n, size in places)


def _load(
    array: Tile, index: tuple[int, ...], shape: tuple[int, ...],
    padding_mode: PaddingMode = PaddingMode.UNDETERMINED,
) -> Tile:  # fmt: skip
    tile = np.full(shape, padding_mode.value, array.dtype)
    part = array[_inside(array, index, shape)]
    tile[tuple(map(slice, part.shape))] = part
    return tile


def _store(array: Tile, index: tuple[int, ...], tile: Tile) -> None:
    if tile.dtype != array.dtype:
        raise TypeError(f"a tile of {tile.dtype} is stored in an array of {array.dtype}")
    place = _inside(array, index, tile.shape)
    array[place] = tile[tuple(slice(each.stop - each.start) for each in place)]


def _extract(tile: Tile, index: tuple[int, ...], shape: tuple[int, ...]) -> Tile:
    return tile[tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, shape, strict=True))]


def _where(condition: Tile, x: Any, y: Any) -> Tile:
    dtype = next(each.dtype for each in (x, y) if hasattr(each, "dtype"))
    return np.where(condition, x, y).astype(dtype)


def module(block: int) -> Any:
    """What a kernel sees as cuda.tile in one block of its grid."""
    return SimpleNamespace(
        kernel=lambda **hints: lambda function: function,
        bid=lambda axis: block,
        num_tiles=lambda a, axis, shape: -(-a.shape[axis] // shape[axis]),
        full=lambda shape, value, dtype: np.full(shape, value, dtype),
        load=_load, store=_store, extract=_extract, where=_where,
        gather=lambda a, i: a[i],
        astype=lambda a, dtype: a.astype(dtype),
        transpose=np.transpose, reshape=np.reshape, static_iter=iter,
        mma=lambda a, b, c: c + a.astype(np.float32) @ b.astype(np.float32),
        sqrt=lambda x, rounding_mode: np.sqrt(x),
        truediv=lambda x, y, rounding_mode: x / y,
        PaddingMode=PaddingMode, RoundingMode=SimpleNamespace(APPROX=None),
        float32=np.dtype(np.float32), bfloat16=np.dtype(ml_dtypes.bfloat16),
    )  # fmt: skip


def kernel(source: TileSource) -> Callable[[int, tuple[Any, ...]], None]:
    """What launches the kernel of a source on NumPy arrays and scalars."""

    def launch(blocks: int, arguments: tuple[Any, ...]) -> None:
        arrays = [each for each in arguments if np.ndim(each)]
        numbers = tuple(each for each in arguments if not np.ndim(each))
        for a in arrays:  # the constraints of `tiles.compiled`
            *outer, last = (stride // a.itemsize for stride in a.strides)
            if a.ctypes.data % 16 or last != 1 or any(stride % ALIGNED for stride in outer):
                raise KernelError(f"an array of {a.shape} at {a.ctypes.data}, strides {a.strides}")
        for block in reversed(range(blocks)):
            loaded(source, module(block))(*arrays, numbers)

    return launch
