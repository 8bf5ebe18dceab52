"""The programs of `make gpu` that print JSON, with fakes of CuPy and cublasLt in place of a GPU."""

import contextlib
import json
import sys
from types import SimpleNamespace

import pytest

from benchmarks import cold_cache, half_precision, kernel_names
from gpumlp.backends import cuda
from gpumlp.backends.cuda import device as device_module
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.backends.cuda.device import CudaDevice
from gpumlp.bench.peers import gpumlp_peer
from tests.support.fake_cublaslt import FakeCublasLt
from tests.support.fake_cupy import FakeCupy, FakeEvent

# no kernel is launched, so arrays keep what the fake of CuPy fills them with
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")


@pytest.fixture
def device(monkeypatch):
    lt = FakeCublasLt(states=(0, 0))
    monkeypatch.setattr(device_module, "FLUSH_BYTES", 64)
    monkeypatch.setattr(FakeEvent, "lt", lt)
    device = CudaDevice(FakeCupy(), lt)
    monkeypatch.setattr(gpumlp_peer, "get_backend", lambda _, p: CudaBackend(device, p))
    for module in (cuda, cold_cache, kernel_names):
        monkeypatch.setattr(module, "open_device", lambda: device)
    return device


def test_step_tuned_with_a_cold_and_with_a_warm_cache(device, monkeypatch, capsys):
    lt = FakeEvent.lt
    lt.microseconds = {70: 9.0, 71: 3.0}

    def time(work, quick):
        """The second algorithm is faster if the cache is cold."""
        begun = lt.clock
        work()
        return 1000.0 - (lt.clock - begun) if quick else lt.clock - begun

    monkeypatch.setattr(device, "_time", time)
    monkeypatch.setattr(cold_cache, "warm_up", lambda step, seconds: step.run())
    monkeypatch.setattr(cold_cache, "BURST", 1)
    monkeypatch.setattr(cold_cache, "ROUNDS", 2)
    monkeypatch.setattr(sys, "argv", ["cold_cache", "16", "2", "8"])
    cold_cache.main()
    found = json.loads(capsys.readouterr().out)
    assert set(found["microseconds"]) == {"cold", "warm"}
    assert min(found["microseconds"].values()) > 0
    assert found["products"] >= len(found["chosen_differently"]) > 0


def test_kernels_of_an_eager_step(device, monkeypatch, capsys):
    events = [
        SimpleNamespace(name=name, device_time_total=time)
        for name, time in (("nvjet", 5.0), ("cutlass_80", 7.0), ("nvjet", 4.0))
    ]
    profile = contextlib.nullcontext(SimpleNamespace(events=lambda: events))
    profiler = SimpleNamespace(
        profile=lambda activities: profile, ProfilerActivity=SimpleNamespace(CUDA="CUDA")
    )
    torch = SimpleNamespace(profiler=profiler, Tensor=type("Tensor", (), {}))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(sys, "argv", ["kernel_names", "gelu", "16", "2", "8"])
    kernel_names.main()
    assert json.loads(capsys.readouterr().out)["kernels"] == [
        {"name": "nvjet", "launches": 2, "microseconds": 9.0},
        {"name": "cutlass_80", "launches": 1, "microseconds": 7.0},
    ]
    assert {152, 208} & {call["epilogue"] for call in device._blas._lt.calls}  # all are fused


def test_accuracy_of_each_precision(monkeypatch, capsys):
    made = []
    monkeypatch.setattr(half_precision, "estimator", lambda library, **how: made.append(how))
    monkeypatch.setattr(half_precision, "run", lambda task, fit, seed: seed / 8)
    half_precision.main([])
    found = json.loads(capsys.readouterr().out)["accuracy"]
    assert list(found) == ["float32", "bfloat16"]
    assert list(found.values()) == 2 * [[0, 0.125, 0.25, 0.375, 0.5]]
    assert {each["backend"] for each in made} == {"cupy"}
