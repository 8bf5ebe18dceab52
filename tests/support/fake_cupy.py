"""A fake of the parts of `cupy` that `CudaDevice` uses: NumPy's memory, CuPy's strict checks.

It refuses what CUDA refuses while a stream is captured.
"""

import ctypes
import types

import numpy as np

from tests.support.fake_cublaslt import FakeCublasLt
from tests.support.harness.memory import aligned_empty


class Error(RuntimeError):
    pass


class OutOfMemoryError(MemoryError):
    pass


class CompileException(Exception):
    pass


def refuse_in_capture(call):
    if FakeCupy.recorded is not None:
        raise Error(f"cudaErrorStreamCaptureUnsupported: {call}")


class FakeArray(np.ndarray):
    """An array like CuPy's: its address is data.ptr, and `set` needs equal shapes and dtypes."""

    device = types.SimpleNamespace(id=0)

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.ctypes.data)

    def set(self, arr, stream=None):
        assert type(arr) is np.ndarray
        assert (arr.shape, arr.dtype) == (self.shape, self.dtype)
        assert arr.flags.c_contiguous
        if not (self.flags.c_contiguous or self.flags.f_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        refuse_in_capture("set")
        self.log.append(("set", stream))
        self[...] = arr


class FakeStream:
    """A stream is captured if it began the capture, or has waited for what is captured.

    Attributes:
        count: the pieces of captured work.
        seen: of each stream, how many pieces come before the next piece of this one.
    """

    capturing = False

    def is_capturing(self):
        return self.capturing

    def begin_capture(self, mode=None):
        assert FakeCupy.recorded is None
        self.capturing, FakeCupy.recorded, FakeCupy.captured = True, [], {self}
        self.count, self.seen = 0, {}

    def end_capture(self):
        recorded, FakeCupy.recorded = FakeCupy.recorded, None
        for stream in FakeCupy.captured:
            stream.capturing = False
        if any(self.seen.get(each, 0) < each.count for each in FakeCupy.captured - {self}):
            raise Error("cudaErrorStreamCaptureUnjoined")
        return FakeGraph(recorded)

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        assert non_blocking  # capturing into a graph needs it
        FakeCupy.streams += 1
        self.ptr = 76 + FakeCupy.streams  # the first stream is the device's own
        self.waited, self.count, self.seen = [], 0, {}

    def _work(self):
        """Note that work is enqueued."""
        if FakeCupy.recorded is not None and not self.capturing:
            raise Error(f"the work of stream {self.ptr} is not captured")
        self.count += 1

    def wait_event(self, event):
        FakeArray.log.append(("wait", self.ptr, event))
        self.waited.append(event.stream.ptr)
        if FakeCupy.recorded is not None and event.captured and not self.capturing:
            self.capturing, self.count, self.seen = True, 1, {}
            FakeCupy.captured.add(self)
        if self.capturing and not event.captured:
            raise Error("cudaErrorStreamCaptureIsolation")
        for stream, count in event.seen.items():
            self.seen[stream] = max(count, self.seen.get(stream, 0))

    def __enter__(self):
        FakeCupy.current = self

    def __exit__(self, *_):
        FakeCupy.current = None

    def synchronize(self):
        refuse_in_capture("streamSynchronize")
        FakeArray.log.append(("synchronize", self))


class FakeGraph:
    def __init__(self, recorded):
        self.recorded, self.uploaded = recorded, False

    def upload(self, stream=None):
        refuse_in_capture("graphUpload")
        self.uploaded = True

    def launch(self, stream=None):
        assert self.uploaded
        if "broken" in str(self.recorded):
            raise Error("cudaErrorLaunchFailure")
        FakeCupy.launched += self.recorded


class FakeEvent:
    """Records the time on the clock of the fake cublasLt; each launch adds `launch` µs."""

    lt, launch = None, 7.0

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self.timed = not disable_timing

    def record(self, stream=None):
        self.stream, self.captured = stream, stream.capturing
        self.seen = {**stream.seen, stream: stream.count}
        if self.timed:
            assert stream.ptr == 77
            self.at = self.lt.clock
        else:
            FakeArray.log.append(("record", stream.ptr, self))

    def synchronize(self):
        refuse_in_capture("eventSynchronize")
        FakeArray.log.append(("synchronize", "event" if self.timed else self))


class FakeModule:
    def __init__(self, code=None, *, path=None, options=()):
        if "no such text" in code:
            raise CompileException("error: no such text")
        if "no headers" in code:
            raise RuntimeError("Failed to find CUDA headers. Please install CUDA toolkit headers")
        assert code.startswith(("typedef", "#include"))
        assert code.isascii()
        FakeCupy.compiled.append((code, options))

    def get_function(self, name):
        def function(grid, block, args, shared_mem=0, stream=None, enable_cooperative_groups=False):
            assert type(grid) is type(block) is tuple
            # of Python's numbers, CuPy makes 8 bytes; a text stands for an array here
            assert all(isinstance(a, (FakeArray, np.generic, str)) for a in args)
            if isinstance(args[0], str) and args[0] == "bad":
                raise Error("CUDA_ERROR_INVALID_VALUE: invalid argument")
            stream._work()
            where = FakeCupy.launched if FakeCupy.recorded is None else FakeCupy.recorded
            where.append((name, grid, block, args, stream))
            if FakeEvent.lt:
                FakeEvent.lt.clock += FakeEvent.launch

        return types.SimpleNamespace(kernel=function)


class FakeCode:
    """A module of machine code."""

    def load(self, cubin):
        assert type(cubin) is bytes
        assert cubin.startswith(b"\x7fELF")

    def get_function(self, name):
        return FakeModule.get_function(None, name).kernel


class FakeCupy:
    """The module `cupy`."""

    ndarray, RawModule = FakeArray, FakeModule

    def __init__(self):
        FakeCupy.current, FakeCupy.compiled, FakeCupy.launched = None, [], []
        FakeArray.log, FakeCupy.recorded, FakeCupy.streams = [], None, 0
        FakeCupy.captured = set()
        self.limit, self.pool_limit = 1 << 40, 0
        self.current_device = 0
        self.cuda = types.SimpleNamespace(
            Stream=FakeStream,
            function=types.SimpleNamespace(Module=FakeCode),
            Event=FakeEvent,
            alloc_pinned_memory=self._pin,
            get_elapsed_time=lambda start_event, end_event: (end_event.at - start_event.at) / 1000,
            Device=lambda: types.SimpleNamespace(id=self.current_device),
            memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            compiler=types.SimpleNamespace(CompileException=CompileException),
            driver=types.SimpleNamespace(CUDADriverError=Error),
            runtime=types.SimpleNamespace(
                CUDARuntimeError=Error,
                getDeviceProperties=lambda device: {
                    "name": b"Test GPU",
                    "multiProcessorCount": 3,
                    "major": 9,
                    "minor": 0,
                },
                driverGetVersion=lambda: 13000,
                memcpyHostToDevice=1,
                memcpyAsync=self._copy,
                deviceSynchronize=self._device_synchronize,
                memGetInfo=lambda: (3000, 8000),
            ),
        )
        self.broken = None

    def empty(self, shape, dtype, order="C"):
        refuse_in_capture("malloc")
        assert FakeCupy.current  # memory of the pool belongs to the current stream
        if np.prod(shape) > self.limit:
            raise OutOfMemoryError("Out of memory allocating 9 bytes")
        made = aligned_empty(shape, dtype).view(FakeArray)
        made[...] = 0x7F
        return made

    def get_default_memory_pool(self):
        return types.SimpleNamespace(
            free_bytes=lambda: 500, used_bytes=lambda: 700, get_limit=lambda: self.pool_limit
        )

    def copyto(self, dst, src, casting="same_kind", where=None):
        assert FakeCupy.current
        assert isinstance(src, FakeArray)
        np.copyto(dst, src, casting=casting)

    def asnumpy(self, a, stream=None, order="C", out=None, *, blocking=True):
        refuse_in_capture("memcpyAsync")
        assert stream is FakeCupy.current
        FakeArray.log.append(("get", stream))
        return np.array(a)

    def _pin(self, size):
        if size > self.limit:
            raise Error("cudaErrorMemoryAllocation: out of memory")
        return bytearray(-(-size // 512) * 512)  # longer than requested, as in a memory pool

    def _copy(self, dst, src, size, kind, stream):
        refuse_in_capture("memcpyAsync")
        assert kind == 1
        FakeArray.log.append(("copy", stream, size))
        ctypes.memmove(dst, src, size)

    def _device_synchronize(self):
        refuse_in_capture("deviceSynchronize")
        if self.broken:
            raise self.broken
        FakeArray.log.append(("synchronize", "device"))


def with_clock(monkeypatch):
    """A fake cublasLt with algorithms of 9, 3 and 5 µs, whose clock the events read."""
    lt = FakeCublasLt(states=(0, 0, 0))
    lt.microseconds = {70: 9.0, 71: 3.0, 72: 5.0}
    monkeypatch.setattr("gpumlp.backends.cuda.device.FLUSH_BYTES", 64)
    monkeypatch.setattr(FakeEvent, "lt", lt)
    return lt


def arrays(device, *shapes, dtype="float32"):
    """Arrays of the device with random values."""
    rng = np.random.default_rng(1)
    made = [device.empty(shape, dtype) for shape in shapes]
    for a in made:
        device.upload(rng.normal(size=a.shape), a)
    return made
