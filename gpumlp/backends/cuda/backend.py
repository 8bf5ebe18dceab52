"""The CUDA backend: the operations, written with the calls of `gpumlp.backends.cuda.protocol`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends import cuda
from gpumlp.backends.cuda.feed import DeviceFeed, transfer_dtype
from gpumlp.backends.cuda.joining import CudaJoining, shared
from gpumlp.backends.cuda.kernels import ONE_BLOCK, Kernels, i32, i64
from gpumlp.backends.cuda.plans import COMPUTE_TYPE
from gpumlp.backends.cuda.protocol import Device
from gpumlp.backends.cuda.sharing import CudaSharing
from gpumlp.backends.cuda.source import dtype_of
from gpumlp.backends.cuda.stages import CudaStages
from gpumlp.backends.cuda.theta import CudaTheta
from gpumlp.backends.declaration import Call
from gpumlp.backends.operations import Backend
from gpumlp.io.types import Array


class CudaBackend(CudaJoining, CudaSharing, CudaStages, CudaTheta, Backend):
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
        self._written_masks = set()

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

    # ---- minibatches --------------------------------------------------------------------------

    def gather(self, source: Array, index: Array, out: Array) -> None:
        kernels, rows = self._kernels, index.size
        cols = 1 if out.ndim == index.ndim else out.shape[-1]
        pack = kernels.pack_of(cols, source, out)
        geometry = kernels.tile(rows, cols, pack)
        arguments = source, index, out, i64(rows), i64(cols), i32(pack > 1)
        kernels.launch("gather", "gather.cu", geometry, arguments, dtype=out.dtype.name)

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
        joined = {way: self._joined(calls) for way, calls in variants.items()}

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
