"""`CudaDevice` with fakes for CuPy and cublasLt."""

import sys
import types
from functools import partial

import ml_dtypes
import numpy as np
import pytest

import gpumlp
from gpumlp.backends.cuda import source, tiles
from gpumlp.backends.cuda.device import CudaDevice
from gpumlp.backends.cuda.protocol import Epilogue
from gpumlp.backends.cuda.source import KernelSource
from gpumlp.backends.declaration import Call
from gpumlp.errors import OutOfMemoryError
from tests.support.fake_cublaslt import FakeCublasLt
from tests.support.fake_cupy import Error, FakeArray, FakeCupy, FakeStream, arrays


@pytest.fixture
def cupy():
    return FakeCupy()


@pytest.fixture
def device(cupy):
    return CudaDevice(cupy, FakeCublasLt())


def test_device_attributes(device):
    assert (device.name, device.multiprocessors) == ("Test GPU", 3)


@pytest.mark.parametrize("dtype", ["float64", "float32", "int32"])
def test_upload_copy_and_download(device, dtype):
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


def test_adopt_works_on_device_stream(cupy, device):
    """The other library orders its work before the current stream, and CuPy shares memory."""
    calls = []

    def recorded(name):
        return lambda a: calls.append((name, a, FakeCupy.current.ptr)) or a

    cupy.from_dlpack, cupy.asarray = recorded("dlpack"), recorded("asarray")
    tensor, other = np.ones(2), types.SimpleNamespace(__cuda_array_interface__={})
    assert device.adopt(tensor) is tensor
    assert device.adopt(other) is other
    assert calls == [("dlpack", tensor, 77), ("asarray", other, 77)]


def test_given_stream_is_used(cupy):
    stream = FakeStream(non_blocking=True)
    device = CudaDevice(cupy, FakeCublasLt(), stream)
    a = device.empty((2, 3), "float32")
    device.upload(np.ones((2, 3)), a)
    assert FakeArray.log[-2:] == [("set", stream), ("synchronize", stream)]


def test_upload_waits_for_copy(device):
    FakeArray.log.clear()
    device.upload(np.ones(3), device.empty((3,), "float64"))
    assert [what for what, _ in FakeArray.log] == ["set", "synchronize"]


def test_kernel_is_compiled_once_and_launched_on_stream(device):
    source = KernelSource("gather.cu", "float32")
    gather = device.kernel("gather", source)
    device.kernel("mean_weights", source)
    gather((1, 1), (256, 1), ("arguments",))
    [(code, options)] = FakeCupy.compiled
    assert options == ("-std=c++17",)
    assert "mean_weights" in code
    [(name, grid, block, arguments, stream)] = FakeCupy.launched
    assert (name, grid, block, arguments) == ("gather", (1, 1), (256, 1), ("arguments",))
    assert stream.ptr == 77


def test_tile_kernel_is_launched_with_addresses_shapes_and_strides(device):
    kernel = device.tile_kernel(tiles.weight_update(gpumlp.OPTIMIZERS["adamw"]))
    a = device.empty((6, 8), "float32")
    kernel(5, (a, a[1:3], np.float32(2)))
    ((name, grid, block, arguments, stream),) = FakeCupy.launched
    assert (name, grid, block, stream) == (tiles.KERNEL, (5, 1, 1), (1, 1, 1), device._stream)
    assert arguments[0] is a
    assert arguments[1:5] == (6, 8, 8, 1)
    assert arguments[6:] == (2, 8, 8, 1, 2)
    with pytest.raises(gpumlp.DeviceError, match="launching adamw"):
        kernel(1, ("bad",))


def test_folders_of_headers_are_left_to_cupy(device, monkeypatch):
    monkeypatch.setattr("sys.path", [])
    for name in ("CUDA_PATH", "CUDA_HOME"):
        monkeypatch.delenv(name, raising=False)
    device.kernel("cast", KernelSource("cast.cu", "bfloat16", source="float16"))
    [(code, options)] = FakeCupy.compiled
    assert code.startswith("#include <cuda_bf16.h>\n#include <cuda_fp16.h>\n")
    assert options == ("-std=c++17",)


def test_missing_headers_and_sources_become_device_errors(device, monkeypatch):
    with pytest.raises(
        gpumlp.DeviceError, match=r"compiling cast.cu .* Failed to find CUDA headers.*;"
    ):
        device.kernel("cast", KernelSource("cast.cu", "float32", "no headers", source="int8"))
    for each in (source._read, source._includes, source._inlined):
        each.cache_clear()
    monkeypatch.setitem(sys.modules, "gpumlp.kernels", None)  # a checkout that is not installed
    with pytest.raises(
        gpumlp.DeviceError, match=r"CUDA source \w+.cuh? is not installed.*pip inst"
    ):
        device.kernel("cast", KernelSource("cast.cu", "float64", source="int8"))


def test_recorded_step_is_launched_as_graph(device):
    total = device.kernel("total", KernelSource("reduce.cu", "float32"))
    work = [("first",), ("second",)]

    replay = device.record([Call(partial(total, (1, 1), (256, 1), each)) for each in work])
    assert not FakeCupy.launched
    for _ in range(2):
        replay()
    assert [arguments for *_, arguments, _ in FakeCupy.launched] == work * 2


def test_product_with_a_limit_is_planned_before_it_is_recorded(cupy):
    lt = FakeCublasLt()
    device = CudaDevice(cupy, lt)
    a, b, out = arrays(device, (2, 2), (2, 2), (2, 2))
    product = partial(device.gemm, a, b, out, compute="float32")
    product()
    launched = len(FakeCupy.launched), len(lt.calls)
    replay = device.record([Call(product), Call(product, 1, (0,), 2)])
    assert (len(FakeCupy.launched), len(lt.calls)) == (launched[0], launched[1] + 2)
    replay()
    limits = {gemm.multiprocessors: plan for gemm, (plan, _) in device._blas._plans.items()}
    assert set(limits) == {0, 2}
    attribute = lt.MatmulDescAttribute.SM_COUNT_TARGET
    assert [lt.objects[limits[n].operation][attribute] for n in (0, 2)] == [0, 2]
    assert device.usable == device.multiprocessors == 3
    assert "on 2 multiprocessors" in str(next(g for g in device._blas._plans if g.multiprocessors))


def test_side_stream_has_its_own_workspace(cupy):
    lt = FakeCublasLt()
    device = CudaDevice(cupy, lt)
    total = device.kernel("total", KernelSource("reduce.cu", "float32"))
    a, b, out = arrays(device, (2, 2), (2, 2), (2, 2))
    main, side, late = (stream for stream, _ in device._branches)

    def product():
        device.gemm(a, b, out, compute="float32")

    def launch(name):
        return partial(total, (1, 1), (256, 1), (name,))

    product()  # makes the plan before the recording
    device.record([
        Call(launch("first")),
        Call(product, 1, (0,)), Call(launch("side"), 1),
        Call(launch("main")),
        Call(launch("late"), 2, (2, 3)), Call(launch("without a wait"), 2),
        Call(product, 0, (2,)),
    ])()  # fmt: skip
    assert [(a, stream.ptr) for *_, (a,), stream in FakeCupy.launched] == [
        ("first", main.ptr), ("side", side.ptr), ("main", main.ptr), ("late", late.ptr),
        ("without a wait", late.ptr),
    ]  # fmt: skip
    assert (side.waited, late.waited) == ([main.ptr], [side.ptr, main.ptr])
    assert main.waited == [side.ptr, side.ptr, late.ptr]  # for the product, and at the end
    _, on_side, after = lt.calls
    assert (on_side["stream"], after["stream"]) == (side.ptr, main.ptr)
    assert on_side["workspace"] == device.address(device._branches[1][1]) != after["workspace"]


def test_stream_that_waits_for_nothing_begins_with_the_recording(cupy):
    device = CudaDevice(cupy, FakeCublasLt())
    device.record([Call(lambda: None, 2)])
    assert device._branches[2][0].waited == [device._stream.ptr]


def test_first_step_is_a_training(device):
    seen = []
    device.first([Call(lambda: seen.append(device.tuner.training)) for _ in range(2)])
    assert (seen, device.tuner.training) == ([True, True], False)
    with pytest.raises(ZeroDivisionError):
        device.first([Call(lambda: 1 / 0)])
    assert not device.tuner.training


def test_error_while_recording_ends_recording(device):
    total = device.kernel("total", KernelSource("reduce.cu", "float32"))
    with pytest.raises(gpumlp.DeviceError, match="launching total: CUDA_ERROR_INVALID_VALUE"):
        device.record([Call(partial(total, (1, 1), (256, 1), ("bad",)))])
    with pytest.raises(ZeroDivisionError):
        device.record([Call(lambda: 1 / 0)])
    replay = device.record([Call(partial(total, (1, 1), (256, 1), ("broken",)))])
    with pytest.raises(gpumlp.DeviceError, match="a recorded step: cudaErrorLaunchFailure"):
        replay()


@pytest.mark.parametrize("dtype", ["uint8", "bfloat16", "float64"])
def test_copies_have_their_own_stream(device, dtype):
    dtype, copies = np.dtype(getattr(ml_dtypes, dtype, dtype)), device
    host, out = copies.pinned((3, 5), dtype), device.empty((3, 5), dtype)
    assert (host.shape, host.dtype, host.flags.writeable) == ((3, 5), dtype, True)
    host[...] = np.arange(15).reshape(3, 5)
    FakeArray.log.clear()
    free = copies.mark()
    copied = copies.upload_async(host[:2], out[:2], free)
    copies.follow(copied)
    copies.wait(copied)
    size = 10 * dtype.itemsize
    assert FakeArray.log == [
        ("record", 77, free),
        ("wait", 78, free), ("copy", 78, size), ("record", 78, copied),
        ("wait", 77, copied),
        ("synchronize", copied),
    ]  # fmt: skip
    np.testing.assert_array_equal(device.download(out)[:2], host[:2])


def test_pinning_failure_raises_device_error(cupy, device):
    cupy.limit = 10
    with pytest.raises(gpumlp.DeviceError, match="pinning 4,000 bytes of host memory: cudaE"):
        device.pinned((1000,), "float32")


def test_product_is_row_major(device):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
    on = [device.empty(m.shape, "float64") for m in (a, b)]
    for host, out in zip((a, b), on, strict=True):
        device.upload(host, out)
    out = device.empty((4, 5), "float64")
    device.gemm(*on, out, transpose_b=True, compute="float64")
    np.testing.assert_allclose(device.download(out), a @ b.T, rtol=1e-14)


def test_products_with_epilogue_and_with_factors(device):
    a, b, bias, out = arrays(device, (3, 4), (4, 8), (8,), (3, 8))
    assert device.gemm(
        a, b, out, compute="float32", epilogue=Epilogue("relu_bias", bias),
        fallback=lambda: pytest.fail("unexpected fallback"),
    )  # fmt: skip
    np.testing.assert_allclose(out, np.maximum(a @ b + bias, 0), rtol=1e-5, atol=1e-6)
    factors, before = device.empty((2,), "float32"), np.array(out)
    device.upload(np.array([-0.5, 0.9]), factors)
    assert device.gemm(a, b, out, compute="float32", factors=factors)
    np.testing.assert_allclose(out, -0.5 * (a @ b) + 0.9 * before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("major", "fused"), [(8, False), (9, True), (10, True), (12, False)])
def test_unmeasured_epilogues_are_used_only_on_data_centre_gpus(cupy, major, fused):
    properties = cupy.cuda.runtime.getDeviceProperties(0) | {"major": major}
    cupy.cuda.runtime.getDeviceProperties = lambda i: properties
    device, called = CudaDevice(cupy, FakeCublasLt()), []
    a, b, bias, out = arrays(device, (3, 4), (4, 8), (8,), (3, 8))
    epilogue = Epilogue("bias", bias)
    enqueued = device.gemm(
        a, b, out, compute="float32", epilogue=epilogue, fallback=lambda: called.append(1)
    )
    assert (enqueued, called) == (fused, [] if fused else [1])


def test_views_of_other_libraries_may_be_unaligned(cupy):
    lt = FakeCublasLt()
    device = CudaDevice(cupy, lt)
    whole, b, out = arrays(device, (13,), (4, 8), (3, 8))
    for a in (whole[:12].reshape(3, 4), whole[1:].reshape(3, 4)):
        device.gemm(a, b, out, compute="float32")
        np.testing.assert_allclose(out, np.asarray(a) @ b, rtol=1e-5, atol=1e-6)
    assert [preference[5] for preference in lt.preferences] == [256, 4]


def test_new_product_during_capture_raises(device, monkeypatch):
    a, b, out = arrays(device, (3, 4), (4, 8), (3, 8))
    device.gemm(a, b, out, compute="float32")
    monkeypatch.setattr(FakeStream, "capturing", True)
    device.gemm(a, b, out, compute="float32")
    with pytest.raises(gpumlp.DeviceError, match="NN 2 8 4 .* is new.*before you capture it"):
        device.gemm(a[:2], b, out[:2], compute="float32")


def test_free_memory_counts_driver_and_pool(cupy, device):
    assert device.free_memory() == 3000 + 500
    cupy.pool_limit = 2000
    assert device.free_memory() == 2000 - 700
    cupy.pool_limit = 9000
    assert device.free_memory() == 3000 + 500
    assert device.reserved == 64 << 20


def test_cupy_errors_become_device_errors(cupy, device):
    cupy.limit = 10
    with pytest.raises(OutOfMemoryError, match="out of GPU memory on Test GPU.*smaller batch"):
        device.empty((11,), "float32")
    with pytest.raises(gpumlp.DeviceError, match="compiling loss.cu for float32: error: no such"):
        device.kernel("loss", KernelSource("loss.cu", "float32", "no such text"))
    cupy.broken = Error("cudaErrorIllegalAddress: an illegal memory access")
    with pytest.raises(gpumlp.DeviceError, match="IllegalAddress.*must be restarted") as caught:
        device.synchronize()
    assert caught.value.__cause__ is cupy.broken
    kernel = device.kernel("total", KernelSource("reduce.cu", "float32"))
    with pytest.raises(gpumlp.DeviceError, match="launching total: CUDA_ERROR_INVALID_VALUE"):
        kernel((1, 1), (256, 1), ("bad",))


def test_cublaslt_errors_become_device_errors(cupy):
    device = CudaDevice(cupy, FakeCublasLt(states=()))
    a, b, out = (device.empty((2, 2), "float32") for _ in range(3))
    with pytest.raises(gpumlp.DeviceError, match="multiplying, NN 2 2 2 .*NOT_SUPPORTED"):
        device.gemm(a, b, out, compute="float32")


def test_other_current_gpu_raises(cupy, device):
    a = device.empty((2,), "float32")
    a.device = types.SimpleNamespace(id=1)
    assert not device.owns(a)
    cupy.current_device = 1
    for work in (device.synchronize, lambda: device.empty((1,), "float32")):
        with pytest.raises(
            gpumlp.DeviceError, match=r"on GPU 0 but the current one is 1; .*Device\(0\)"
        ):
            work()
