"""Networks, data and checks for the tests of planned memory."""

from __future__ import annotations

from typing import Any

import numpy as np

import gpumlp
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.training.memory import Memory
from tests.support.harness.host_device import HostDevice

RNG = np.random.default_rng(2)
M = 90
X, LABELS, WEIGHTS = RNG.normal(size=(M, 12)), RNG.integers(0, 3, M), RNG.random(M) + 0.1


def network(hidden: tuple[int, ...] = (24, 7, 16), f: Any = "gelu", **settings: Any) -> gpumlp.MLP:
    settings = {"backend": "numpy"} | settings
    return gpumlp.MLP([12, *hidden, 3], f, **settings)


def on_harness(precision: str = "float32", *shape: Any, **settings: Any) -> Any:
    """A device of the harness, and a network in the CUDA backend on it."""
    device = HostDevice()
    return device, network(*shape, backend=CudaBackend(device, precision), **settings)


OF_TRAINER = ("optimizer", "batch_size", "clip_norm", "slot_precision", "memory", "ema")


def parts(case: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """The settings of a case for the network and the trainer, and arguments of fit and memory."""
    net = {name: case[name] for name in ("hidden", "f", "loss") if name in case}
    trainer = {"batch_size": 32} | {name: case[name] for name in OF_TRAINER if name in case}
    rest = {name: value for name, value in case.items() if name not in net | trainer}
    return net, trainer, {"x": X, "y": LABELS} | rest


def check(device: HostDevice, trainer: gpumlp.Trainer, asked: dict[str, Any]) -> Memory:
    """The plan, which is correct to the byte before and after the fit, and for its maximum."""
    planned = trainer.memory(**asked)
    assert device.live == planned.held
    device.peak = 0
    trainer.fit(**asked, epochs=2, progress=False)
    assert device.peak == planned.total
    assert trainer.memory(**asked) == planned
    return planned
