"""The GPU behind the device protocol: CuPy's memory and kernels on our own stream, and cublasLt."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends.cuda.cache import TuningCache
from gpumlp.backends.cuda.cublaslt import Blas
from gpumlp.backends.cuda.dependent import dependent_launches
from gpumlp.backends.cuda.failures import ErrorTranslator
from gpumlp.backends.cuda.plans import WORKSPACE_BYTES, Gemm, Operands
from gpumlp.backends.cuda.protocol import Epilogue, Event, Kernel
from gpumlp.backends.cuda.source import KernelSource, include_options
from gpumlp.backends.cuda.tuning import Tuner
from gpumlp.backends.declaration import Call
from gpumlp.errors import DeviceError
from gpumlp.io.types import Array

FLUSH_BYTES = 256 << 20  # twice the largest L2 cache of today
TRIALS = 5  # of one measurement
FAST_EPILOGUES = (9, 10)  # compute capabilities of data-centre GPUs: no second kernel for them


class CudaDevice:
    """`gpumlp.backends.cuda.protocol.Device` on the current CUDA device.

    Without `stream`, its stream neither waits for the user's streams nor makes them wait, except in
    `synchronize`.

    Args:
        cupy: the module.
        lt: the module `nvmath.bindings.cublasLt`.
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
        self.multiprocessors = int(properties["multiProcessorCount"])
        self._modules: dict[KernelSource, Any] = {}
        self._workspace = self.empty((WORKSPACE_BYTES,), np.uint8)
        self.reserved = 2 * WORKSPACE_BYTES  # the second one is for the side stream
        major, minor = int(properties["major"]), int(properties["minor"])
        cache = TuningCache({
            "device": self.name, "capability": f"{major}.{minor}",
            "cublasLt": int(lt.get_version()), "driver": int(cuda.runtime.driverGetVersion()),
        })  # fmt: skip
        self.tuner = Tuner(self._time, cache, lt.cuBLASLtError, fuse=major in FAST_EPILOGUES)
        self._blas = Blas(lt, self._stream.ptr, self.address(self._workspace), self.tuner)
        self._dependent = dependent_launches(major, self.address)
        self.launches_dependently, self._dependently = self._dependent is not None, False
        # Stream 1 of a recorded step has a workspace for products of its own, which exists before
        # a step is recorded, since recording cannot allocate.  Stream 2 has no products.
        side = self.empty((WORKSPACE_BYTES,), np.uint8)
        self._branches = [
            (self._stream, self._workspace),
            (cuda.Stream(non_blocking=True), side), (cuda.Stream(non_blocking=True), side),
        ]  # fmt: skip

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
                options = ("-std=c++17", *include_options(source.headers))
                self._modules[source] = self._cupy.RawModule(code=text, options=options)
            function = self._modules[source].get_function(name).kernel

        def launch(
            grid: tuple[int, int], block: tuple[int, int], arguments: tuple[Any, ...]
        ) -> None:
            try:
                if self._dependent and self._dependently:
                    pointer = int(function.ptr)
                    self._dependent(pointer, grid, block, arguments, int(self._stream.ptr))
                else:
                    function(grid, block, arguments, stream=self._stream)
            except self._errors.foreign as error:
                raise self._errors.failure(error, f"launching {name}") from error

        return launch

    def gemm(
        self, a: Array, b: Array, out: Array, *, transpose_a: bool = False,
        transpose_b: bool = False, compute: str, factors: Array | None = None,
        epilogue: Epilogue | None = None, fallback: Callable[[], None] | None = None,
    ) -> bool:  # fmt: skip
        gemm = Gemm.of(a, b, out, transpose_a, transpose_b, compute, factors, epilogue)
        arrays = (a, b, out, epilogue and epilogue.bias, epilogue and epilogue.aux, factors)
        at = Operands(*(0 if each is None else self.address(each) for each in arrays))
        try:
            if gemm not in self._blas:
                self._prepare(gemm, at, out, fallback)
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
        self._blas.prepare(gemm, at._replace(out=self.address(trial)), fallback)

    def _time(self, work: Callable[[], None]) -> float:
        """The median time in µs that the stream needs for what `work` enqueues.

        The L2 cache is overwritten before each trial, because other work would also overwrite it in
        a large network.  Meanwhile the host enqueues all of the work: its time does not count.
        """
        cuda, flush, times = self._cupy.cuda, self.empty((FLUSH_BYTES,), np.uint8), []
        work()  # once before, so that kernels and plans exist
        for trial in range(TRIALS):
            start, end = cuda.Event(), cuda.Event()
            self.fill(flush, trial)
            start.record(self._stream)
            work()
            end.record(self._stream)
            end.synchronize()
            times.append(1000 * cuda.get_elapsed_time(start, end))
        return float(np.median(times))

    # ---- recorded steps -----------------------------------------------------------------------

    def fastest(
        self, name: str, variants: Mapping[str, Callable[[], Callable[[], None]]]
    ) -> Callable[[], None]:
        return self.tuner.fastest(name, variants)

    def record(self, calls: Sequence[Call], dependently: bool = False) -> Callable[[], None]:
        with self._errors("recording a step"):
            self._dependently = dependently
            self._stream.begin_capture()
            try:
                self._enqueue(calls)
            except BaseException:
                with contextlib.suppress(*self._errors.foreign):  # the first error says more
                    self._stream.end_capture()
                raise
            finally:
                self._dependently = False
            graph = self._stream.end_capture()
            graph.upload(self._stream)

        def replay() -> None:
            try:
                graph.launch(self._stream)
            except self._errors.foreign as error:
                raise self._errors.failure(error, "a recorded step") from error

        return replay

    def _enqueue(self, calls: Sequence[Call]) -> None:
        """Enqueue each call on its stream; the main stream waits for the others at the end."""
        main = self._branches[0]
        awaited = {i for call in calls for i in call.after}
        start, used = self._end_of(main[0]), {0}
        ends: dict[int, Event] = {}
        try:
            for i, call in enumerate(calls):
                stream, workspace = self._branches[call.stream]
                for event in [ends[j] for j in call.after] or [start] * (call.stream not in used):
                    stream.wait_event(event)
                used.add(call.stream)
                self._stream = stream  # the methods above enqueue on self._stream
                self._blas.stream_and_workspace = stream.ptr, self.address(workspace)
                call.work()
                if i in awaited:
                    ends[i] = self._end_of(stream)
        finally:
            self._stream = main[0]
            self._blas.stream_and_workspace = main[0].ptr, self.address(main[1])
        for i in used - {0}:
            main[0].wait_event(self._end_of(self._branches[i][0]))

    def synchronize(self) -> None:
        with self._errors():
            self._cupy.cuda.runtime.deviceSynchronize()

    # ---- uploads while the device computes ----------------------------------------------------

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        dtype = np.dtype(dtype)
        size = prod(shape) * dtype.itemsize
        with self._errors(f"pinning {size:,} bytes of host memory"):
            memory = self._cupy.cuda.alloc_pinned_memory(size)
        return np.frombuffer(memory, np.uint8, size).view(dtype).reshape(shape)

    def upload_async(self, host: npt.NDArray[Any], out: Array, after: Event) -> Event:
        runtime = self._cupy.cuda.runtime
        with self._errors("an upload"):
            self._copies.wait_event(after)
            runtime.memcpyAsync(
                int(out.data.ptr), host.ctypes.data, host.nbytes, runtime.memcpyHostToDevice,
                self._copies.ptr,
            )  # fmt: skip
            return self._end_of(self._copies)

    def mark(self) -> Event:
        with self._errors():
            return self._end_of(self._stream)

    def follow(self, event: Event) -> None:
        with self._errors():
            self._stream.wait_event(event)

    def wait(self, event: Event) -> None:
        with self._errors():
            event.synchronize()

    def _end_of(self, stream: Any) -> Event:
        """An event at the end of all work enqueued on the stream so far."""
        event = self._cupy.cuda.Event(disable_timing=True)
        event.record(stream)
        return event
