"""Each reason why a GPU cannot be used gives one clear error."""

import sys
import types

import pytest

import gpumlp
from gpumlp.backends.cuda import opening


class CudaRuntimeError(RuntimeError):
    pass


class LtError(Exception):
    pass


def fake_cupy(*, driver=13000, devices=1, count_error=None, nvrtc_error=None):
    def count():
        if count_error:
            raise CudaRuntimeError(count_error)
        return devices

    def nvrtc_version():
        if nvrtc_error:
            raise nvrtc_error
        return (13, 0)

    runtime = types.SimpleNamespace(
        driverGetVersion=lambda: driver, getDeviceCount=count, CUDARuntimeError=CudaRuntimeError
    )
    cuda = types.SimpleNamespace(
        runtime=runtime,
        nvrtc=types.SimpleNamespace(getVersion=nvrtc_version),
        Device=lambda: types.SimpleNamespace(id=0),
    )
    module = types.ModuleType("cupy")
    module.cuda = cuda
    return module


def fake_nvmath(monkeypatch, error=None):
    def get_version():
        if error:
            raise error
        return 130000

    bindings = types.ModuleType("nvmath.bindings")
    bindings.cublasLt = types.SimpleNamespace(get_version=get_version, cuBLASLtError=LtError)
    monkeypatch.setitem(sys.modules, "nvmath", types.ModuleType("nvmath"))
    monkeypatch.setitem(sys.modules, "nvmath.bindings", bindings)


@pytest.fixture(autouse=True)
def _fresh():
    device = opening._device  # which a test may replace
    device.cache_clear()
    yield
    device.cache_clear()


def reason(monkeypatch, cupy):
    """The error message of backend="cupy" with this CuPy; "auto" uses the CPU."""
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(gpumlp.DeviceError) as caught:
        gpumlp.MLP([2, 1], loss="squared_error", backend="cupy")
    message = str(caught.value)
    assert "\n" not in message
    assert 'backend="numpy"' in message
    assert gpumlp.MLP([2, 1], loss="squared_error", backend="auto").backend.on_host
    return message


def test_no_cupy(monkeypatch):
    assert 'pip install "gpumlp[cuda13]"' in reason(monkeypatch, None)


def test_no_driver(monkeypatch):
    cupy = fake_cupy(driver=0, count_error="cudaErrorInsufficientDriver: too old")
    assert "no NVIDIA driver is installed" in reason(monkeypatch, cupy)


def test_old_driver(monkeypatch):
    cupy = fake_cupy(driver=11000, count_error="cudaErrorInsufficientDriver: too old")
    message = reason(monkeypatch, cupy)
    assert "cudaErrorInsufficientDriver" in message
    assert '"gpumlp[cuda12]" for a driver older than 580), update the driver' in message


@pytest.mark.parametrize("how", [{"devices": 0}, {"count_error": "cudaErrorNoDevice: none"}])
def test_no_device(monkeypatch, how):
    message = reason(monkeypatch, fake_cupy(**how))
    assert "offers no GPU" in message
    assert "CUDA_VISIBLE_DEVICES" in message


def test_no_nvrtc(monkeypatch):
    message = reason(monkeypatch, fake_cupy(nvrtc_error=OSError("libnvrtc.so not found")))
    assert "NVRTC cannot be loaded (libnvrtc.so not found)" in message


def test_no_nvmath(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvmath", None)
    monkeypatch.setitem(sys.modules, "nvmath.bindings", None)
    assert "nvmath-python" in reason(monkeypatch, fake_cupy())


def test_no_cublaslt(monkeypatch):
    fake_nvmath(monkeypatch, error=RuntimeError("libcublasLt.so.13 not found\nand more"))
    message = reason(monkeypatch, fake_cupy())
    assert "cublasLt cannot be loaded (libcublasLt.so.13 not found)" in message


def test_busy_device(monkeypatch):
    """For example, another program uses the GPU exclusively."""
    fake_nvmath(monkeypatch)

    def busy(*_):
        raise CudaRuntimeError("cudaErrorDevicesUnavailable: busy\nand more")

    monkeypatch.setattr(opening, "CudaDevice", busy)
    message = reason(monkeypatch, fake_cupy())
    assert "the GPU cannot be used (cudaErrorDevicesUnavailable: busy)" in message


def test_one_device_for_each_stream(monkeypatch):
    """CuPy gets the handle of another library's stream by the stream protocol."""
    cupy = fake_cupy()
    cupy.cuda.Stream = types.SimpleNamespace(from_external=lambda s: ("view", s.__cuda_stream__()))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    fake_nvmath(monkeypatch)
    monkeypatch.setattr(opening, "CudaDevice", lambda cupy, lt, stream: [stream])
    own = opening.open_device()
    assert own == [None]
    default, other = opening.open_device(0), opening.open_device(77)  # 0: CUDA's default stream
    assert (default, other) == ([("view", (0, 0))], [("view", (0, 77))])
    assert opening.open_device(77) is other
    assert opening.open_device() is own


@pytest.mark.parametrize(("devices", "index"), [(1, 0), (4, 3), (2, 1)])
def test_each_process_of_a_machine_uses_its_own_gpu(monkeypatch, devices, index):
    used, opened = [], []
    cupy = fake_cupy(devices=devices)
    cupy.cuda.Device = lambda i=None: types.SimpleNamespace(
        id=used[-1] if used else 0, use=lambda: used.append(i)
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    fake_nvmath(monkeypatch)
    monkeypatch.setattr(opening, "_device", lambda number, stream: opened.append(number))
    monkeypatch.setattr(
        opening.distributed, "made", lambda: types.SimpleNamespace(size=4, local_rank=3)
    )
    opening.open_device()
    assert opened == [index]
    opening.open_device(stream=7)  # another library's, on the device that it has chosen
    assert used == [index]
