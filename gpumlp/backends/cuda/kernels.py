"""Launches of the CUDA kernels: grids, 16-byte accesses, scratch memory and compiled sources."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.backends.cuda.protocol import Device, Kernel
from gpumlp.backends.cuda.source import CASTS, KernelSource
from gpumlp.functions import Activation, Loss, Regularizer
from gpumlp.functions.activations import identity
from gpumlp.functions.entry import Entry
from gpumlp.io.types import Array

i32, i64 = np.int32, np.int64
STORAGE_TYPES = ("float64", "float32", "bfloat16", "float16")
THREADS = 256  # in a block, as in kernels/common.cuh
WARP = 32
PACK_BYTES = 16  # of one memory access
BLOCKS = 8  # for each multiprocessor: 8 · 256 threads are the most that it can hold

Geometry = tuple[tuple[int, int], tuple[int, int]]
"""(grid, block), each (x, y)."""
ONE_BLOCK: Geometry = ((1, 1), (THREADS, 1))


class Kernels:
    """Launches kernels on one device, for one type of θ and one storage type of activations.

    Attributes:
        dtype, storage: the two types.
        pack: the number of entries of the storage type in one memory access.
        partial: scratch memory for partial sums, in θ's type.
    """

    def __init__(self, device: Device, dtype: np.dtype[Any], storage: np.dtype[Any]) -> None:
        self._device, self.dtype, self.storage = device, dtype, storage
        self.pack = PACK_BYTES // storage.itemsize
        self._compiled: dict[tuple[Any, ...], Kernel] = {}
        self.partial = device.empty((self.scratch_size(0),), dtype)

    @property
    def _blocks(self) -> int:
        """The blocks that the multiprocessors can hold which the operation may use."""
        return BLOCKS * self._device.usable

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
        n, pack = out.size, PACK_BYTES // max(source.dtype.itemsize, out.dtype.itemsize)
        arguments = source, out, i64(n), i32(self.aligned(source, out))
        types = {"dtype": out.dtype.name, "source": source.dtype.name}
        self.launch("cast", "cast.cu", self.flat(n, pack), arguments, **types)

    def gather(self, source: Array, index: Array, out: Array) -> None:
        """out ← source[index]."""
        rows, cols = len(out), 1 if out.ndim == 1 else out.shape[1]
        pack = self.pack_of(cols, source, out)
        geometry = self.tile(rows, cols, pack)
        arguments = source, index, out, i64(rows), i64(cols), i32(pack > 1)
        self.launch("gather", "gather.cu", geometry, arguments, dtype=out.dtype.name)

    def bias_activation(self, b: Array, f: Activation, z: Array, h: Array) -> None:
        """z ← z + b, h ← f(z)."""
        rows, cols = z.shape
        pack = self.pack_of(cols, z, b, h)
        arguments = z, b, h, i64(rows), i64(cols), i32(pack > 1)
        if f.elementwise:
            geometry = self.tile(rows, cols, pack)
            self.launch("bias_activation", "activation.cu", geometry, arguments, f)
        else:
            self.launch("forward", f.cuda_file, self.rows(rows), arguments, f)

    def activation(self, f: Activation, z: Array, h: Array) -> None:
        """h ← f(z)."""
        rows, cols = z.shape
        pack = self.pack_of(cols, z, h)
        arguments = z, h, i64(rows), i64(cols), i32(pack > 1)
        self.launch("activation", "activation.cu", self.tile(rows, cols, pack), arguments, f)

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
        self.launch(name, loss.cuda_file, (grid, block), arguments, loss, labels=labels)
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
            self.launch("vjp", f.cuda_file, self.rows(rows), (gh, h, gz, *shape), f)
            f, gh = identity, gz  # only the column sums are still to be computed
        geometry = self.tile(rows, cols, pack)
        splits = geometry[0][1]
        complete = splits == 1 and db.dtype == self.dtype  # the sums of the blocks are db itself
        sums = db if complete else self.scratch(splits * cols)
        arguments = gh, z, h, gz, sums, *shape
        self.launch("activation_gradient", "activation.cu", geometry, arguments, f)
        if not complete:
            total = sums, db, i64(splits), i64(cols)
            self.launch("column_total", "reduce.cu", self.flat(cols, 1), total)

    def total(self, blocks: int, J: Array) -> None:
        """J ← J + Σ of the partial sums of the blocks."""
        self.launch("total", "reduce.cu", ONE_BLOCK, (self.partial, J, i64(blocks)))

    # ---- geometry, memory and sources ---------------------------------------------------------

    def tile(self, rows: int, cols: int, pack: int) -> Geometry:
        """For a kernel whose blocks each cover some columns and walk down a share of the rows.

        Each thread takes `pack` neighbouring columns.  A block is as wide as the matrix needs, a
        power of two and at most a warp.  The grid fills the device, or is as high as the rows.
        """
        threads = -(-cols // pack)
        x = min(WARP, 1 << (threads - 1).bit_length())
        y = THREADS // x
        across = -(-threads // x)
        return (across, min(-(-rows // y), max(1, self._blocks // across))), (x, y)

    def rows(self, count: int) -> Geometry:
        """For a kernel that gives each row to a warp."""
        warps = THREADS // WARP
        return (1, min(-(-count // warps), self._blocks)), (WARP, warps)

    def flat(self, n: int, pack: int | None = None) -> Geometry:
        """For a kernel over n elements in any order, `pack` elements at a time."""
        blocks = -(-n // (THREADS * (pack or self.pack)))
        return (max(1, min(blocks, self._blocks)), 1), (THREADS, 1)

    def regions(self, regularizer: Regularizer, theta: Array, split: int) -> tuple[Any, ...]:
        """The arguments that describe the weights and biases in θ to a kernel."""
        _, bias_strength = regularizer.strengths()
        return i64(len(theta)), i64(split), self.dtype.type(bias_strength)

    def pack_of(self, cols: int, *arrays: Array) -> int:
        """The entries in one access to rows of these arrays: 16 bytes if aligned, else 1 entry."""
        pack = PACK_BYTES // arrays[0].dtype.itemsize
        return pack if cols % pack == 0 and self.aligned(*arrays) else 1

    def aligned(self, *arrays: Array) -> bool:
        """Whether the addresses of all arrays are multiples of 16 bytes."""
        return all(self._device.address(a) % PACK_BYTES == 0 for a in arrays)

    def scratch_size(self, cols: int) -> int:
        """The largest number of partial sums of any launch on matrices up to `cols` wide."""
        return max(cols, BLOCKS * self._device.multiprocessors * WARP * self.pack)

    def scratch(self, size: int) -> Array:
        """Scratch memory for partial sums.  It grows in the first step with a wider matrix."""
        if len(self.partial) < size:
            self.partial = self._device.empty((size,), self.dtype)
        return self.partial

    def launch(
        self, name: str, file: str, geometry: Geometry, arguments: tuple[Any, ...],
        *entries: Entry, dtype: str = "", **options: Any,
    ) -> None:  # fmt: skip
        """Launch a kernel compiled with the entries' device functions, cached after the first time.

        options: of `KernelSource`.
        """
        key = (name, file, entries, dtype, *options.items())
        if key not in self._compiled:
            functor = "".join(entry.cuda() for entry in entries)
            source = KernelSource(file, dtype or self.storage.name, functor, **options)
            self._compiled[key] = self._device.kernel(name, source)
        self._compiled[key](*geometry, arguments)
