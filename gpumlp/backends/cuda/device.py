"""The real device behind the seam: CuPy's memory and kernels on a stream of our own, cublasLt."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends.cuda.cache import TuningCache
from gpumlp.backends.cuda.copies import StreamOfCopies
from gpumlp.backends.cuda.cublaslt import Blas
from gpumlp.backends.cuda.failures import Errors
from gpumlp.backends.cuda.headers import include_options
from gpumlp.backends.cuda.plans import WORKSPACE_BYTES, Gemm, Operands
from gpumlp.backends.cuda.protocol import Copies, DeviceArray, Epilogue, Kernel
from gpumlp.backends.cuda.source import KernelSource
from gpumlp.backends.cuda.timing import Timer
from gpumlp.backends.cuda.tuning import Tuner
from gpumlp.errors import DeviceError

FUSES_WELL = (9, 10)  # compute capabilities of data centres, whose epilogues are no second kernel


class CudaDevice:
    """`gpumlp.backends.cuda.protocol.Device` on the current CUDA device.

    Its own stream does not wait for the user's, nor they for it: `synchronize` does both.  Where
    one of CuPy's is given, that is the one.
    """

    def __init__(self, cupy: Any, lt: Any, stream: Any = None) -> None:
        self._cupy = cupy
        cuda = cupy.cuda
        self._index = int(cuda.Device().id)
        properties = cuda.runtime.getDeviceProperties(self._index)
        self.name = properties["name"].decode()
        self._errors = Errors(cuda, lt, self._index, self.name)
        self._stream = stream or cuda.Stream(non_blocking=True)
        self.copies: Copies = StreamOfCopies(cuda, self._stream, self._errors)
        self.multiprocessors = int(properties["multiProcessorCount"])
        self._modules: dict[KernelSource, Any] = {}
        self._workspace = self.empty((WORKSPACE_BYTES,), np.uint8)
        self.reserved = 2 * WORKSPACE_BYTES  # the second one is for `beside`
        major, minor = int(properties["major"]), int(properties["minor"])
        cache = TuningCache({
            "device": self.name, "capability": f"{major}.{minor}",
            "cublasLt": int(lt.get_version()), "driver": int(cuda.runtime.driverGetVersion()),
        })  # fmt: skip
        self.tuner = Tuner(
            Timer(cupy, self, self._stream), cache, lt.cuBLASLtError, fuse=major in FUSES_WELL
        )
        self._blas = Blas(lt, self._stream.ptr, self.address(self._workspace), self.tuner)
        # for `beside` and `defer`: streams, and a workspace that is there before one is recorded
        self._side, self._last = (cuda.Stream(non_blocking=True) for _ in range(2))
        self._apart = self._trailing = False
        self._forked: Any = None
        self._side_workspace = self.empty((WORKSPACE_BYTES,), np.uint8)
        self._side_lane = self.address(self._side_workspace), self._side.ptr

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        with self._errors(), self._stream:
            return self._cupy.empty(shape, dtype)  # CuPy aligns to 512 bytes

    def free_memory(self) -> int:
        with self._errors():
            pool = self._cupy.get_default_memory_pool()
            free = int(self._cupy.cuda.runtime.memGetInfo()[0]) + int(pool.free_bytes())
            limit = int(pool.get_limit())  # 0 where the user has set none
            return min(free, limit - int(pool.used_bytes())) if limit else free

    def owns(self, a: object) -> bool:
        return isinstance(a, self._cupy.ndarray) and int(a.device.id) == self._index

    def adopt(self, a: Any) -> DeviceArray:
        with self._errors(), self._stream:  # which the other library's stream is made to precede
            if hasattr(a, "__dlpack__"):
                return self._cupy.from_dlpack(a)
            return self._cupy.asarray(a)  # by __cuda_array_interface__

    def address(self, a: DeviceArray) -> int:
        return int(a.data.ptr)

    def fill(self, a: DeviceArray, value: float) -> None:
        with self._errors(), self._stream:
            a.fill(value)

    def upload(self, a: npt.NDArray[Any], out: DeviceArray) -> None:
        host = np.ascontiguousarray(a, dtype=out.dtype)
        with self._errors():
            out.set(host.reshape(out.shape), stream=self._stream)
            self._stream.synchronize()  # `host` may go now

    def copy(self, a: DeviceArray, out: DeviceArray) -> None:
        with self._errors(), self._stream:
            self._cupy.copyto(out, a, casting="unsafe")

    def download(self, a: DeviceArray) -> npt.NDArray[Any]:
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
                function(grid, block, arguments, stream=self._stream)
            except self._errors.foreign as error:
                raise self._errors.failure(error, f"launching {name}") from error

        return launch

    def gemm(
        self, a: DeviceArray, b: DeviceArray, out: DeviceArray, *,
        transpose_a: bool = False, transpose_b: bool = False, compute: str,
        factors: DeviceArray | None = None, epilogue: Epilogue | None = None,
        otherwise: Callable[[], None] | None = None,
    ) -> bool:  # fmt: skip
        gemm = Gemm.of(a, b, out, transpose_a, transpose_b, compute, factors, epilogue)
        arrays = (a, b, out, epilogue and epilogue.bias, epilogue and epilogue.aux, factors)
        at = Operands(*(0 if each is None else self.address(each) for each in arrays))
        try:
            if gemm not in self._blas:
                self._prepare(gemm, at, out, otherwise)
            return self._blas(gemm, at, otherwise)
        except self._errors.foreign as error:
            raise self._errors.failure(error, f"multiplying, {gemm}") from error

    def _prepare(
        self, gemm: Gemm, at: Operands, out: DeviceArray, otherwise: Callable[[], None] | None
    ) -> None:
        """A plan for a product that was not met before."""
        if self._stream.is_capturing():
            raise DeviceError(
                f"the product {gemm} is new, and a step under capture can plan none: run the step "
                "once before it is captured"
            )
        trial = out
        if gemm.factors and self.tuner.measuring:  # trials must not change what beta multiplies
            trial = self.empty(out.shape, out.dtype)
            self.fill(trial, 0)
        self._blas.prepare(gemm, at._replace(out=self.address(trial)), otherwise)

    def fork(self) -> None:
        self._forked = self._mark(self._stream)

    def on_side_stream(self, work: Callable[[], None]) -> None:
        main, lane = self._stream, self._blas.lane
        self._side.wait_event(self._forked)
        self._stream, self._blas.lane = self._side, self._side_lane
        try:
            work()
        finally:
            self._stream, self._blas.lane = main, lane
        self._apart = True

    def defer(self, work: Callable[[], None]) -> None:
        main = self._stream
        self._last.wait_event(self._mark(main))
        if self._apart:
            self._last.wait_event(self._mark(self._side))
        self._stream = self._last
        try:
            work()
        finally:
            self._stream = main
        self._trailing = True

    def join(self) -> None:
        if self._apart:
            self._stream.wait_event(self._mark(self._side))
            self._apart = False

    def _mark(self, stream: Any) -> Any:
        """An event: all that the stream was handed in so far."""
        event = self._cupy.cuda.Event(disable_timing=True)
        event.record(stream)
        return event

    def fastest(
        self, what: str, ways: Mapping[str, Callable[[], Callable[[], None]]]
    ) -> Callable[[], None]:
        return self.tuner.fastest(what, ways)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        with self._errors("recording a step"):
            self._stream.begin_capture()
            try:
                work()
                self.join()
                if self._trailing:
                    self._stream.wait_event(self._mark(self._last))
            except BaseException:
                with contextlib.suppress(*self._errors.foreign):  # the first error tells more
                    self._stream.end_capture()
                raise
            finally:
                self._apart = self._trailing = False
            graph = self._stream.end_capture()
            graph.upload(self._stream)

        def replay() -> None:
            try:
                graph.launch(self._stream)
            except self._errors.foreign as error:
                raise self._errors.failure(error, "a recorded step") from error

        return replay

    def synchronize(self) -> None:
        with self._errors():
            self._cupy.cuda.runtime.deviceSynchronize()
