"""The GPU room: the same doors, written on a device's few calls (`gpumlp.cuda.seam`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends.device_feed import DeviceFeed, travels_as
from gpumlp.backends.products import Products
from gpumlp.cuda import launch
from gpumlp.cuda.seam import Device, DeviceArray, Kernel
from gpumlp.cuda.source import KernelSource
from gpumlp.cuda.types import dtype_of
from gpumlp.functions import Activation, Loss, Optimizer, Regularizer
from gpumlp.functions.activations import identity
from gpumlp.functions.entry import Entry

i32, i64 = np.int32, np.int64
STORAGE = {  # precision -> the storage type
    "float64": "float64", "float32": "float32", "tf32": "float32",
    "bfloat16": "bfloat16", "float16": "float16",
}  # fmt: skip
STEADY = 2000  # steps without an overflow after which the loss scale is doubled


class CudaBackend:
    """The doors of `gpumlp.backends.base`, on a device."""

    name = "cupy"

    def __init__(self, device: Device, precision: str = "float32") -> None:
        if precision not in STORAGE:
            raise ValueError(f"precision must be one of {', '.join(STORAGE)}, got {precision!r}")
        self.precision = precision
        self.dtype = np.dtype("float64" if precision == "float64" else "float32")
        self.storage = dtype_of(STORAGE[precision])
        self.scales_loss = precision == "float16"
        self.rounds_slots, self.folds = precision != "float64", True
        self._device = device
        self._real = self.dtype.type
        self._pack = launch.PACK_BYTES // self.storage.itemsize
        self._products = Products(device, precision)
        self._kernels: dict[tuple[Any, ...], Kernel] = {}
        # while a step is recorded with branches; from a hidden gradient to its weight gradient
        self._branches = self._forked = False
        self._partial = device.empty((self._scratch_size(0),), self.dtype)

    def describe(self) -> str:
        return f"{self._device.name}, {self.precision}"

    def owns(self, a: object) -> bool:
        return self._device.owns(a)

    def takes(self, a: object, dtype: np.dtype[Any]) -> bool:
        array: Any = a
        return self.owns(a) and array.dtype == dtype and bool(array.flags.c_contiguous)

    def asarray(
        self,
        a: npt.ArrayLike,
        dtype: npt.DTypeLike | None = None,
        out: DeviceArray | None = None,
    ) -> DeviceArray:
        ours = self.owns(a)
        source: Any = a if ours else np.asarray(a)
        if out is None:
            out = self.empty(source.shape, dtype)
        move = self._device.copy if ours else self._device.upload
        move(source, out)
        return out

    def to_host(self, a: DeviceArray) -> npt.NDArray[Any]:
        return self._device.download(a)

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike | None = None) -> DeviceArray:
        return self._device.empty(shape, self.dtype if dtype is None else np.dtype(dtype))

    def full(
        self, shape: tuple[int, ...], value: float, dtype: npt.DTypeLike | None = None
    ) -> DeviceArray:
        a = self.empty(shape, dtype)
        self._device.fill(a, value)
        return a

    def free_memory(self) -> int | None:
        return self._device.free_memory()

    # ---- Algorithm 6.3 ------------------------------------------------------------------------

    def pre_activation(
        self, f: Activation, m: int, n: int
    ) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        return self._products.pre_activation(f, m, n, self.storage)

    def affine_activation(
        self, h_below: DeviceArray, W: DeviceArray, b: DeviceArray, f: Activation,
        z: DeviceArray, h: DeviceArray,
    ) -> None:  # fmt: skip
        self._products.upward(h_below, W, b, f, z, h, self._bias_activation)

    def activation(self, f: Activation, z: DeviceArray, h: DeviceArray) -> None:
        rows, cols = z.shape
        pack = self._pack_of(cols, z, h)
        grid, block = launch.tile(rows, cols, pack, self._device.multiprocessors)
        kernel = self._kernel("activation", "activation.cu", f)
        self._forked = False  # a branch would not wait for this h
        kernel(grid, block, (z, h, i64(rows), i64(cols), i32(pack > 1)))

    def loss(
        self, loss: Loss, y_hat: DeviceArray, y: DeviceArray, weights: DeviceArray, J: DeviceArray
    ) -> None:
        self._loss("loss", loss, y_hat, y, weights, (), J)

    # ---- Algorithm 6.4 ------------------------------------------------------------------------

    def output_gradient(
        self, loss: Loss, f: Activation, z: DeviceArray, h: DeviceArray, y: DeviceArray,
        weights: DeviceArray, scaling: DeviceArray, gh: DeviceArray, gz: DeviceArray,
        db: DeviceArray, J: DeviceArray,
    ) -> None:  # fmt: skip
        self._loss("loss_gradient", loss, h, y, weights, (scaling, gh), J)
        self._through_activation(f, z, h, gh, gz, db)

    def weight_gradient(
        self, gz: DeviceArray, h_below: DeviceArray, dW: DeviceArray, factors: DeviceArray | None
    ) -> None:
        def product() -> None:
            self._device.gemm(
                gz, h_below, dW, transpose_a=True, compute=self.precision, factors=factors
            )

        # W that is added to in place has been read by the product since the fork
        if self._forked and factors is None:
            self._device.beside(product)
        else:
            product()
        self._forked = False

    def hidden_gradient(
        self, gz_above: DeviceArray, W_above: DeviceArray, f: Activation, z: DeviceArray,
        h: DeviceArray, gh: DeviceArray, gz: DeviceArray, db: DeviceArray,
    ) -> None:  # fmt: skip
        if self._branches:  # gz_above is there, and with it all that its weight gradient needs
            self._device.join()  # what reads the buffer that is now to become gz
            self._device.fork()
            self._forked = True
        self._products.downward(gz_above, W_above, f, z, h, gh, gz, db, self._through_activation)

    def input_gradient(self, gz: DeviceArray, W: DeviceArray, gx: DeviceArray) -> None:
        self._device.gemm(gz, W, gx, compute=self.precision)

    def penalty(
        self, regularizer: Regularizer, theta: DeviceArray, split: int, J: DeviceArray,
        dtheta: DeviceArray | None,
    ) -> None:  # fmt: skip
        if not regularizer.active:
            return
        (blocks, _), block = launch.flat(len(theta), self._pack, self._device.multiprocessors)
        add, gradient = (0, theta) if dtheta is None else (1, dtheta)
        self._kernel("penalty", "penalty.cu", regularizer, dtype=gradient.dtype.name)(
            (blocks, 1), block,
            (theta, gradient, self._partial, *self._regions(regularizer, theta, split), i32(add)),
        )  # fmt: skip
        self._total(blocks, J)

    # ---- the update ---------------------------------------------------------------------------

    def clip(
        self, regularizer: Regularizer, theta: DeviceArray, dtheta: DeviceArray, split: int,
        max_norm: float, scaling: DeviceArray, control: DeviceArray,
    ) -> None:  # fmt: skip
        self._joined()
        (blocks, _), block = launch.flat(len(theta), self._pack, self._device.multiprocessors)
        self._kernel("squared_norm", "penalty.cu", regularizer)(
            (blocks, 1), block,
            (theta, dtheta, scaling, self._partial, *self._regions(regularizer, theta, split)),
        )  # fmt: skip
        interval = i64(STEADY if self.scales_loss else 0)
        self._kernel("clip", "penalty.cu", regularizer)(
            *launch.ONE_BLOCK,
            (self._partial, scaling, control, i64(blocks), np.float64(max_norm), interval),
        )

    def update(
        self, optimizer: Optimizer, regularizer: Regularizer, theta: DeviceArray,
        rounded: DeviceArray, dtheta: DeviceArray, slots: DeviceArray, split: int,
        scaling: DeviceArray, control: DeviceArray,
    ) -> None:  # fmt: skip
        self._joined()
        grid, block = launch.flat(len(theta), self._pack, self._device.multiprocessors)
        state = slots if optimizer.slots else theta  # which a rule without slots does not touch
        kernel = self._kernel(
            "update", "update.cu", optimizer, regularizer,
            slots="" if state.dtype == self.dtype else state.dtype.name,
            gradient="" if dtheta.dtype == self.storage else dtheta.dtype.name,
        )  # fmt: skip
        kernel(
            grid, block,
            (theta, rounded, dtheta, state, control, scaling,
             *self._regions(regularizer, theta, split)),
        )  # fmt: skip

    def round(self, theta: DeviceArray, rounded: DeviceArray) -> None:
        if rounded.dtype == theta.dtype:
            return
        grid, block = launch.flat(len(theta), self._pack, self._device.multiprocessors)
        self._kernel("round_theta", "round.cu")(grid, block, (theta, rounded, i64(len(theta))))

    # ---- minibatches --------------------------------------------------------------------------

    def gather(self, source: DeviceArray, index: DeviceArray, out: DeviceArray) -> None:
        rows, cols = len(out), 1 if out.ndim == 1 else out.shape[1]
        pack = self._pack_of(cols, source, out)
        grid, block = launch.tile(rows, cols, pack, self._device.multiprocessors)
        kernel = self._kernel("gather", "gather.cu", dtype=out.dtype.name)
        kernel(grid, block, (source, index, out, i64(rows), i64(cols), i32(pack > 1)))

    def feed(self, source: npt.NDArray[Any], rows: int, dtype: npt.DTypeLike) -> DeviceFeed:
        return DeviceFeed(self._device, source, rows, np.dtype(dtype), self._cast)

    def feed_memory(self, source: npt.NDArray[Any], rows: int, dtype: np.dtype[Any]) -> int:
        return 2 * rows * math.prod(source.shape[1:]) * travels_as(source, dtype).itemsize

    def mean_weights(self, weights: DeviceArray, index: DeviceArray, out: DeviceArray) -> None:
        kernel = self._kernel("mean_weights", "gather.cu")
        kernel(*launch.ONE_BLOCK, (weights, index, out, i64(len(out))))

    # ---- a step as a whole --------------------------------------------------------------------

    def begin(
        self, position: DeviceArray, order: DeviceArray, controls: DeviceArray, size: int,
        index: DeviceArray, control: DeviceArray, factors: DeviceArray, J: DeviceArray,
    ) -> None:  # fmt: skip
        rows, numbers = len(index), len(control)
        self._kernel("begin", "step.cu")(
            *launch.flat(rows, 1, self._device.multiprocessors),
            (position, order, controls, index, control, factors, J,
             i64(size), i64(rows), i64(numbers)),
        )  # fmt: skip

    def end(self, position: DeviceArray, J: DeviceArray, costs: DeviceArray) -> None:
        self._kernel("end", "step.cu")(*launch.ONE_BLOCK, (position, J, costs, i64(len(costs))))

    def record(self, work: Callable[[], None], name: str) -> Callable[[], None]:
        def branched() -> None:
            self._branches = True
            try:
                work()
            finally:
                self._branches = self._forked = False

        device = self._device
        replay = device.fastest(
            name,
            {"in turn": lambda: device.record(work), "branched": lambda: device.record(branched)},
        )

        # the scratch that it writes must live as long, whatever wider matrix asks for more
        def again(scratch: DeviceArray = self._partial) -> None:
            replay()

        return again

    def synchronize(self) -> None:
        self._device.synchronize()

    # ---- memory -------------------------------------------------------------------------------

    def own_memory(self, widest: int) -> int:
        # column sums of a wider matrix go to scratch where they are then rounded to 16 bits
        cols = widest if self.storage != self.dtype else 0
        entries = max(len(self._partial), self._scratch_size(cols))
        return self._device.reserved + entries * self.dtype.itemsize

    # ---- inside -------------------------------------------------------------------------------

    def _cast(self, source: DeviceArray, out: DeviceArray) -> None:
        """out ← source, contiguous both."""
        if source.dtype == out.dtype:
            self._device.copy(source, out)
            return
        n, pack = out.size, launch.PACK_BYTES // max(source.dtype.itemsize, out.dtype.itemsize)
        kernel = self._kernel("cast", "cast.cu", dtype=out.dtype.name, source=source.dtype.name)
        grid, block = launch.flat(n, pack, self._device.multiprocessors)
        kernel(grid, block, (source, out, i64(n), i32(self._aligned(source, out))))

    def _bias_activation(
        self, b: DeviceArray, f: Activation, z: DeviceArray, h: DeviceArray
    ) -> None:
        """z ← z + b, h ← f(z)."""
        rows, cols = z.shape
        pack = self._pack_of(cols, z, b, h)
        if f.elementwise:
            grid, block = launch.tile(rows, cols, pack, self._device.multiprocessors)
            kernel = self._kernel("bias_activation", "activation.cu", f)
        else:
            grid, block = launch.rows(rows, self._device.multiprocessors)
            kernel = self._kernel("forward", f.cuda_file, f)
        kernel(grid, block, (z, b, h, i64(rows), i64(cols), i32(pack > 1)))

    def _loss(
        self, name: str, loss: Loss, y_hat: DeviceArray, y: DeviceArray, weights: DeviceArray,
        gh: tuple[DeviceArray, ...], J: DeviceArray,
    ) -> None:  # fmt: skip
        """The loss, or (gh = scaling, gh) the loss and its gradient: one launch, then J's sum."""
        rows, cols = y_hat.shape
        labels = y.ndim == 1
        pack = self._pack_of(cols, y_hat, *gh[1:], *(() if labels else (y,)))
        arguments = (y_hat, y, weights, *gh, self._partial, i64(rows), i64(cols), i32(pack > 1))
        if loss.rowwise:
            grid, block = launch.rows(rows, self._device.multiprocessors)
        else:
            grid, block = launch.flat(rows * cols, pack, self._device.multiprocessors)
            arguments += (self._real(loss.output_scale(cols)),)
        self._kernel(name, loss.cuda_file, loss, labels=labels)(grid, block, arguments)
        self._total(grid[0] * grid[1], J)

    def _through_activation(
        self, f: Activation, z: DeviceArray, h: DeviceArray, gh: DeviceArray, gz: DeviceArray,
        db: DeviceArray,
    ) -> None:  # fmt: skip
        """gz ← gh ⊙ f'(z) or Jᵀ gh, db ← its column sums."""
        z = z if "z" in f.reads else h  # which is not read, but may be bits
        rows, cols = gz.shape
        pack = self._pack_of(cols, gh, z, h, gz)
        shape = i64(rows), i64(cols), i32(pack > 1)
        if not f.elementwise:
            grid, block = launch.rows(rows, self._device.multiprocessors)
            self._kernel("vjp", f.cuda_file, f)(grid, block, (gh, h, gz, *shape))
            f, gh = identity, gz  # for the column sums
        grid, block = launch.tile(rows, cols, pack, self._device.multiprocessors)
        splits = grid[1]
        alone = splits == 1 and db.dtype == self.dtype  # then the block's sums are db itself
        partial = db if alone else self._scratch(splits * cols)
        kernel = self._kernel("activation_gradient", "activation.cu", f)
        kernel(grid, block, (gh, z, h, gz, partial, *shape))
        if not alone:
            grid, block = launch.flat(cols, 1, self._device.multiprocessors)
            total = self._kernel("column_total", "reduce.cu")
            total(grid, block, (partial, db, i64(splits), i64(cols)))

    def _total(self, blocks: int, J: DeviceArray) -> None:
        """J ← J + Σ of the blocks' partial sums."""
        kernel = self._kernel("total", "reduce.cu")
        kernel(*launch.ONE_BLOCK, (self._partial, J, i64(blocks)))

    def _joined(self) -> None:
        """All gradients are there."""
        if self._branches:
            self._device.join()

    def _regions(self, regularizer: Regularizer, theta: DeviceArray, split: int) -> tuple[Any, ...]:
        """What tells a kernel over θ the regions of weights and biases."""
        _, bias_strength = regularizer.strengths()
        return i64(len(theta)), i64(split), self._real(bias_strength)

    def _pack_of(self, cols: int, *arrays: DeviceArray) -> int:
        """Entries in one access to these arrays' rows: 16 bytes' where alignment allows, else 1."""
        pack = launch.PACK_BYTES // arrays[0].dtype.itemsize
        return pack if cols % pack == 0 and self._aligned(*arrays) else 1

    def _aligned(self, *arrays: DeviceArray) -> bool:
        return all(self._device.address(a) % launch.PACK_BYTES == 0 for a in arrays)

    def _scratch_size(self, cols: int) -> int:
        return launch.scratch_size(cols, self._pack, self._device.multiprocessors)

    def _scratch(self, size: int) -> DeviceArray:
        """Room for partial sums; grows for a matrix wider than any before, in its first step."""
        if len(self._partial) < size:
            self._partial = self._device.empty((size,), self.dtype)
        return self._partial

    def _kernel(
        self, name: str, file: str, *entries: Entry, dtype: str = "", labels: bool = False,
        slots: str = "", gradient: str = "", source: str = "",
    ) -> Kernel:  # fmt: skip
        """A kernel compiled for the entries' device functions, from the cache after the first."""
        key = (name, file, entries, dtype, labels, slots, gradient, source)
        if key not in self._kernels:
            functor = "".join(entry.cuda() for entry in entries)
            text = KernelSource(
                file, dtype or self.storage.name, functor, labels, slots, gradient, source
            )
            self._kernels[key] = self._device.kernel(name, text)
        return self._kernels[key]
