"""`CudaDevice` against a stand-in for CuPy that has NumPy's memory and CuPy's strictness."""

import types

import numpy as np
import pytest
from fake_cublaslt import FakeCublasLt

import gpumlp
from gpumlp.cuda.device import CudaDevice
from gpumlp.cuda.source import KernelSource


class Error(RuntimeError):
    pass


class OutOfMemoryError(MemoryError):
    pass


class CompileException(Exception):
    pass


class FakeArray(np.ndarray):
    """CuPy's array: its address is data.ptr, and `set` takes equal shape, dtype and memory."""

    device = types.SimpleNamespace(id=0)

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.ctypes.data)

    def set(self, host, stream=None):
        assert type(host) is np.ndarray
        assert (host.shape, host.dtype) == (self.shape, self.dtype)
        assert host.flags.c_contiguous
        self.log.append(("set", stream))
        self[...] = host


class FakeStream:
    ptr = 77

    def __init__(self, non_blocking=False):
        assert non_blocking  # capture into a graph needs it

    def __enter__(self):
        FakeCupy.current = self

    def __exit__(self, *_):
        FakeCupy.current = None

    def synchronize(self):
        FakeArray.log.append(("synchronize", self))

    def begin_capture(self):
        assert FakeCupy.capturing is None
        FakeCupy.capturing = []

    def end_capture(self):
        recorded, FakeCupy.capturing = FakeCupy.capturing, None
        return FakeGraph(recorded)


class FakeGraph:
    def __init__(self, recorded):
        self.recorded, self.uploaded = recorded, False

    def upload(self, stream):
        self.uploaded = True

    def launch(self, stream):
        assert self.uploaded
        if "broken" in str(self.recorded):
            raise Error("cudaErrorLaunchFailure")
        FakeCupy.launched += self.recorded


class FakeModule:
    def __init__(self, *, code, options):
        if "no such text" in code:
            raise CompileException("error: no such text")
        assert code.startswith("typedef")
        assert code.isascii()
        FakeCupy.compiled.append((code, options))

    def get_function(self, name):
        def function(grid, block, arguments, *, stream):
            if arguments == ("bad",):
                raise Error("CUDA_ERROR_INVALID_VALUE: invalid argument")
            where = FakeCupy.launched if FakeCupy.capturing is None else FakeCupy.capturing
            where.append((name, grid, block, arguments, stream))

        return types.SimpleNamespace(kernel=function)


class FakeCupy:
    """The part of the module `cupy` that `CudaDevice` uses."""

    ndarray, RawModule = FakeArray, FakeModule

    def __init__(self):
        FakeCupy.current, FakeCupy.compiled, FakeCupy.launched = None, [], []
        FakeArray.log, FakeCupy.capturing = [], None
        self.limit = 1 << 40
        self.current_device = 0
        self.cuda = types.SimpleNamespace(
            Stream=FakeStream,
            Device=lambda: types.SimpleNamespace(id=self.current_device),
            memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            compiler=types.SimpleNamespace(CompileException=CompileException),
            driver=types.SimpleNamespace(CUDADriverError=Error),
            runtime=types.SimpleNamespace(
                CUDARuntimeError=Error,
                getDeviceProperties=lambda i: {"name": b"Test GPU", "multiProcessorCount": 3},
                deviceSynchronize=self._device_synchronize,
            ),
        )
        self.broken = None

    def empty(self, shape, dtype):
        assert FakeCupy.current  # memory of the pool belongs to the stream that asked for it
        if np.prod(shape) > self.limit:
            raise OutOfMemoryError("Out of memory allocating 9 bytes")
        return np.full(shape, 0x7F, dtype).view(FakeArray)

    def copyto(self, out, a, casting):
        assert FakeCupy.current
        assert isinstance(a, FakeArray)
        np.copyto(out, a, casting=casting)

    def asnumpy(self, a, stream):
        assert stream is FakeCupy.current
        FakeArray.log.append(("get", stream))
        return np.array(a)

    def _device_synchronize(self):
        if self.broken:
            raise self.broken
        FakeArray.log.append(("synchronize", "device"))


@pytest.fixture
def cupy():
    return FakeCupy()


@pytest.fixture
def device(cupy):
    return CudaDevice(cupy, FakeCublasLt())


def test_it_says_what_it_is(device):
    assert (device.name, device.multiprocessors) == ("Test GPU", 3)


@pytest.mark.parametrize("dtype", ["float64", "float32", "int32"])
def test_values_go_up_and_come_down(device, dtype):
    host = np.asfortranarray(np.arange(12, dtype=">f8").reshape(3, 4))
    a = device.empty((3, 4), dtype)
    assert device.owns(a)
    assert not device.owns(host)
    device.upload(host, a)
    b = device.empty((2, 4), "float64")
    device.copy(a[1:], b)
    FakeArray.log.clear()
    np.testing.assert_array_equal(device.download(b), host[1:])
    assert type(device.download(b)) is np.ndarray
    assert FakeArray.log[0][0] == "get"
    device.fill(a, 2)
    assert (device.download(a) == 2).all()


def test_an_upload_is_over_before_its_source_may_go(device):
    FakeArray.log.clear()
    device.upload(np.ones(3), device.empty((3,), "float64"))
    assert [what for what, _ in FakeArray.log] == ["set", "synchronize"]


def test_a_kernel_is_compiled_once_and_launched_on_the_stream(device):
    source = KernelSource("reduce.cu", "float32")
    total = device.kernel("total", source)
    device.kernel("column_total", source)
    total((1, 1), (256, 1), ("arguments",))
    [(code, options)] = FakeCupy.compiled
    assert options == ("-std=c++17",)
    assert "column_total" in code
    [(name, grid, block, arguments, stream)] = FakeCupy.launched
    assert (name, grid, block, arguments) == ("total", (1, 1), (256, 1), ("arguments",))
    assert stream.ptr == 77


def test_a_recorded_step_is_launched_as_a_graph(device):
    total = device.kernel("total", KernelSource("reduce.cu", "float32"))
    work = [("first",), ("second",)]

    replay = device.record(lambda: [total((1, 1), (256, 1), each) for each in work] and None)
    assert not FakeCupy.launched
    for _ in range(2):
        replay()
    assert [arguments for *_, arguments, _ in FakeCupy.launched] == work * 2


def test_an_error_while_recording_ends_the_recording(device):
    total = device.kernel("total", KernelSource("reduce.cu", "float32"))
    with pytest.raises(gpumlp.DeviceError, match="launching total: CUDA_ERROR_INVALID_VALUE"):
        device.record(lambda: total((1, 1), (256, 1), ("bad",)))
    with pytest.raises(ZeroDivisionError):
        device.record(lambda: 1 / 0)
    replay = device.record(lambda: total((1, 1), (256, 1), ("broken",)))
    with pytest.raises(gpumlp.DeviceError, match="a recorded step: cudaErrorLaunchFailure"):
        replay()


def test_a_product_is_row_major(device):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
    on = [device.empty(m.shape, "float64") for m in (a, b)]
    for host, there in zip((a, b), on, strict=True):
        device.upload(host, there)
    out = device.empty((4, 5), "float64")
    device.gemm(*on, out, transpose_b=True, compute="float64")
    np.testing.assert_allclose(device.download(out), a @ b.T, rtol=1e-14)


def test_errors_are_device_errors(cupy, device):
    cupy.limit = 10
    with pytest.raises(gpumlp.DeviceError, match="out of GPU memory on Test GPU.*smaller batch"):
        device.empty((11,), "float32")
    with pytest.raises(gpumlp.DeviceError, match="compiling loss.cu for float32: error: no such"):
        device.kernel("loss", KernelSource("loss.cu", "float32", "no such text"))
    cupy.broken = Error("cudaErrorIllegalAddress: an illegal memory access")
    with pytest.raises(gpumlp.DeviceError, match="IllegalAddress.*started anew") as caught:
        device.synchronize()
    assert caught.value.__cause__ is cupy.broken
    kernel = device.kernel("total", KernelSource("reduce.cu", "float32"))
    with pytest.raises(gpumlp.DeviceError, match="launching total: CUDA_ERROR_INVALID_VALUE"):
        kernel((1, 1), (256, 1), ("bad",))


def test_cublaslt_errors_are_device_errors(cupy):
    device = CudaDevice(cupy, FakeCublasLt(states=()))
    a, b, out = (device.empty((2, 2), "float32") for _ in range(3))
    with pytest.raises(gpumlp.DeviceError, match="multiplying, Gemm.*NOT_SUPPORTED"):
        device.gemm(a, b, out, compute="float32")


def test_work_on_another_gpu_is_refused(cupy, device):
    a = device.empty((2,), "float32")
    a.device = types.SimpleNamespace(id=1)
    assert not device.owns(a)
    cupy.current_device = 1
    for work in (device.synchronize, lambda: device.empty((1,), "float32")):
        with pytest.raises(
            gpumlp.DeviceError, match=r"on GPU 0 but the current one is 1; .*Device\(0\)"
        ):
            work()
