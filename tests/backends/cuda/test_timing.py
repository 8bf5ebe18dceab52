"""Measured products; the fakes for CuPy and cublasLt advance the clock."""

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.cuda import streams
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.backends.cuda.device import CudaDevice
from tests.support.fake_cublaslt import FakeCublasLt
from tests.support.fake_cupy import FakeCupy, FakeEvent, arrays, with_clock


@pytest.fixture
def cupy():
    return FakeCupy()


@pytest.fixture
def clocked(cupy, monkeypatch):
    """A device that measures its products with a fake clock."""
    monkeypatch.setenv("GPUMLP_TUNE", "1")
    lt = with_clock(monkeypatch)
    return CudaDevice(cupy, lt), lt


def test_products_are_measured_once(clocked):
    device, lt = clocked
    a, b, out = arrays(device, (3, 4), (4, 8), (3, 8))
    device.gemm(a, b, out, compute="float32")
    assert len(lt.calls) == 3 * (1 + streams.TRIALS) + 1
    device.gemm(a, b, out, compute="float32")
    assert [call["algo"] for call in lt.calls[-2:]] == [71, 71]
    [choice] = device.tuner.choices.values()
    assert (choice.microseconds, choice.first) == (pytest.approx(3), pytest.approx(9))
    np.testing.assert_allclose(out, a @ b, rtol=1e-5)


def test_timer_flushes_cache_outside_measured_time(clocked, monkeypatch):
    device, _ = clocked
    order = []
    monkeypatch.setattr(device, "fill", lambda a, value: order.append(("flush", a.nbytes)))
    monkeypatch.setattr(FakeEvent, "record", lambda self, stream: order.append("record"))
    monkeypatch.setattr(FakeEvent, "synchronize", lambda self: order.append("wait"))
    times = iter([0.004, 0.001, 0.003, 0.009, 0.002])
    monkeypatch.setattr(device._cupy.cuda, "get_elapsed_time", lambda start, end: next(times))
    assert device._time(lambda: order.append("work")) == pytest.approx(3)  # the median in µs
    assert order == ["work"] + 5 * [("flush", 64), "record", "work", "record", "wait"]


def test_trials_do_not_change_accumulated_result(clocked):
    device, _ = clocked
    a, b, out, factors = arrays(device, (3, 4), (4, 8), (3, 8), (2,))
    before = np.array(out)
    device.gemm(a, b, out, compute="float32", factors=factors)
    np.testing.assert_allclose(out, factors[0] * (a @ b) + factors[1] * before, rtol=1e-5)


def test_quick_timer_allocates_nothing_and_repeats_short_work_only(clocked, monkeypatch):
    device, lt = clocked
    monkeypatch.setattr(device, "empty", lambda *_: pytest.fail("an allocation"))

    def work(microseconds):
        lt.clock += microseconds

    for microseconds, trials in ((3.0, streams.TRIALS), (4000.0, 3), (20_000.0, 1)):
        before = lt.clock
        assert device._time(lambda each=microseconds: work(each), True) == pytest.approx(
            microseconds
        )
        assert lt.clock - before == (1 + trials) * microseconds


@pytest.mark.parametrize(("epilogue", "fused"), [(0.0, True), (30.0, False)])
def test_first_training_step_compares_epilogues(cupy, monkeypatch, epilogue, fused):
    """A kernel takes 7 µs.  An epilogue may be a second pass, which takes longer."""
    monkeypatch.delenv("GPUMLP_TUNE", raising=False)
    lt = FakeCublasLt()
    monkeypatch.setattr(FakeEvent, "lt", lt)
    lt.epilogue = epilogue
    device = CudaDevice(cupy, lt)
    backend, f = CudaBackend(device, "bfloat16"), gpumlp.ACTIVATIONS["relu"]
    shapes = (4, 8), (8, 8), (8,), (4, 8)
    below, W, b, h = (device.empty(shape, backend.storage) for shape in shapes)
    z, gz, db = device.empty((4, 16), "uint8"), device.empty((4, 8), h.dtype), b.copy()
    for a in (below, W, b):
        device.fill(a, 1)
    backend._written_masks.add(device.address(z))
    for _ in range(2):
        lt.calls.clear()
        FakeCupy.launched.clear()
        backend.hidden_gradient(below, W, f, z, h, gz, gz, db)
    assert [call["epilogue"] for call in lt.calls] == [152 if fused else 1]
    assert bool(FakeCupy.launched) != fused


@pytest.mark.parametrize(("launch", "fused"), [(7.0, True), (2.0, True), (1.5, False)])
def test_backend_uses_faster_of_fused_and_unfused(clocked, monkeypatch, launch, fused):
    """A fused product of 3 + 2 µs, or a product of 3 µs and a kernel."""
    device, lt = clocked
    lt.epilogue = 2.0
    monkeypatch.setattr(FakeEvent, "launch", launch)
    backend, f = CudaBackend(device), gpumlp.ACTIVATIONS["gelu"]
    h_below, W, b, z, h = arrays(device, (3, 4), (8, 4), (8,), (3, 8), (3, 8))
    backend.affine_activation(h_below, W, b, f, z, h)
    del lt.calls[:], FakeCupy.launched[:]
    backend.affine_activation(h_below, W, b, f, z, h)
    assert [call["epilogue"] for call in lt.calls] == [164 if fused else 1]
    assert [name for name, *_ in FakeCupy.launched] == ([] if fused else ["bias_activation"])
    plain, with_gelu = device.tuner.choices.values()
    assert (plain.algorithm is not None, with_gelu.algorithm is not None) == (True, fused)
    assert with_gelu.unfused == pytest.approx(3 + launch)
