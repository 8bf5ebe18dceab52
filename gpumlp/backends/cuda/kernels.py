"""The kernels' launches behind the CUDA backend's operations: grids, accesses, scratch, compiled sources."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.backends.cuda import launch
from gpumlp.backends.cuda.protocol import Device, DeviceArray, Kernel
from gpumlp.backends.cuda.source import CASTS, KernelSource
from gpumlp.functions import Activation, Loss, Regularizer
from gpumlp.functions.activations import identity
from gpumlp.functions.entry import Entry

i32, i64 = np.int32, np.int64
STORAGE_TYPES = ("float64", "float32", "bfloat16", "float16")


class Kernels:
    """Launches on one device, for θ of one type and activations of one storage type.

    Attributes:
        pack: entries of the storage type in one access.
        partial: scratch, for partial sums of the type of arithmetic, which is θ's.
    """

    def __init__(self, device: Device, dtype: np.dtype[Any], storage: np.dtype[Any]) -> None:
        self._device, self._dtype, self._storage = device, dtype, storage
        self.pack = launch.PACK_BYTES // storage.itemsize
        self._compiled: dict[tuple[Any, ...], Kernel] = {}
        self.partial = device.empty((self.scratch_size(0),), dtype)

    def casts(self, source: DeviceArray, out: DeviceArray) -> bool:
        """Whether `cast` has a kernel for these."""
        return (
            source.dtype != out.dtype
            and {source.dtype.name, out.dtype.name} <= set(CASTS)
            and out.dtype.name in STORAGE_TYPES
            and bool(source.flags.c_contiguous and out.flags.c_contiguous)
            and out.size > 0
        )

    def cast(self, source: DeviceArray, out: DeviceArray) -> None:
        """out ← source, contiguous both."""
        if source.dtype == out.dtype:
            self._device.copy(source, out)
            return
        n, pack = out.size, launch.PACK_BYTES // max(source.dtype.itemsize, out.dtype.itemsize)
        kernel = self.kernel("cast", "cast.cu", dtype=out.dtype.name, source=source.dtype.name)
        grid, block = launch.flat(n, pack, self._device.multiprocessors)
        kernel(grid, block, (source, out, i64(n), i32(self.aligned(source, out))))

    def bias_activation(
        self, b: DeviceArray, f: Activation, z: DeviceArray, h: DeviceArray
    ) -> None:
        """z ← z + b, h ← f(z)."""
        rows, cols = z.shape
        pack = self.pack_of(cols, z, b, h)
        if f.elementwise:
            grid, block = launch.tile(rows, cols, pack, self._device.multiprocessors)
            kernel = self.kernel("bias_activation", "activation.cu", f)
        else:
            grid, block = launch.rows(rows, self._device.multiprocessors)
            kernel = self.kernel("forward", f.cuda_file, f)
        kernel(grid, block, (z, b, h, i64(rows), i64(cols), i32(pack > 1)))

    def activation(self, f: Activation, z: DeviceArray, h: DeviceArray) -> None:
        """h ← f(z)."""
        rows, cols = z.shape
        pack = self.pack_of(cols, z, h)
        grid, block = launch.tile(rows, cols, pack, self._device.multiprocessors)
        kernel = self.kernel("activation", "activation.cu", f)
        kernel(grid, block, (z, h, i64(rows), i64(cols), i32(pack > 1)))

    def loss(
        self, name: str, loss: Loss, y_hat: DeviceArray, y: DeviceArray, weights: DeviceArray,
        gh: tuple[DeviceArray, ...], J: DeviceArray,
    ) -> None:  # fmt: skip
        """The loss, or (gh = scaling, gh) the loss and its gradient: one launch, then J's sum."""
        rows, cols = y_hat.shape
        labels = y.ndim == 1
        pack = self.pack_of(cols, y_hat, *gh[1:], *(() if labels else (y,)))
        arguments = (y_hat, y, weights, *gh, self.partial, i64(rows), i64(cols), i32(pack > 1))
        if loss.rowwise:
            grid, block = launch.rows(rows, self._device.multiprocessors)
        else:
            grid, block = launch.flat(rows * cols, pack, self._device.multiprocessors)
            arguments += (self._dtype.type(loss.output_scale(cols)),)
        self.kernel(name, loss.cuda_file, loss, labels=labels)(grid, block, arguments)
        self.total(grid[0] * grid[1], J)

    def through_activation(
        self, f: Activation, z: DeviceArray, h: DeviceArray, gh: DeviceArray, gz: DeviceArray,
        db: DeviceArray,
    ) -> None:  # fmt: skip
        """gz ← gh ⊙ f'(z) or Jᵀ gh, db ← its column sums."""
        z = z if "z" in f.reads else h  # which is not read, but may be bits
        rows, cols = gz.shape
        pack = self.pack_of(cols, gh, z, h, gz)
        shape = i64(rows), i64(cols), i32(pack > 1)
        if not f.elementwise:
            grid, block = launch.rows(rows, self._device.multiprocessors)
            self.kernel("vjp", f.cuda_file, f)(grid, block, (gh, h, gz, *shape))
            f, gh = identity, gz  # for the column sums
        grid, block = launch.tile(rows, cols, pack, self._device.multiprocessors)
        splits = grid[1]
        alone = splits == 1 and db.dtype == self._dtype  # then the block's sums are db itself
        partial = db if alone else self.scratch(splits * cols)
        kernel = self.kernel("activation_gradient", "activation.cu", f)
        kernel(grid, block, (gh, z, h, gz, partial, *shape))
        if not alone:
            grid, block = launch.flat(cols, 1, self._device.multiprocessors)
            total = self.kernel("column_total", "reduce.cu")
            total(grid, block, (partial, db, i64(splits), i64(cols)))

    def normalize(self, V: DeviceArray, X: DeviceArray, least: float) -> None:
        """X ← V / max(‖V‖, least)."""
        (blocks, _), block = launch.flat(V.size, 1, self._device.multiprocessors)
        n = i64(V.size)
        self.kernel("squares", "orthogonal.cu")((blocks, 1), block, (V, self.partial, n))
        self.kernel("normalize", "orthogonal.cu")(
            (blocks, 1), block, (V, self.partial, X, n, i64(blocks), np.float64(least))
        )

    def quintic(
        self, A: DeviceArray, P: DeviceArray, scale: float, factors: tuple[float, float, float]
    ) -> None:
        """A ← scale (a I + b A + c P)."""
        grid, block = launch.flat(A.size, 1, self._device.multiprocessors)
        numbers = (self._dtype.type(x) for x in (scale, *factors))
        self.kernel("quintic", "orthogonal.cu")(grid, block, (A, P, i64(len(A)), *numbers))

    def total(self, blocks: int, J: DeviceArray) -> None:
        """J ← J + Σ of the blocks' partial sums."""
        kernel = self.kernel("total", "reduce.cu")
        kernel(*launch.ONE_BLOCK, (self.partial, J, i64(blocks)))

    def regions(self, regularizer: Regularizer, theta: DeviceArray, split: int) -> tuple[Any, ...]:
        """What tells a kernel over θ the regions of weights and biases."""
        _, bias_strength = regularizer.strengths()
        return i64(len(theta)), i64(split), self._dtype.type(bias_strength)

    def pack_of(self, cols: int, *arrays: DeviceArray) -> int:
        """Entries in one access to these arrays' rows: 16 bytes' where alignment allows, else 1."""
        pack = launch.PACK_BYTES // arrays[0].dtype.itemsize
        return pack if cols % pack == 0 and self.aligned(*arrays) else 1

    def aligned(self, *arrays: DeviceArray) -> bool:
        """Whether all begin where an access of 16 bytes may."""
        return all(self._device.address(a) % launch.PACK_BYTES == 0 for a in arrays)

    def scratch_size(self, cols: int) -> int:
        """The most partial sums of any launch on matrices up to `cols` wide."""
        return launch.scratch_size(cols, self.pack, self._device.multiprocessors)

    def scratch(self, size: int) -> DeviceArray:
        """Scratch memory for partial sums; grows for a matrix wider than any before, in its first step."""
        if len(self.partial) < size:
            self.partial = self._device.empty((size,), self._dtype)
        return self.partial

    def kernel(
        self, name: str, file: str, *entries: Entry, dtype: str = "", labels: bool = False,
        slots: str = "", gradient: str = "", source: str = "", grouped: bool = False,
    ) -> Kernel:  # fmt: skip
        """A kernel compiled for the entries' device functions, from the cache after the first."""
        key = (name, file, entries, dtype, labels, slots, gradient, source, grouped)
        if key not in self._compiled:
            functor = "".join(entry.cuda() for entry in entries)
            text = KernelSource(
                file, dtype or self._storage.name, functor, labels, slots, gradient, source, grouped
            )
            self._compiled[key] = self._device.kernel(name, text)
        return self._compiled[key]
