"""The CUDA backend: the same operations, written on a device's few calls (`gpumlp.backends.cuda.protocol`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends.cuda import launch
from gpumlp.backends.cuda.epilogues import Products
from gpumlp.backends.cuda.feed import DeviceFeed, travels_as
from gpumlp.backends.cuda.kernels import Kernels, i32, i64
from gpumlp.backends.cuda.protocol import Device, DeviceArray
from gpumlp.backends.cuda.types import dtype_of
from gpumlp.backends.cuda.update import CudaUpdate
from gpumlp.backends.shared import Shared
from gpumlp.functions import Activation, Loss, Regularizer

STORAGE = {  # precision -> the storage type
    "float64": "float64", "float32": "float32", "tf32": "float32",
    "bfloat16": "bfloat16", "float16": "float16",
}  # fmt: skip


class CudaBackend(CudaUpdate, Shared):
    """The operations of `gpumlp.backends.operations`, on a device; `CudaUpdate` has those of the update."""

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
        self._products = Products(device, precision)
        self._kernels = Kernels(device, self.dtype, self.storage)
        # while a step is recorded with branches; from a hidden gradient to its weight gradient
        self._branches = self._forked = False

    def describe(self) -> str:
        return f"{self._device.name}, {self.precision}"

    def owns(self, a: object) -> bool:
        return self._device.owns(a)

    def accepts(self, a: object, dtype: np.dtype[Any]) -> bool:
        array: Any = a
        return self.owns(a) and array.dtype == dtype and bool(array.flags.c_contiguous)

    def asarray(
        self, a: npt.ArrayLike, dtype: npt.DTypeLike | None = None, out: DeviceArray | None = None
    ) -> DeviceArray:
        ours = self.owns(a)
        source: Any = a if ours else np.asarray(a)
        if out is None:
            out = self.empty(source.shape, dtype)
        if not ours:
            self._device.upload(source, out)
        elif self._kernels.casts(source, out):  # CuPy knows too little of bfloat16
            self._kernels.cast(source, out)
        else:
            self._device.copy(source, out)
        return out

    def adopt(self, a: Any) -> DeviceArray:
        return self._device.adopt(a)

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
        self._joined()  # a further micro-batch writes what the last one's branches read
        self._products.upward(h_below, W, b, f, z, h, self._kernels.bias_activation)

    def activation(self, f: Activation, z: DeviceArray, h: DeviceArray) -> None:
        self._forked = False  # a branch would not wait for this h
        self._kernels.activation(f, z, h)

    def loss(
        self, loss: Loss, y_hat: DeviceArray, y: DeviceArray, weights: DeviceArray, J: DeviceArray
    ) -> None:
        self._kernels.loss("loss", loss, y_hat, y, weights, (), J)

    # ---- Algorithm 6.4 ------------------------------------------------------------------------

    def output_gradient(
        self, loss: Loss, f: Activation, z: DeviceArray, h: DeviceArray, y: DeviceArray,
        weights: DeviceArray, scaling: DeviceArray, gh: DeviceArray, gz: DeviceArray,
        db: DeviceArray, J: DeviceArray,
    ) -> None:  # fmt: skip
        self._kernels.loss("loss_gradient", loss, h, y, weights, (scaling, gh), J)
        self._kernels.through_activation(f, z, h, gh, gz, db)

    def weight_gradient(
        self, gz: DeviceArray, h_below: DeviceArray, dW: DeviceArray, factors: DeviceArray | None
    ) -> None:
        def product() -> None:
            self._device.gemm(
                gz, h_below, dW, transpose_a=True, compute=self.precision, factors=factors
            )

        # W that is added to in place has been read by the product since the fork
        if self._forked and factors is None:
            self._device.on_side_stream(product)
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
        self._products.downward(
            gz_above, W_above, f, z, h, gh, gz, db, self._kernels.through_activation
        )

    def activation_gradient(
        self, f: Activation, z: DeviceArray, h: DeviceArray, gh: DeviceArray, gz: DeviceArray,
        db: DeviceArray,
    ) -> None:  # fmt: skip
        self._kernels.through_activation(f, z, h, gh, gz, db)

    def input_gradient(self, gz: DeviceArray, W: DeviceArray, gx: DeviceArray) -> None:
        self._device.gemm(gz, W, gx, compute=self.precision)

    def penalty(
        self, regularizer: Regularizer, theta: DeviceArray, split: int, J: DeviceArray,
        dtheta: DeviceArray | None,
    ) -> None:  # fmt: skip
        if not regularizer.active:
            return
        on = self._kernels
        (blocks, _), block = launch.flat(len(theta), on.pack, self._device.multiprocessors)
        add, gradient = (0, theta) if dtheta is None else (1, dtheta)
        on.kernel("penalty", "penalty.cu", regularizer, dtype=gradient.dtype.name)(
            (blocks, 1), block,
            (theta, gradient, on.partial, *on.regions(regularizer, theta, split), i32(add)),
        )  # fmt: skip
        on.total(blocks, J)

    # ---- minibatches --------------------------------------------------------------------------

    def gather(self, source: DeviceArray, index: DeviceArray, out: DeviceArray) -> None:
        rows, cols = len(out), 1 if out.ndim == 1 else out.shape[1]
        pack = self._kernels.pack_of(cols, source, out)
        grid, block = launch.tile(rows, cols, pack, self._device.multiprocessors)
        kernel = self._kernels.kernel("gather", "gather.cu", dtype=out.dtype.name)
        kernel(grid, block, (source, index, out, i64(rows), i64(cols), i32(pack > 1)))

    def feed(self, source: npt.NDArray[Any], rows: int, dtype: npt.DTypeLike) -> DeviceFeed:
        return DeviceFeed(self._device, source, rows, np.dtype(dtype), self._kernels.cast)

    def feed_memory(self, source: npt.NDArray[Any], rows: int, dtype: np.dtype[Any]) -> int:
        return 2 * rows * math.prod(source.shape[1:]) * travels_as(source, dtype).itemsize

    def mean_weights(self, weights: DeviceArray, index: DeviceArray, out: DeviceArray) -> None:
        kernel = self._kernels.kernel("mean_weights", "gather.cu")
        kernel(*launch.ONE_BLOCK, (weights, index, out, i64(len(out))))

    # ---- a step as a whole --------------------------------------------------------------------

    def begin(
        self, position: DeviceArray, order: DeviceArray, controls: DeviceArray, size: int,
        index: DeviceArray, control: DeviceArray, factors: DeviceArray, J: DeviceArray,
    ) -> None:  # fmt: skip
        rows, numbers = len(index), len(control)
        self._kernels.kernel("begin", "step.cu")(
            *launch.flat(rows, 1, self._device.multiprocessors),
            (position, order, controls, index, control, factors, J,
             i64(size), i64(rows), i64(numbers)),
        )  # fmt: skip

    def end(self, position: DeviceArray, J: DeviceArray, costs: DeviceArray) -> None:
        self._kernels.kernel("end", "step.cu")(
            *launch.ONE_BLOCK, (position, J, costs, i64(len(costs)))
        )

    def defer(self, work: Callable[[], None]) -> None:
        branches, self._branches = self._branches, False  # it waits for what was handed in so far
        try:
            self._device.defer(work) if branches else work()
        finally:
            self._branches = branches

    def record(
        self, work: Callable[[], None], name: str, early_update: Callable[[], None] | None = None
    ) -> Callable[[], None]:
        def branched(work: Callable[[], None]) -> Callable[[], None]:
            self._branches = True
            try:
                return self._device.record(work)
            finally:
                self._branches = self._forked = False

        ways = {"in turn": lambda: self._device.record(work), "branched": lambda: branched(work)}
        if early_update is not None:
            ways["branched, updated at once"] = lambda: branched(early_update)
        replay = self._device.fastest(name, ways)

        # the scratch that it writes must live as long, whatever wider matrix asks for more
        def again(scratch: DeviceArray = self._kernels.partial) -> None:
            replay()

        return again

    def synchronize(self) -> None:
        self._device.synchronize()

    # ---- memory -------------------------------------------------------------------------------

    def own_memory(self, widest: int) -> int:
        # column sums of a wider matrix go to scratch where they are then rounded to 16 bits
        cols = widest if self.storage != self.dtype else 0
        entries = max(len(self._kernels.partial), self._kernels.scratch_size(cols))
        return self._device.reserved + entries * self.dtype.itemsize
