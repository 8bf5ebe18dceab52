"""Launches of the CUDA kernels: grids, 16-byte accesses, scratch memory and compiled sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.backends.cuda.protocol import Device, Kernel
from gpumlp.backends.cuda.source import CASTS, KernelSource
from gpumlp.functions import Activation, Loss, Regularizer
from gpumlp.functions.activations import identity
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


class Kernels:
    """Launches kernels on one device, for one type of θ and one storage type of activations.

    Attributes:
        dtype, storage: the two types.
        pack, wide: the number of entries of the storage type, and of θ's, in one memory access.
        partial, arrived: scratch memory for partial sums, in θ's type, and for counts of blocks,
            which are 0 between launches; see kernels/sums.cuh.
        scratch_bytes: the memory of these.
    """

    def __init__(self, device: Device, dtype: np.dtype[Any], storage: np.dtype[Any]) -> None:
        self._device, self.dtype, self.storage = device, dtype, storage
        self.pack, self.wide = PACK_BYTES // storage.itemsize, PACK_BYTES // dtype.itemsize
        self._compiled: dict[tuple[Any, ...], Kernel] = {}
        self._sums = self.blocks * WARP * self.pack  # of columns, the most of any launch
        # of ∇γ and ∇β: stage.cu has 2 blocks on a multiprocessor, which hold so many columns
        of_norms = 2 * device.usable * 2 * THREADS * (HELD if dtype.itemsize == 4 else NARROW)
        self.partial = device.empty((max(self.blocks + self._sums, of_norms),), dtype)
        # one for J of each network; one for each column of blocks, and for each 16 blocks of it
        self.arrived = device.empty((4 * self.blocks,), np.uint32)
        device.fill(self.arrived, 0)
        self._position = device.empty((1,), np.int64)  # for launches that do not end a step
        self.scratch_bytes: int = sum(
            a.nbytes for a in (self.partial, self.arrived, self._position)
        )

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

    def gather(self, source: Array, index: Array, out: Array) -> None:
        """out ← source[index]."""
        rows, cols = index.size, 1 if out.ndim == index.ndim else out.shape[-1]
        pack = self.pack_of(cols, source, out)
        geometry = self.tile(rows, cols, pack)
        arguments = source, index, out, i64(rows), i64(cols), i32(pack > 1)
        self.launch("gather", "gather.cu", geometry, arguments, dtype=out.dtype.name)

    def begin_minibatch(
        self, begin: tuple[Any, ...], x: tuple[Array, ...], y: tuple[Array, ...],
        weights: tuple[Array, ...] = (),
    ) -> None:  # fmt: skip
        """`Backend.begin`, `gather` of x and y, and `mean_weights`: their arguments."""
        position, order, controls, size, index, control, factors, J = begin
        rows, labels = index.size, y[2].ndim == index.ndim
        grids, lanes, columns, packed = [], [], [], []
        for source, _, out in (x, y):
            columns.append(1 if out.ndim == index.ndim else out.shape[-1])
            pack = self.pack_of(columns[-1], source, out)
            grid, block = self.tile(rows, columns[-1], pack)
            grids.append(grid)
            lanes.append(block[0])
            packed.append(pack > 1)
        grid = sum(across for across, *_ in grids) + 1, max(high for _, high, _ in grids)
        all_weights, _, shares = weights or (factors, None, factors)  # not read without weights
        arguments = (
            position, order, controls, index, control, factors, J, x[0], x[2], y[0], y[2],
            all_weights, shares, *map(i64, (size, rows, control.size, J.size, *columns)),
            *map(i32, (*packed, grids[0][0], *lanes, rows // index.shape[-1] if weights else 0)),
        )  # fmt: skip
        geometry = grid, (THREADS, 1)
        wide = x[2].dtype != self.storage
        self.launch("begin_minibatch", "step.cu", geometry, arguments, labels=labels, wide=wide)

    def bias_activation(self, b: Array, f: Activation, z: Array, h: Array) -> None:
        """z ← z + b, h ← f(z)."""
        K, rows, cols = sizes(z)
        b, apart = first(b, K)
        pack = self.pack_of(cols, z, b, h)
        arguments = z, b, h, i64(rows), i64(cols), apart, i32(pack > 1)
        if f.elementwise:
            geometry = self.tile(rows, cols, pack, networks=K)
            self.launch("bias_activation", "activation.cu", geometry, arguments, f)
        else:
            self.launch("forward", f.cuda_file, self.rows(rows, K), arguments, f)

    def activation(self, f: Activation, z: Array, h: Array) -> None:
        """h ← f(z)."""
        rows, cols = z.size // z.shape[-1], z.shape[-1]
        pack = self.pack_of(cols, z, h)
        arguments = z, h, i64(rows), i64(cols), i32(pack > 1)
        self.launch("activation", "activation.cu", self.tile(rows, cols, pack), arguments, f)

    def loss(self, loss: Loss, y_hat: Array, y: Array, weights: Array, J: Array) -> None:
        """J ← J + the loss."""
        geometry, shape, how = self._of_loss(loss, y_hat, y, y_hat)
        arguments = y_hat, y, weights, self.partial, self.arrived, J, *shape, *how
        self.launch("loss", loss.cuda_file, geometry, arguments, loss, labels=y.ndim == 1)

    def output_gradient(
        self, loss: Loss, f: Activation, z: Array, h: Array, y: Array, weights: Array,
        scaling: Array, gh: Array, gz: Array, db: Array, J: Array,
        end: tuple[Array, Array] | None = None,
    ) -> None:  # fmt: skip
        """`Backend.output_gradient`, in one launch for the identity and a loss that sums columns.

        end: the arrays position and costs of `Backend.end`, which is done too.
        """
        geometry, shape, how = self._of_loss(loss, h, y, gh)
        position, costs = end or (self._position, J)
        one_db, apart = first(db, geometry[0][2])
        arguments = (
            h, y, weights, scaling, gh, self.partial, one_db, self.arrived, J, position, costs,
            i64(len(costs) if end else 0), *shape, apart, *how,
        )  # fmt: skip
        labels = y.ndim < h.ndim
        self.launch("loss_gradient", loss.cuda_file, geometry, arguments, loss, labels=labels)
        summed = not loss.rowwise or how[-1] > 0
        if f != identity or gz is not gh or not summed:
            self.activation_gradient(f, z, h, gh, gz, db)

    def _of_loss(
        self, loss: Loss, y_hat: Array, y: Array, gh: Array
    ) -> tuple[Geometry, tuple[Any, ...], tuple[Any, ...]]:
        """The geometry of a loss's kernels, their arguments of the shape, and the last ones."""
        K, rows, cols = sizes(y_hat)
        pack = self.pack_of(cols, y_hat, gh, *(() if y.ndim < y_hat.ndim else (y,)))
        shape = i64(rows), i64(cols)
        if not loss.rowwise:
            share = self.dtype.type(loss.output_scale(cols))
            return self.tile(rows, cols, pack, SPLITS, K), shape, (i32(pack > 1), share)
        lanes = self.lanes_of(cols, pack)
        together = THREADS // (lanes or WARP)  # rows of a block at a time
        most = self.blocks // K if lanes == 0 else min(SPLITS, self._sums // (cols * K))
        high = max(1, min(-(-rows // together), self.blocks // K, most))
        return ((1, high, K), (WARP, THREADS // WARP)), shape, (i32(pack > 1), i32(lanes))

    def lanes_of(self, cols: int, pack: int) -> int:
        """The threads of cross_entropy.cu that share a row; 0 if it is too wide for them."""
        each = HELD if self.dtype.itemsize == 4 else NARROW
        if cols > WARP * NARROW and (pack == 1 or cols > MOST_LANES * each):
            return 0
        least = -(-cols // (NARROW if cols <= WARP * NARROW else each))
        return 1 << (least - 1).bit_length()

    def activation_gradient(
        self, f: Activation, z: Array, h: Array, gh: Array, gz: Array, db: Array
    ) -> None:
        """gz ← gh ⊙ f'(z) or Jᵀ gh, db ← column sums of gz."""
        z = z if "z" in f.reads else h  # the kernel does not read z here, and z may be a bit mask
        K, rows, cols = sizes(gz)
        db, apart = first(db, K)
        pack = self.pack_of(cols, gh, z, h, gz)
        packed = i32(pack > 1)
        if not f.elementwise:
            matrices = gh, h, gz, i64(K * rows), i64(cols), packed
            self.launch("vjp", f.cuda_file, self.rows(K * rows), matrices, f)
            f, gh = identity, gz  # only the column sums are still to be computed
        scratch = self.partial, db, self.arrived
        arguments = gh, z, h, gz, *scratch, i64(rows), i64(cols), apart, packed
        geometry = self.tile(rows, cols, pack, SPLITS, K)
        self.launch("activation_gradient", "activation.cu", geometry, arguments, f)

    # ---- geometry, memory and sources ---------------------------------------------------------

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
        sums = min((self.blocks + self._sums) // (2 * across), self._sums // last)
        sums = min(sums, len(self.partial) // (2 * max(widths)))  # of norms
        return max(1, min(self.blocks, sums))

    def regions(self, regularizer: Regularizer, theta: Array, split: int) -> tuple[Any, ...]:
        """The arguments that describe the weights and biases in θ to a kernel."""
        _, bias_strength = regularizer.strengths()
        return i64(theta.shape[-1]), i64(split), self.dtype.type(bias_strength)

    def pack_of(self, cols: int, *arrays: Array) -> int:
        """The entries in one access to rows of these arrays: 16 bytes if aligned, else 1 entry."""
        pack = PACK_BYTES // arrays[0].dtype.itemsize
        return pack if cols % pack == 0 and self.aligned(*arrays) else 1

    def aligned(self, *arrays: Array) -> bool:
        """Whether the addresses of all arrays are multiples of 16 bytes."""
        return all(self._device.address(a) % PACK_BYTES == 0 for a in arrays)

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


def first(a: Array, networks: int) -> tuple[Array, np.int64]:
    """The view of θ that the first network has, and the entries from one network to the next."""
    if a.ndim == 1:
        return a, i64(0)
    return a[0], i64(a.strides[0] // a.itemsize)
