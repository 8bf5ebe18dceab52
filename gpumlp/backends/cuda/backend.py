"""The CUDA backend: the operations, written with the calls of `gpumlp.backends.cuda.protocol`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends import cuda
from gpumlp.backends.cuda import tiles, update
from gpumlp.backends.cuda.columns import CudaColumns
from gpumlp.backends.cuda.epilogues import LayerProducts
from gpumlp.backends.cuda.feed import DeviceFeed, transfer_dtype
from gpumlp.backends.cuda.joining import join, shared
from gpumlp.backends.cuda.kernels import ONE_BLOCK, Kernels, i32, i64
from gpumlp.backends.cuda.lookup import CudaLookup
from gpumlp.backends.cuda.plans import COMPUTE_TYPE
from gpumlp.backends.cuda.protocol import Device
from gpumlp.backends.cuda.sharing import CudaSharing
from gpumlp.backends.cuda.source import dtype_of
from gpumlp.backends.cuda.stages import CudaStages
from gpumlp.backends.declaration import Call
from gpumlp.backends.operations import Backend
from gpumlp.functions import Activation, Loss, Optimizer, Regularizer
from gpumlp.io.types import Array


class CudaBackend(CudaColumns, CudaLookup, CudaSharing, CudaStages, Backend):
    """The operations of `gpumlp.backends.operations` on a GPU.

    A pickle becomes a backend of the GPU where it is loaded.
    """

    name = "cupy"
    on_host = compiles = False

    def __init__(self, device: Device, precision: str = "float32") -> None:
        if precision not in COMPUTE_TYPE:
            known = ", ".join(COMPUTE_TYPE)
            raise ValueError(f"precision must be one of {known}, got {precision!r}")
        self.precision = precision
        self.dtype = np.dtype("float64" if precision == "float64" else "float32")
        self.storage = dtype_of("float32" if precision == "tf32" else precision)
        self.scales_loss = precision == "float16"
        self.rounds_slots, self.folds = precision != "float64", True
        self.keeps_remainder = precision == "bfloat16"
        self.branches, self.row_flops = device.multiprocessors, 0
        self._device = device
        self._kernels = Kernels(device, self.dtype, self.storage)
        self._products = LayerProducts(device, precision, self._kernels)

    def __reduce__(self) -> tuple[Any, ...]:
        return _on_current_gpu, (self.precision,)

    def describe(self) -> str:
        return f"{self._device.name}, {self.precision}"

    def owns(self, a: object) -> bool:
        return self._device.owns(a)

    def accepts(self, a: object, dtype: np.dtype[Any]) -> bool:
        array: Any = a
        return self.owns(a) and array.dtype == dtype and bool(array.flags.c_contiguous)

    def asarray(
        self, a: npt.ArrayLike, dtype: npt.DTypeLike | None = None, out: Array | None = None
    ) -> Array:
        on_device = self.owns(a)
        source: Any = a if on_device else np.asarray(a)
        if out is None:
            out = self.empty(source.shape, dtype)
        if not on_device:
            self._device.upload(source, out)
        elif self._kernels.can_cast(source, out):  # CuPy cannot cast bfloat16
            self._kernels.cast(source, out)
        else:
            self._device.copy(source, out)
        return out

    def adopt(self, a: Any) -> Array:
        return self._device.adopt(a)

    def to_host(self, a: Array) -> npt.NDArray[Any]:
        return self._device.download(a)

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike | None = None) -> Array:
        return self._device.empty(shape, self.dtype if dtype is None else np.dtype(dtype))

    def full(
        self, shape: tuple[int, ...], value: float, dtype: npt.DTypeLike | None = None
    ) -> Array:
        a = self.empty(shape, dtype)
        self._device.fill(a, value)
        return a

    def free_memory(self) -> int | None:
        return self._device.free_memory()

    # ---- Algorithm 6.3 ------------------------------------------------------------------------

    def pre_activation(
        self, f: Activation, m: int, n: int
    ) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        return self._products.pre_activation(f, m, n)

    def affine_activation(
        self, h_below: Array, W: Array, b: Array, f: Activation, z: Array, h: Array
    ) -> None:
        self._products.forward(h_below, W, b, f, z, h)

    def activation(self, f: Activation, z: Array, h: Array) -> None:
        self._kernels.activation(f, z, h)

    def loss(self, loss: Loss, y_hat: Array, y: Array, weights: Array, J: Array) -> None:
        self._kernels.loss(loss, y_hat, y, weights, J)

    # ---- Algorithm 6.4 ------------------------------------------------------------------------

    def output_gradient(
        self, loss: Loss, f: Activation, z: Array, h: Array, y: Array, weights: Array,
        scaling: Array, gh: Array, gz: Array, db: Array, J: Array,
    ) -> None:  # fmt: skip
        self._kernels.output_gradient(loss, f, z, h, y, weights, scaling, gh, gz, db, J)

    def weight_gradient(self, gz: Array, h_below: Array, dW: Array, factors: Array | None) -> None:
        self._device.gemm(
            gz, h_below, dW, transpose_a=True, compute=self.precision, factors=factors
        )

    def hidden_gradient(
        self, gz_above: Array, W_above: Array, f: Activation, z: Array, h: Array, gh: Array,
        gz: Array, db: Array,
    ) -> None:  # fmt: skip
        self._products.backward(gz_above, W_above, f, z, h, gh, gz, db)

    def activation_gradient(
        self, f: Activation, z: Array, h: Array, gh: Array, gz: Array, db: Array
    ) -> None:
        self._kernels.activation_gradient(f, z, h, gh, gz, db)

    def input_gradient(self, gz: Array, W: Array, gx: Array) -> None:
        last = W[..., W.shape[-1] - gx.shape[-1] :]
        self._device.gemm(gz, last, gx, compute=self.precision)

    def penalty(
        self, regularizer: Regularizer, theta: Array, split: int, J: Array, dtheta: Array | None
    ) -> None:
        if regularizer.active:
            update.penalty(self._kernels, regularizer, theta, split, J, dtheta)

    # ---- the update ---------------------------------------------------------------------------

    def add(self, part: Array, total: Array, overwrite: bool) -> None:
        n, arguments = len(part), (part, total, i64(len(part)), i32(overwrite))
        self._kernels.launch("add", "reduce.cu", self._kernels.flat(n), arguments)

    def clip(
        self, regularizer: Regularizer, theta: Array, dtheta: Array, split: int, max_norm: float,
        scaling: Array, control: Array, rounded: Array | None = None,
    ) -> None:  # fmt: skip
        update.clip(
            self._kernels, regularizer, theta, dtheta, split, max_norm, scaling, control, rounded,
            self.scales_loss,
        )  # fmt: skip

    def update(
        self, optimizer: Optimizer, regularizer: Regularizer, theta: Array, rounded: Array,
        dtheta: Array, slots: Array, split: int, scaling: Array, control: Array,
        part: tuple[int, int] | None = None, groups: Array | None = None, origin: int = 0,
    ) -> None:  # fmt: skip
        update.optimizer_step(
            self._kernels, optimizer, regularizer, theta, rounded, dtheta, slots, split, scaling,
            control, part, groups, origin,
        )  # fmt: skip

    def updates_in_product(
        self, optimizer: Optimizer, regularizer: Regularizer, slot_type: np.dtype[Any],
        shape: tuple[int, int],
    ) -> bool:  # fmt: skip
        return (
            self.precision == "bfloat16"
            and slot_type == self.dtype
            and regularizer.weight_decay() is not None
            and not any(width % tiles.ALIGNED for width in shape)
            and (source := tiles.weight_update(optimizer)) is not None
            and tiles.machine_code(source, self._device.capability) is not None
        )

    def weight_update(
        self, optimizer: Optimizer, regularizer: Regularizer, gz: Array, h_below: Array,
        theta: Array, rounded: Array, slots: Array, control: Array, part: tuple[int, int],
        factors: tuple[float, float],
    ) -> None:  # fmt: skip
        update.weight_update(
            self._device, optimizer, regularizer, gz, h_below, theta, rounded, slots, control, part,
            factors,
        )  # fmt: skip

    def orthogonalize(self, V: Array, scale: float, X: Array, A: Array, P: Array) -> None:
        multiply = partial(self._device.gemm, compute=self.precision)
        update.orthogonalize(self._kernels, multiply, V, scale, X, A, P)

    def average(
        self, theta: Array, mean: Array, decay: float, control: Array, rounded: Array | None = None
    ) -> None:
        update.average(self._kernels, theta, mean, decay, control, rounded)

    def round(self, theta: Array, rounded: Array, remainder: Array | None = None) -> None:
        if rounded.dtype != theta.dtype:
            update.round_theta(self._kernels, theta, rounded, remainder)

    def restore(self, theta: Array, rounded: Array, remainder: Array) -> None:
        update.restore(self._kernels, theta, rounded, remainder)

    # ---- minibatches --------------------------------------------------------------------------

    def gather(self, source: Array, index: Array, out: Array) -> None:
        self._kernels.gather(source, index, out)

    def feed(self, source: npt.NDArray[Any], rows: int, dtype: npt.DTypeLike) -> DeviceFeed:
        return DeviceFeed(self._device, source, rows, np.dtype(dtype), self._kernels.cast)

    def feed_memory(self, source: npt.NDArray[Any], rows: int, dtype: np.dtype[Any]) -> int:
        return 2 * rows * math.prod(source.shape[1:]) * transfer_dtype(source, dtype).itemsize

    def mean_weights(self, weights: Array, index: Array, out: Array) -> None:
        m = out.shape[-1]
        geometry = (1, 1, out.size // m), ONE_BLOCK[1]
        self._kernels.launch("mean_weights", "gather.cu", geometry, (weights, index, out, i64(m)))

    # ---- a step as a whole --------------------------------------------------------------------

    def begin(
        self, position: Array, order: Array, controls: Array, size: int, index: Array,
        control: Array, factors: Array, J: Array,
    ) -> None:  # fmt: skip
        rows, numbers = index.size, control.size
        self._kernels.launch(
            "begin", "step.cu", self._kernels.flat(rows, 1),
            (position, order, controls, index, control, factors, J,
             i64(size), i64(rows), i64(numbers), i64(J.size)),
        )  # fmt: skip

    def end(self, position: Array, J: Array, costs: Array) -> None:
        arguments = position, J, costs, i64(len(costs)), i64(J.size)
        self._kernels.launch("end", "step.cu", ONE_BLOCK, arguments)

    def compile(self, variants: Mapping[str, Sequence[Call]], name: str) -> Callable[[int], None]:
        """The first run enqueues call by call, which compiles kernels and plans products.

        The second run records the calls; it and all later ones replay the recording.
        """
        state: dict[str, Any] = {}
        together = any(shared(call) for call in next(iter(variants.values())))
        if together:  # all ranks do the same, unmeasured
            variants = dict([next(iter(variants.items()))])
        joined = {way: join(calls, self._kernels) for way, calls in variants.items()}

        def step() -> None:
            if "ran" not in state:
                self._device.first(next(iter(joined.values())), compare=not together)
            elif "replay" not in state:
                record = self._device.record
                ways = {way: partial(record, calls) for way, calls in joined.items()}
                if self._device.launches_dependently:
                    ways |= {
                        f"{way}, dependent launches": partial(record, calls, dependently=True)
                        for way, calls in joined.items()
                    }
                state["replay"] = self._device.fastest(name, ways)
            state["ran"] = True
            if "replay" in state:
                state["replay"]()

        def run(steps: int) -> None:
            for _ in range(steps):
                step()

        return run

    def synchronize(self) -> None:
        self._device.synchronize()

    # ---- memory -------------------------------------------------------------------------------

    def networks_at_a_time(self, widths: Sequence[int]) -> int:
        return self._kernels.networks_at_a_time(widths)

    def own_memory(self, widest: int) -> int:
        return self._device.reserved + self._kernels.scratch_bytes


def _on_current_gpu(precision: str) -> CudaBackend:
    """What a pickle of a CUDA backend becomes."""
    return CudaBackend(cuda.open_device(), precision)
