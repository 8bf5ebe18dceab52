"""The operations of `gpumlp.backends.columns` on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from gpumlp.backends.columns import Columns
from gpumlp.backends.cuda.kernels import SPLITS, THREADS, Geometry, Kernels, OnDevice, i32, i64
from gpumlp.functions.stages import ColumnStage
from gpumlp.io.types import Array

WHOLE, STRIP = 1024, 32  # whole_columns.cu: the most rows, and the bytes of each in a block


class CudaColumns(OnDevice, Columns):
    """What `CudaBackend` inherits."""

    def column_mean(
        self, stage: ColumnStage, i: int, x: Array, s: Array | None, of: int, mean: Array
    ) -> None:
        kernels, (rows, cols) = self._kernels, x.shape
        before = mean if s is None else s  # of the first mean, the kernel reads none
        pack = _pack(kernels, before, x)
        arguments = (
            x, before, mean, kernels.partial, kernels.arrived, i64(rows), i64(cols),
            i64(before.shape[1]), kernels.dtype.type(1 / of), i32(i), i32(pack > 1),
        )  # fmt: skip
        geometry = _summing(kernels, rows, cols, pack, 1)
        kernels.launch("column_mean", stage.cuda_file, geometry, arguments, stage)

    def column_moments(
        self, stage: ColumnStage, x: Array, moments: Array, running: Array | None
    ) -> None:
        kernels, (rows, cols) = self._kernels, x.shape
        pack = kernels.pack_of(cols, x)
        arguments = (
            x, moments, moments if running is None else running, kernels.partial, kernels.arrived,
            i64(rows), i64(cols), i64(moments.shape[1]), i32(running is not None), i32(pack > 1),
        )  # fmt: skip
        geometry = _summing(kernels, rows, cols, pack, 3)
        kernels.launch("column_moments", stage.cuda_file, geometry, arguments, stage)

    def columns(self, stage: ColumnStage, x: Array, phi: Array, s: Array, y: Array) -> None:
        kernels, (rows, cols) = self._kernels, x.shape
        pack = _pack(kernels, s, x, phi, y)
        arguments = x, phi, s, y, i64(rows), i64(cols), i64(s.shape[1]), i32(pack > 1)
        geometry = kernels.tile(rows, cols, pack)
        kernels.launch("columns", stage.cuda_file, geometry, arguments, stage)

    def running_mean(self, stage: ColumnStage, s: Array, of: int, running: Array) -> None:
        kernels, cols = self._kernels, running.shape[1]
        arguments = s, running, i64(cols), i64(s.shape[1]), i64(of)
        kernels.launch("running_mean", stage.cuda_file, kernels.flat(cols, 1), arguments, stage)

    def column_slopes(
        self, stage: ColumnStage, x: Array, phi: Array, gy: Array, s: Array, of: int,
        t: Array | None, dphi: Array,
    ) -> None:  # fmt: skip
        kernels, (rows, cols) = self._kernels, x.shape
        pack = _pack(kernels, s, x, phi, gy)
        arguments = (
            x, phi, gy, s, s if t is None else t, dphi, kernels.partial, kernels.arrived, i64(rows),
            i64(cols), i64(s.shape[1]), kernels.dtype.type(1 / of), i32(t is not None),
            i32(pack > 1),
        )  # fmt: skip
        geometry = _summing(kernels, rows, cols, pack, stage.slopes + len(stage.initial))
        kernels.launch("column_slopes", stage.cuda_file, geometry, arguments, stage)

    def columns_gradient(
        self, stage: ColumnStage, x: Array, phi: Array, gy: Array, s: Array, t: Array | None,
        skip: Array | None, gx: Array,
    ) -> None:  # fmt: skip
        kernels, (rows, cols) = self._kernels, x.shape
        other = gy if skip is None else skip  # without a skip, the kernel reads none
        pack = _pack(kernels, s, x, phi, gy, other, gx)
        arguments = (
            x, phi, gy, s, s if t is None else t, other, gx, i64(rows), i64(cols), i64(s.shape[1]),
            i32(t is not None), i32(skip is not None), i32(pack > 1),
        )  # fmt: skip
        geometry = kernels.tile(rows, cols, pack)
        kernels.launch("columns_gradient", stage.cuda_file, geometry, arguments, stage)

    def _whole_columns(
        self, moments: tuple[Any, ...], columns: tuple[Any, ...]
    ) -> Callable[[], None] | None:
        """What does `column_moments` and then `columns`, with these arguments, in one launch.

        None if it needs two.
        """
        stage, x, means, running = moments
        _, _, phi, _, y = columns
        geometry = _strips(self._kernels, means, x, phi, y)
        if x is not columns[1] or geometry is None:
            return None
        (rows, cols), averaged = x.shape, i32(running is not None)
        arguments = x, phi, means, means if running is None else running, y
        sizes = i64(rows), i64(cols), i64(means.shape[1]), averaged
        work = "whole_columns", "whole_columns.cu", geometry, (*arguments, *sizes), stage
        return partial(self._kernels.launch, *work)

    def _whole_columns_gradient(
        self, slopes: tuple[Any, ...], gradient: tuple[Any, ...]
    ) -> Callable[[], None] | None:
        """The same for `column_slopes` and `columns_gradient`; the means t are not written."""
        stage, x, phi, gy, s, of, t, dphi = slopes
        skip, gx = gradient[-2:]
        other = gy if skip is None else skip  # without a skip, the kernel reads none
        geometry = _strips(self._kernels, s, x, phi, gy, other, gx)
        same = x is gradient[1] and gy is gradient[3] and t is gradient[5]
        if not (same and stage.moments and of == len(x)) or t is None or geometry is None:
            return None
        sizes = *map(i64, (*x.shape, s.shape[1])), i32(skip is not None)
        arguments = x, phi, gy, s, dphi, other, gx, *sizes
        work = "whole_columns_gradient", "whole_columns.cu", geometry, arguments, stage
        return partial(self._kernels.launch, *work)


def _strips(kernels: Kernels, s: Array, *arrays: Array) -> Geometry | None:
    """The geometry of whole_columns.cu for x, the first array; None if it cannot take them."""
    (rows, cols), wide = arrays[0].shape, kernels.wide
    if rows > WHOLE or _pack(kernels, s, *arrays) == 1:
        return None
    lanes = STRIP // (wide * arrays[0].dtype.itemsize)
    return (-(-cols // (lanes * wide)), 1), (lanes, THREADS // lanes)


def _pack(kernels: Kernels, s: Array, *arrays: Array) -> int:
    """The entries in one access to rows of the arrays, whose columns have the means s."""
    return kernels.pack_of(arrays[0].shape[1], *arrays) if kernels.aligned(s) else 1


def _summing(kernels: Kernels, rows: int, cols: int, pack: int, sums: int) -> Geometry:
    """The geometry of a kernel that computes so many sums of each column: see column_sums."""
    (across, high, _), block = kernels.tile(rows, cols, pack, SPLITS)
    high = min(high, len(kernels.partial) // (sums * cols))
    counts = sums * across * (high // 16 + 2)
    return (across, high if counts <= len(kernels.arrived) else 1), block
