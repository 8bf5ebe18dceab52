"""The GPU behind the device protocol: CuPy's memory and kernels on our own stream, and cublasLt."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends.cuda.cache import TuningCache
from gpumlp.backends.cuda.cublaslt import Blas
from gpumlp.backends.cuda.failures import ErrorTranslator
from gpumlp.backends.cuda.launching import Launches, dependent_launches
from gpumlp.backends.cuda.nccl import Nccl, cupy_nccl
from gpumlp.backends.cuda.plans import WORKSPACE_BYTES, Gemm, Operands
from gpumlp.backends.cuda.protocol import Epilogue, Kernel, TileKernel
from gpumlp.backends.cuda.source import KernelSource
from gpumlp.backends.cuda.streams import Uploading, enqueue, median_time
from gpumlp.backends.cuda.tiles import TileSource, flattened, loaded_code
from gpumlp.backends.cuda.tuning import Tuner, fuses
from gpumlp.backends.declaration import Call
from gpumlp.distributed.world import World
from gpumlp.errors import DeviceError
from gpumlp.io.types import Array

OPTIONS = ("-std=c++17",)  # CuPy adds the folders of the toolkit's headers
FLUSH_BYTES = 256 << 20  # twice the largest L2 cache of today
FAST_EPILOGUES = (9, 10)  # compute capabilities of data-centre GPUs: no second kernel for most


class CudaDevice(Uploading):
    """`gpumlp.backends.cuda.protocol.Device` on the current CUDA device.

    Without `stream`, its stream neither waits for the user's streams nor makes them wait, except in
    `synchronize`.

    Args:
        stream: a stream of CuPy to work on; None: a new one.
    """

    def __init__(self, cupy: Any, lt: Any, stream: Any = None) -> None:
        self._cupy = cupy
        cuda = cupy.cuda
        self._index = int(cuda.Device().id)
        properties = cuda.runtime.getDeviceProperties(self._index)
        self.name = properties["name"].decode()
        self._errors = ErrorTranslator(cuda, lt, self._index, self.name)
        self._stream = stream or cuda.Stream(non_blocking=True)
        self._copies = cuda.Stream(non_blocking=True)
        self.multiprocessors = self.usable = int(properties["multiProcessorCount"])
        self._modules: dict[KernelSource, Any] = {}
        self._tile_kernels: dict[TileSource, Any] = {}
        self._communicators: dict[World, Nccl] = {}
        self._workspace = self.empty((WORKSPACE_BYTES,), np.uint8)
        self.reserved = 2 * WORKSPACE_BYTES  # the second one is for the side stream
        major, minor = int(properties["major"]), int(properties["minor"])
        self.capability = f"{major}.{minor}"
        cache = TuningCache({
            "device": self.name, "capability": self.capability,
            "cublasLt": int(lt.get_version()), "driver": int(cuda.runtime.driverGetVersion()),
        })  # fmt: skip
        fused = fuses if major in FAST_EPILOGUES else lambda gemm: False
        self.tuner = Tuner(self._time, cache, lt.cuBLASLtError, fused)
        self._blas = Blas(lt, self._stream.ptr, self.address(self._workspace), self.tuner)
        dependent = dependent_launches(major, self.address)
        self._launches = Launches(lambda: self._stream, self._errors, dependent)
        self.launches_dependently = dependent is not None
        # Stream 1 of a recorded step has a workspace for products of its own, which exists before
        # a step is recorded, since recording cannot allocate.  Stream 2 has no products.
        side = self.empty((WORKSPACE_BYTES,), np.uint8)
        others = (cuda.Stream(non_blocking=True) for _ in range(2))
        self._branches = [(self._stream, self._workspace), *((each, side) for each in others)]

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        with self._errors(), self._stream:
            return self._cupy.empty(shape, dtype)  # CuPy aligns to 512 bytes

    def free_memory(self) -> int:
        with self._errors():
            pool = self._cupy.get_default_memory_pool()
            free = int(self._cupy.cuda.runtime.memGetInfo()[0]) + int(pool.free_bytes())
            limit = int(pool.get_limit())  # 0 if the user has set none
            return min(free, limit - int(pool.used_bytes())) if limit else free

    def owns(self, a: object) -> bool:
        return isinstance(a, self._cupy.ndarray) and int(a.device.id) == self._index

    def adopt(self, a: Any) -> Array:
        with self._errors(), self._stream:  # the other library orders its stream before this one
            if hasattr(a, "__dlpack__"):
                return self._cupy.from_dlpack(a)
            return self._cupy.asarray(a)  # by __cuda_array_interface__

    def address(self, a: Array) -> int:
        return int(a.data.ptr)

    def fill(self, a: Array, value: float) -> None:
        with self._errors(), self._stream:
            a.fill(value)

    def upload(self, a: npt.NDArray[Any], out: Array) -> None:
        host = np.ascontiguousarray(a, dtype=out.dtype)
        with self._errors():
            out.set(host.reshape(out.shape), stream=self._stream)
            self._stream.synchronize()  # `host` must live until the copy has finished

    def copy(self, a: Array, out: Array) -> None:
        with self._errors(), self._stream:
            self._cupy.copyto(out, a, casting="unsafe")

    def download(self, a: Array) -> npt.NDArray[Any]:
        with self._errors(), self._stream:
            host: npt.NDArray[Any] = self._cupy.asnumpy(a, stream=self._stream)
            self._stream.synchronize()
        return host

    def kernel(self, name: str, source: KernelSource) -> Kernel:
        with self._errors(f"compiling {source.file} for {source.dtype}"):
            if source not in self._modules:
                # comments have Greek letters, and CuPy may write the text in the locale's encoding
                text = source.text().encode("ascii", "replace").decode()
                self._modules[source] = self._cupy.RawModule(code=text, options=OPTIONS)
            function = self._modules[source].get_function(name).kernel

        return self._launches.of(function, name)

    def tile_kernel(self, source: TileSource) -> TileKernel:
        if source not in self._tile_kernels:
            with self._errors(f"loading the step of {source.name} within a product"):
                function = loaded_code(self._cupy, source, self.capability)
            self._tile_kernels[source] = self._launches.of(function, source.name, waits=False)
        launch = self._tile_kernels[source]
        return lambda blocks, each: launch((blocks, 1, 1), (1, 1, 1), flattened(each))

    def gemm(
        self, a: Array, b: Array, out: Array, *, transpose_a: bool = False,
        transpose_b: bool = False, compute: str, factors: Array | None = None,
        epilogue: Epilogue | None = None, fallback: Callable[[], None] | None = None,
    ) -> bool:  # fmt: skip
        arrays = (a, b, out, epilogue and epilogue.bias, epilogue and epilogue.aux, factors)
        at = Operands(*(0 if each is None else self.address(each) for each in arrays))
        gemm = Gemm.of(
            a, b, out, transpose_a, transpose_b, compute, factors, epilogue, at.alignment,
            self.usable if self.usable < self.multiprocessors else 0,
        )  # fmt: skip
        try:
            if gemm not in self._blas:
                self._prepare(gemm, at, out, fallback)
            if self._launches.rehearsing:
                return not self._blas.unfused(gemm)
            return self._blas(gemm, at, fallback)
        except self._errors.foreign as error:
            raise self._errors.failure(error, f"multiplying, {gemm}") from error

    def _prepare(
        self, gemm: Gemm, at: Operands, out: Array, fallback: Callable[[], None] | None
    ) -> None:
        """Make the plan of a new product."""
        if self._stream.is_capturing():
            raise DeviceError(
                f"the product {gemm} is new and cannot be planned while a step is captured; run "
                "the step once before you capture it"
            )
        trial = out
        if gemm.factors and self.tuner.measuring:  # trials must not change what beta multiplies
            trial = self.empty(out.shape, out.dtype)
            self.fill(trial, 0)
        rehearsing = self._launches.rehearsing
        self._launches.rehearsing = False  # what is measured runs
        try:
            self._blas.prepare(gemm, at._replace(out=self.address(trial)), fallback)
            if rehearsing and fallback is not None and self._blas.unfused(gemm):
                self._launches.rehearsing = True
                fallback()
        finally:
            self._launches.rehearsing = rehearsing

    def _time(self, work: Callable[[], None], quick: bool = False) -> float:
        """See `median_time`.

        quick: for the first step of a training, whose memory may be full.  It allocates nothing,
            overwrites a part of the L2 cache, and does fewer trials of long work.
        """
        own = self._workspace.view(np.float32)
        flushes = 4 * [own] if quick else [self.empty((FLUSH_BYTES,), np.uint8)]

        def flush(trial: int) -> None:
            for each in flushes:
                self.fill(each, trial)

        return median_time(self._cupy.cuda, self._stream, flush, work, quick)

    # ---- recorded steps -----------------------------------------------------------------------

    def fastest(
        self, name: str, variants: Mapping[str, Callable[[], Callable[[], None]]]
    ) -> Callable[[], None]:
        return self.tuner.fastest(name, variants)

    def first(self, calls: Sequence[Call], compare: bool = True) -> None:
        comparing = self.tuner.comparing
        self.tuner.training, self.tuner.comparing = True, comparing and compare
        try:
            for call in calls:
                call.work()
        finally:
            self.tuner.training, self.tuner.comparing = False, comparing

    def record(self, calls: Sequence[Call], dependently: bool = False) -> Callable[[], None]:
        if any(call.multiprocessors for call in calls):
            self._rehearse(calls)
        with self._errors("recording a step"):
            self._launches.dependently = dependently
            self._stream.begin_capture()
            try:
                self._enqueue(calls)
            except BaseException:
                with contextlib.suppress(*self._errors.foreign):  # the first error says more
                    self._stream.end_capture()
                raise
            finally:
                self._launches.dependently = False
            graph = self._stream.end_capture()
            graph.upload(self._stream)

        def replay() -> None:
            try:
                graph.launch(self._stream)
            except self._errors.foreign as error:
                raise self._errors.failure(error, "a recorded step") from error

        return replay

    def _rehearse(self, calls: Sequence[Call]) -> None:
        """Plan the products that have a limit of multiprocessors here for the first time."""
        self._launches.rehearsing = True
        try:
            for call in calls:
                self._enqueue_as(call)
                call.work()
        finally:
            self._launches.rehearsing = False
            self._enqueue_as(Call(self.synchronize))

    def _enqueue(self, calls: Sequence[Call]) -> None:
        """Enqueue each call on its stream."""
        try:
            streams = [stream for stream, _ in self._branches]
            enqueue(self._cupy.cuda, streams, calls, self._enqueue_as)
        finally:
            self._enqueue_as(Call(self.synchronize))

    def _enqueue_as(self, call: Call) -> None:
        """What is enqueued from now on has the stream and the multiprocessors of this call."""
        self.usable = call.multiprocessors or self.multiprocessors
        self._stream, workspace = self._branches[call.stream]
        self._blas.stream_and_workspace = self._stream.ptr, self.address(workspace)

    def synchronize(self) -> None:
        with self._errors():
            self._cupy.cuda.runtime.deviceSynchronize()

    # ---- several processes --------------------------------------------------------------------

    def exchange(
        self, world: World, source: Array, counts: tuple[int, ...], received: Array
    ) -> None:
        with self._errors("sending gradients to other GPUs"):
            self._communicator(world).exchange(source, counts, received, self._stream.ptr)

    def collect(self, world: World, whole: Array, counts: tuple[int, ...]) -> None:
        with self._errors("sending parameters to other GPUs"):
            self._communicator(world).collect(whole, counts, self._stream.ptr)

    def _communicator(self, world: World) -> Nccl:
        if world not in self._communicators:
            nccl = cupy_nccl()
            self._errors.foreign = (*self._errors.foreign, nccl.NcclError)
            self._communicators[world] = Nccl(nccl, world)
        return self._communicators[world]
