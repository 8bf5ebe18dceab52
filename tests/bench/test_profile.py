"""A step operation by operation, in the model of a measured device and alone."""

import json

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.backends.cuda.paper import gpu_named
from gpumlp.bench import profile
from gpumlp.loader.examples import Examples
from tests.support.harness.host_device import HostDevice
from tests.support.refusal import refusal


@pytest.mark.parametrize("name", ["numpy", "cpu", "cupy"])
def test_profile_has_the_operations_of_the_step(name, tmp_path, monkeypatch):
    monkeypatch.setattr(profile, "MOST", 2)
    backend = CudaBackend(HostDevice()) if name == "cupy" else name
    net = gpumlp.MLP([6, 9, 3], backend=backend)
    x, y = np.random.default_rng(0).normal(size=(24, 6)), np.arange(24) % 3
    trainer = gpumlp.Trainer(net, "momentum", batch_size=8)
    batches = trainer.batches(Examples.checked(net, x, y))
    batches.start(0, trainer.controls([0.1] * 3, 1), np.zeros(3), at=0)
    found = profile.profile(net.backend, batches, 1e9)
    assert [each["operation"] for each in found["operations"]] == [
        line.operation for line in trainer.explain(x, y).lines
    ]
    assert all(each["alone"] > 0 for each in found["operations"])
    gaps = found["device"]["gap"] * (len(found["operations"]) - 1)
    in_order = gaps + sum(each["model"] for each in found["operations"])
    if name == "cupy":  # its branches run beside each other
        assert found["model"] < in_order
    else:
        assert found["model"] == pytest.approx(in_order)
    assert {tuple(each[:3]) for each in found["device"]["products"]} == {
        (8, 9, 6), (8, 3, 9), (8, 9, 3), (3, 9, 8), (9, 6, 8)
    }  # fmt: skip
    assert len(profile.rows(found)) == len(found["operations"])
    file = tmp_path / "device.json"
    file.write_text(json.dumps(found["device"]))
    again = trainer.explain(x, y, device=str(file), precision=net.precision)
    assert again.seconds == pytest.approx(found["model"], rel=0.5)  # products differ in layout
    assert again.device == net.backend.describe()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        ("[", "does not describe a GPU"),
        ('{"name": "x"}', "does not describe a GPU"),
        ('{"name": "x", "capability": "9.0", "multiprocessors": 1, "bandwidth": -1, "peak": {}}',
         "its rates must be positive numbers"),
        ('{"name": "x", "capability": "9.0", "multiprocessors": 1, "bandwidth": 1, "peak": {}, '
         '"products": [[1, 2, 3]]}', "its rates must be positive numbers"),
    ],
)  # fmt: skip
def test_invalid_file_of_a_device_raises(text, message, tmp_path):
    file = tmp_path / "device.json"
    if text is not None:
        file.write_text(text)
    refusal(ValueError, lambda: gpu_named(str(file)), message)


def test_device_without_a_rate_for_the_precision_raises(tmp_path):
    file = tmp_path / "device.json"
    file.write_text(json.dumps({"name": "x", "capability": "", "multiprocessors": 1,
                                "bandwidth": 1e9, "peak": {"half": 1e12}}))  # fmt: skip
    trainer = gpumlp.Trainer(gpumlp.MLP([2, 3], backend="numpy"))
    refusal(
        ValueError, lambda: trainer.explain(8, device=str(file), precision="float32"),
        "x has no rate of products in float32",
    )  # fmt: skip
    assert trainer.explain(8, device=str(file), precision="float16").seconds > 0
