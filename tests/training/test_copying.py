"""Copies and pickles of trainers and backends."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import gpumlp
from gpumlp import Group
from gpumlp.backends.cuda.backend import CudaBackend
from tests.support.cuda_networks import classifier, device, on_cuda_backend, on_host, problem
from tests.support.harness.host_device import HostDevice

COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda trainer: pickle.loads(pickle.dumps(trainer)),
}
STATEFUL: list[dict[str, Any]] = [
    {"optimizer": "sgd"},
    {"optimizer": "sgd", "accumulate": 3},
    {"optimizer": "momentum", "accumulate": 3, "ema": 0.9},
    {"optimizer": "adamw", "ema": 0.9, "clip_norm": 0.5, "groups": {"biases": Group(2.0, 0.0)}},
    {"optimizer": "muon", "groups": {"first": Group(0.5)}},
    {"optimizer": "lion", "memory": "low", "accumulate": 2},
]


def trained(trainer: gpumlp.Trainer, epochs: int = 2) -> list[bytes]:
    """Train, and return all that a further fit depends on."""
    x, y, weights = problem(45)
    trainer.fit(x, y, epochs, sample_weight=weights, progress=False)
    arrays = [trainer.net.theta.flat, trainer.slots, trainer.scaling]
    arrays += [] if trainer.average is None else trainer.average.both(trainer.net)
    return [on_host(a).tobytes() for a in arrays]


def copied_trainer(trainer: gpumlp.Trainer, way: str) -> gpumlp.Trainer:
    second: gpumlp.Trainer = COPIES[way](trainer)
    return second


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("settings", STATEFUL)
def test_copy_trains_as_the_original_does(settings: Any, way: str) -> None:
    net = classifier(regularizer=None)
    trainer = gpumlp.Trainer(net, lr=0.01, batch_size=20, **settings)
    trained(trainer)
    second, before = copied_trainer(trainer, way), net.theta.flat.tobytes()
    assert (second.steps, second.epochs, second.history.to_dict()) == (
        trainer.steps, trainer.epochs, trainer.history.to_dict(),
    )  # fmt: skip
    ended = trained(second)
    assert net.theta.flat.tobytes() == before
    assert ended == trained(trainer)
    assert ended[0] != before


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
@pytest.mark.parametrize("settings", STATEFUL)
def test_copy_in_the_cuda_backend(settings: Any, precision: str) -> None:
    """The device's new memory is full of NaN.  Slots of 16 bits are tested, too."""
    if precision == "bfloat16" and settings["optimizer"] != "muon":
        settings = settings | {"slot_precision": "bfloat16"}
    gpu = on_cuda_backend(classifier(precision="float32", regularizer=None), precision=precision)
    trainer = gpumlp.Trainer(gpu, lr=0.01, batch_size=20, **settings)
    trained(trainer)
    second = copy.deepcopy(trainer)
    assert second.net.backend is gpu.backend
    assert trained(second) == trained(trainer)


def test_shallow_copy_shares_the_network() -> None:
    trainer = gpumlp.Trainer(classifier(), batch_size=20, ema=0.9)
    second = copy.copy(trainer)
    assert (second.net, second.slots, second.average) == (
        trainer.net,
        trainer.slots,
        trainer.average,
    )
    assert vars(second) == vars(trainer)


def test_copy_before_the_first_step() -> None:
    for way in COPIES:
        trainer = gpumlp.Trainer(classifier(), "muon", batch_size=20, ema=0.9)
        assert trained(copied_trainer(trainer, way)) == trained(trainer)


# ---- backends ------------------------------------------------------------------------------------


def test_backend_is_not_copied() -> None:
    """A copy of it would open the device a second time; a pickle cannot hold one."""
    for backend in (CudaBackend(HostDevice()), gpumlp.get_backend("numpy", "float64")):
        assert copy.deepcopy(backend) is copy.copy(backend) is backend
        assert copy.deepcopy([backend, {"backend": backend}])[1] == {"backend": backend}
    numpy = pickle.loads(pickle.dumps(backend))
    assert (numpy.name, numpy.precision) == ("numpy", "float64")


def test_a_pickled_cuda_backend_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = on_cuda_backend(classifier(precision="float32"), precision="bfloat16")
    trainer = gpumlp.Trainer(gpu, "adamw", batch_size=20, slot_precision="bfloat16", ema=0.9)
    trained(trainer)
    monkeypatch.setattr("gpumlp.backends.cuda.open_device", lambda: HostDevice())
    second = copied_trainer(trainer, "pickle")
    assert second.net.precision == "bfloat16"
    assert device(second.net) is not device(gpu)
    assert trained(second) == trained(trainer)
