"""Launches of the CUDA kernels: grids, 16-byte accesses, scratch memory and compiled sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.backends.cuda.protocol import Device, Kernel
from gpumlp.backends.cuda.source import CASTS, KernelSource
from gpumlp.functions import Regularizer
from gpumlp.functions.embeddings import Embeddings
from gpumlp.functions.entry import Entry
from gpumlp.io.types import Array

i32, i64 = np.int32, np.int64
STORAGE_TYPES = ("float64", "float32", "bfloat16", "float16")
THREADS = 256  # in a block, as in kernels/common.cuh
WARP = 32
PACK_BYTES = 16  # of one memory access
BLOCKS = 8  # for each multiprocessor: 8 · 256 threads are the most that it can hold
SPLITS = 256  # of the rows of a matrix whose columns are summed: enough to fill the device
# cross_entropy.cu: entries of a row in one thread, if rows have few or unaligned entries, else, and
# the threads that can share a row
NARROW, HELD, MOST_LANES = 8, 16, 64

Geometry = tuple[tuple[int, ...], tuple[int, int]]
"""(grid, block), each (x, y); of K networks the grid is (x, y, K)."""
ONE_BLOCK: Geometry = ((1, 1), (THREADS, 1))


class OnDevice:
    """What the parts of `CudaBackend` share, which sets it."""

    precision: str
    dtype: np.dtype[Any]
    scales_loss: bool
    _device: Device
    _kernels: Kernels


class Kernels:
    """Launches kernels on one device, for one type of θ and one storage type of activations.

    Attributes:
        pack, wide: the number of entries of the storage type, and of θ's, in one memory access.
        partial, arrived: scratch memory for partial sums, in θ's type, and for counts of blocks,
            which are 0 between launches; see kernels/sums.cuh.
        sums: the most sums of columns of a launch.
        position: that of `Backend.end`, for launches that do not end a step.
        scratch_bytes: the memory of these.
    """

    def __init__(self, device: Device, dtype: np.dtype[Any], storage: np.dtype[Any]) -> None:
        self._device, self.dtype, self.storage = device, dtype, storage
        self.pack, self.wide = PACK_BYTES // storage.itemsize, PACK_BYTES // dtype.itemsize
        self._compiled: dict[tuple[Any, ...], Kernel] = {}
        self.sums = self.blocks * WARP * self.pack
        # of ∇γ and ∇β: stage.cu has 2 blocks on a multiprocessor, which hold so many columns
        of_norms = 2 * device.usable * 2 * THREADS * (HELD if dtype.itemsize == 4 else NARROW)
        self.partial = device.empty((max(self.blocks + self.sums, of_norms),), dtype)
        # one for J of each network; one for each column of blocks, and for each 16 blocks of it
        self.arrived = device.empty((4 * self.blocks,), np.uint32)
        device.fill(self.arrived, 0)
        self.position = device.empty((1,), np.int64)
        self.scratch_bytes: int = sum(a.nbytes for a in (self.partial, self.arrived, self.position))

    @property
    def blocks(self) -> int:
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

    def tile(
        self, rows: int, cols: int, pack: int, most: int = 1 << 16, networks: int = 1
    ) -> Geometry:
        """For a kernel whose blocks each cover some columns and walk down a share of the rows.

        Each thread takes `pack` neighbouring columns.  A block is as wide as the matrix needs, a
        power of two and at most a warp.  The grid fills the device, or is as high as the rows, or
        `most`; each of several networks has such a matrix.
        """
        threads = -(-cols // pack)
        x = min(WARP, 1 << (threads - 1).bit_length())
        y = THREADS // x
        across = -(-threads // x)
        high = min(-(-rows // y), max(1, self.blocks // (across * networks)), most)
        return (across, high, networks), (x, y)

    def rows(self, count: int, networks: int = 1) -> Geometry:
        """For a kernel that gives each row to a warp; `count` rows of each network."""
        warps = THREADS // WARP
        high = min(-(-count // warps), max(1, self.blocks // networks))
        return (1, high, networks), (WARP, warps)

    def flat(self, n: int, pack: int | None = None, networks: int = 1) -> Geometry:
        """For a kernel over n elements in any order, `pack` at a time: None, those of θ."""
        blocks = -(-n // (THREADS * (pack or self.wide)))
        return (max(1, min(blocks, self.blocks // networks)), 1, networks), (THREADS, 1)

    def of_theta(self, theta: Array, part: tuple[int, int] | None = None) -> Geometry:
        """For a kernel over θ, or a part of it: (p,), or (K, p)."""
        begin, end = part or (0, theta.shape[-1])
        return self.flat(end - begin, networks=len(theta) if theta.ndim == 2 else 1)

    def networks_at_a_time(self, widths: Sequence[int]) -> int:
        """The most networks whose partial sums fit into the scratch memory."""
        across, last = -(-max(widths) // WARP), min(widths[-1], MOST_LANES * HELD)
        sums = min((self.blocks + self.sums) // (2 * across), self.sums // last)
        sums = min(sums, len(self.partial) // (2 * max(widths)))  # of norms
        return max(1, min(self.blocks, sums))

    def regions(self, regularizer: Regularizer, theta: Array, split: int) -> tuple[Any, ...]:
        """The arguments that describe the weights and biases in θ to a kernel."""
        _, bias_strength = regularizer.strengths()
        return i64(theta.shape[-1]), i64(split), self.dtype.type(bias_strength)

    def pack_of(self, cols: int, x: Array, *others: Array | None) -> int:
        """The entries in one access to rows of these arrays: 16 bytes if aligned, else 1 entry."""
        pack = PACK_BYTES // x.dtype.itemsize
        return pack if cols % pack == 0 and self.aligned(x, *others) else 1

    def aligned(self, *arrays: Array | None) -> bool:
        """Whether the addresses of all arrays are multiples of 16 bytes; None is no array."""
        return all(a is None or self._device.address(a) % PACK_BYTES == 0 for a in arrays)

    def launch(
        self, name: str, file: str, geometry: Geometry, arguments: tuple[Any, ...],
        *entries: Entry | Embeddings, dtype: str = "", **options: Any,
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


def sizes(a: Array) -> tuple[int, int, int]:
    """(K, rows, columns) of the matrices of K networks; K is 1 for a single matrix."""
    return (1, *a.shape) if a.ndim == 2 else a.shape


def first(a: Array, ndim: int = 1) -> tuple[Array, np.int64]:
    """The array that the first network has, of `ndim`, and the entries from one to the next."""
    if a.ndim == ndim:
        return a, i64(0)
    return a[0], i64(a.strides[0] // a.itemsize)
