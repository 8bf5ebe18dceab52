"""Programmatic dependent launches: the driver's call, the way of a step, and the kernels' wait."""

from __future__ import annotations

import ctypes
import re
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.backends.cuda.launching import DependentLaunches, dependent_launches
from gpumlp.errors import DeviceError
from tests.support.harness import nvrtc
from tests.support.harness.catalogue import CATALOGUE
from tests.support.harness.host_device import HostDevice
from tests.support.harness.host_module import kernel_names
from tests.support.harness.memory import aligned

SERIALIZATION = "CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION"


class FakeDriver:
    """The part of `cuda.bindings.driver` that a launch uses."""

    CUlaunchConfig = CUlaunchAttribute = CUlaunchAttributeValue = SimpleNamespace
    CUlaunchAttributeID = SimpleNamespace(**{SERIALIZATION: 6})
    CUresult = SimpleNamespace(CUDA_SUCCESS="CUDA_SUCCESS")

    def __init__(self, result: Any = "CUDA_SUCCESS") -> None:
        self.result, self.launched = result, []

    def cuLaunchKernelEx(self, config: Any, function: int, parameters: int, extra: int) -> Any:  # noqa: N802
        """Reads three parameters, as the driver does: an array, an int64 and a float32."""
        pointers = (ctypes.c_void_p * 3).from_address(parameters)
        array, count, factor = (
            kind.from_address(at).value
            for kind, at in zip((ctypes.c_uint64, ctypes.c_int64, ctypes.c_float), pointers,
                                strict=True)
        )  # fmt: skip
        self.launched.append((config, function, array, count, factor, extra))
        return (self.result,)


def test_the_drivers_call() -> None:
    driver, a = FakeDriver(), aligned(np.zeros(3))
    launch = DependentLaunches(driver, lambda a: int(a.ctypes.data))
    launch(99, (3, 2), (32, 8), (a, np.int64(-7), np.float32(0.5)), 77)
    [(config, function, *values, extra)] = driver.launched
    assert (function, values, extra) == (99, [a.ctypes.data, -7, 0.5], 0)
    assert (config.gridDimX, config.gridDimY, config.gridDimZ) == (3, 2, 1)
    assert (config.blockDimX, config.blockDimY, config.blockDimZ) == (32, 8, 1)
    assert (config.hStream, config.numAttrs, len(config.attrs)) == (77, 1, 1)
    assert config.attrs[0].id == 6
    assert config.attrs[0].value.programmaticStreamSerializationAllowed == 1


def test_a_refused_launch_is_an_error() -> None:
    driver = FakeDriver(SimpleNamespace(name="CUDA_ERROR_NOT_SUPPORTED"))
    arguments = (np.zeros(1), np.int64(0), np.float32(0))
    with pytest.raises(DeviceError, match="NOT_SUPPORTED.*GPUMLP_DEPENDENT_LAUNCH=0"):
        DependentLaunches(driver, lambda a: 0)(1, (1, 1), (1, 1), arguments, 77)


def test_where_it_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    bindings = SimpleNamespace(driver=FakeDriver())
    monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace(bindings=bindings))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    assert dependent_launches(9, id) is not None
    assert dependent_launches(8, id) is None
    monkeypatch.setenv("GPUMLP_DEPENDENT_LAUNCH", "0")
    assert dependent_launches(9, id) is None
    monkeypatch.delenv("GPUMLP_DEPENDENT_LAUNCH")
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert dependent_launches(9, id) is None


@pytest.mark.parametrize("way", ["", "sequential, dependent launches"])
def test_a_way_of_the_step_that_only_measurements_choose(way: str) -> None:
    device = HostDevice(variant=way, launches_dependently=True)
    net = gpumlp.MLP([3, 4, 2], backend=CudaBackend(device, "float32"), seed=0)
    x, y = np.random.default_rng(0).normal(size=(24, 3)), np.arange(24) % 2
    gpumlp.Trainer(net, batch_size=8).fit(x, y, 1, progress=False)
    assert device.calls.count("record dependently") == bool(way)
    assert device.calls.count("record") == (not way)


def test_kernels_wait_before_they_access_memory() -> None:
    """Each waits first, on sm_90, and only then lets the next one start."""
    dtype = "bfloat16"
    names = ["silu", "softmax", "huber of values", "softmax_cross_entropy of labels", "step",
             "penalty elastic_net", "update by adamw", "gather", "reduce", "round", "average",
             "orthogonal", "cast from uint8", "layer norm", "batch norm", "whole batch norm",
             "gate of silu", "dropout", "embedding"]  # fmt: skip
    assert {CATALOGUE[dtype][name].file for name in names} == {
        source.file for source in CATALOGUE[dtype].values()
    }
    for source in (CATALOGUE[dtype][name] for name in names):
        for kernel in kernel_names(source):
            body = nvrtc.ptx(source, 90).split(f".entry {kernel}(")[1].split(".entry")[0]
            order = re.findall(r"griddepcontrol\.\w+|(?:ld|st|atom)\.(?:global|shared)", body)
            assert order[:2] == ["griddepcontrol.wait", "griddepcontrol.launch_dependents"], kernel
            assert len(order) > 2
    assert "griddepcontrol" not in nvrtc.ptx(CATALOGUE[dtype]["gather"], 80)
