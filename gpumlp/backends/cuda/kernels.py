"""Launches of the CUDA kernels: grids, 16-byte accesses, scratch memory and compiled sources."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from gpumlp.backends.cuda import launch
from gpumlp.backends.cuda.protocol import Device, Kernel
from gpumlp.backends.cuda.source import CASTS, KernelSource
from gpumlp.functions import Activation, Loss, Regularizer
from gpumlp.functions.activations import identity
from gpumlp.functions.entry import Entry
from gpumlp.io.types import Array

i32, i64 = np.int32, np.int64
STORAGE_TYPES = ("float64", "float32", "bfloat16", "float16")


class Kernels:
    """Launches kernels on one device, for one type of θ and one storage type of activations.

    Attributes:
        dtype, storage: the two types.
        pack: the number of entries of the storage type in one memory access.
        tile, rows, flat: the functions of `launch` for this device; `flat` has `pack` by default.
        partial: scratch memory for partial sums, in θ's type.
    """

    def __init__(self, device: Device, dtype: np.dtype[Any], storage: np.dtype[Any]) -> None:
        self._device, self.dtype, self.storage = device, dtype, storage
        self.pack = launch.PACK_BYTES // storage.itemsize
        size = device.multiprocessors
        self.tile = partial(launch.tile, multiprocessors=size)
        self.rows = partial(launch.rows, multiprocessors=size)
        self.flat = partial(launch.flat, pack=self.pack, multiprocessors=size)
        self._compiled: dict[tuple[Any, ...], Kernel] = {}
        self.partial = device.empty((self.scratch_size(0),), dtype)

    def can_cast(self, source: Array, out: Array) -> bool:
        """Whether `cast` has a kernel for these arrays."""
        return (
            source.dtype != out.dtype
            and {source.dtype.name, out.dtype.name} <= set(CASTS)
            and out.dtype.name in STORAGE_TYPES
            and bool(source.flags.c_contiguous and out.flags.c_contiguous)
            and out.size > 0
        )

    def cast(self, source: Array, out: Array) -> None:
        """out ← source; both are contiguous."""
        if source.dtype == out.dtype:
            self._device.copy(source, out)
            return
        n, pack = out.size, launch.PACK_BYTES // max(source.dtype.itemsize, out.dtype.itemsize)
        kernel = self.kernel("cast", "cast.cu", dtype=out.dtype.name, source=source.dtype.name)
        kernel(*self.flat(n, pack=pack), (source, out, i64(n), i32(self.aligned(source, out))))

    def gather(self, source: Array, index: Array, out: Array) -> None:
        """out ← source[index]."""
        rows, cols = len(out), 1 if out.ndim == 1 else out.shape[1]
        pack = self.pack_of(cols, source, out)
        kernel = self.kernel("gather", "gather.cu", dtype=out.dtype.name)
        arguments = (source, index, out, i64(rows), i64(cols), i32(pack > 1))
        kernel(*self.tile(rows, cols, pack), arguments)

    def bias_activation(self, b: Array, f: Activation, z: Array, h: Array) -> None:
        """z ← z + b, h ← f(z)."""
        rows, cols = z.shape
        pack = self.pack_of(cols, z, b, h)
        if f.elementwise:
            kernel = self.kernel("bias_activation", "activation.cu", f)
            geometry = self.tile(rows, cols, pack)
        else:
            kernel, geometry = self.kernel("forward", f.cuda_file, f), self.rows(rows)
        kernel(*geometry, (z, b, h, i64(rows), i64(cols), i32(pack > 1)))

    def activation(self, f: Activation, z: Array, h: Array) -> None:
        """h ← f(z)."""
        rows, cols = z.shape
        pack = self.pack_of(cols, z, h)
        kernel = self.kernel("activation", "activation.cu", f)
        kernel(*self.tile(rows, cols, pack), (z, h, i64(rows), i64(cols), i32(pack > 1)))

    def loss(
        self, name: str, loss: Loss, y_hat: Array, y: Array, weights: Array, gh: tuple[Array, ...],
        J: Array,
    ) -> None:  # fmt: skip
        """Add the loss to J.  With gh = (scaling, gh), the same launch writes the gradient."""
        rows, cols = y_hat.shape
        labels = y.ndim == 1
        pack = self.pack_of(cols, y_hat, *gh[1:], *(() if labels else (y,)))
        arguments = (y_hat, y, weights, *gh, self.partial, i64(rows), i64(cols), i32(pack > 1))
        if loss.rowwise:
            grid, block = self.rows(rows)
        else:
            grid, block = self.flat(rows * cols, pack=pack)
            arguments += (self.dtype.type(loss.output_scale(cols)),)
        self.kernel(name, loss.cuda_file, loss, labels=labels)(grid, block, arguments)
        self.total(grid[0] * grid[1], J)

    def activation_gradient(
        self, f: Activation, z: Array, h: Array, gh: Array, gz: Array, db: Array
    ) -> None:
        """gz ← gh ⊙ f'(z) or Jᵀ gh, db ← column sums of gz."""
        z = z if "z" in f.reads else h  # the kernel does not read z here, and z may be a bit mask
        rows, cols = gz.shape
        pack = self.pack_of(cols, gh, z, h, gz)
        shape = i64(rows), i64(cols), i32(pack > 1)
        if not f.elementwise:
            self.kernel("vjp", f.cuda_file, f)(*self.rows(rows), (gh, h, gz, *shape))
            f, gh = identity, gz  # only the column sums are still to be computed
        grid, block = self.tile(rows, cols, pack)
        splits = grid[1]
        complete = splits == 1 and db.dtype == self.dtype  # the sums of the blocks are db itself
        sums = db if complete else self.scratch(splits * cols)
        kernel = self.kernel("activation_gradient", "activation.cu", f)
        kernel(grid, block, (gh, z, h, gz, sums, *shape))
        if not complete:
            total = self.kernel("column_total", "reduce.cu")
            total(*self.flat(cols, pack=1), (sums, db, i64(splits), i64(cols)))

    def total(self, blocks: int, J: Array) -> None:
        """J ← J + Σ of the partial sums of the blocks."""
        kernel = self.kernel("total", "reduce.cu")
        kernel(*launch.ONE_BLOCK, (self.partial, J, i64(blocks)))

    # ---- geometry, memory and sources ---------------------------------------------------------

    def regions(self, regularizer: Regularizer, theta: Array, split: int) -> tuple[Any, ...]:
        """The arguments that describe the weights and biases in θ to a kernel."""
        _, bias_strength = regularizer.strengths()
        return i64(len(theta)), i64(split), self.dtype.type(bias_strength)

    def pack_of(self, cols: int, *arrays: Array) -> int:
        """The entries in one access to rows of these arrays: 16 bytes if aligned, else 1 entry."""
        pack = launch.PACK_BYTES // arrays[0].dtype.itemsize
        return pack if cols % pack == 0 and self.aligned(*arrays) else 1

    def aligned(self, *arrays: Array) -> bool:
        """Whether the addresses of all arrays are multiples of 16 bytes."""
        return all(self._device.address(a) % launch.PACK_BYTES == 0 for a in arrays)

    def scratch_size(self, cols: int) -> int:
        """The largest number of partial sums of any launch on matrices up to `cols` wide."""
        return launch.scratch_size(cols, self.pack, self._device.multiprocessors)

    def scratch(self, size: int) -> Array:
        """Scratch memory for partial sums.  It grows in the first step with a wider matrix."""
        if len(self.partial) < size:
            self.partial = self._device.empty((size,), self.dtype)
        return self.partial

    def kernel(
        self, name: str, file: str, *entries: Entry, dtype: str = "", labels: bool = False,
        slots: str = "", gradient: str = "", source: str = "", grouped: bool = False,
    ) -> Kernel:  # fmt: skip
        """A kernel compiled with the entries' device functions, cached after the first request."""
        key = (name, file, entries, dtype, labels, slots, gradient, source, grouped)
        if key not in self._compiled:
            functor = "".join(entry.cuda() for entry in entries)
            text = KernelSource(
                file, dtype or self.storage.name, functor, labels, slots, gradient, source, grouped
            )
            self._compiled[key] = self._device.kernel(name, text)
        return self._compiled[key]
