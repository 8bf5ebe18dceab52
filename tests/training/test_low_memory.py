"""memory="low" recomputes h from z in the backward pass: the same bits, in less memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import ACTIVATIONS
from gpumlp.step.chunked import Chunked
from gpumlp.training.memory import Memory
from tests.support.memory_cases import LABELS, WEIGHTS, M, X, network, on_harness

FROM_Z = [name for name, f in ACTIVATIONS.items() if f.reads == "z"]
MIXED = ["gelu_erf", "tanh", "silu", "silu", "softmax", "mish", "relu", "hard_swish"]


def trained(net: gpumlp.MLP, memory: str, **settings: Any) -> tuple[bytes, list[float], Memory]:
    """θ, the costs and the plan."""
    net.assign({name: 0.3 * tensor for name, tensor in net.tensors().items()})  # for exp(exp(z))
    trainer = gpumlp.Trainer(net, lr=0.01, batch_size=32, memory=memory, **settings)
    history = trainer.fit(X, LABELS, 3, sample_weight=WEIGHTS, progress=False)
    theta = b"".join(tensor.tobytes() for tensor in net.tensors().values())
    return theta, history["cost"], trainer.memory(X, LABELS)


@pytest.mark.parametrize(
    ("f", "backend"),
    [
        *((f, backend) for f in ACTIVATIONS for backend in ("numpy", "float32")),
        *((f, backend) for f in (MIXED, MIXED[::-1]) for backend in ("float64", "bfloat16")),
    ],
    ids=str,
)
def test_low_memory_changes_no_bit(f: Any, backend: str) -> None:
    """No product computes f here.  The last minibatch is smaller."""
    found = []
    for memory in ("normal", "low"):
        hidden = (24, 8, 16, 24, 9, 30, 16, 8)
        if backend == "numpy":
            net = network(hidden, f, precision="float64")
        else:
            device, net = on_harness(backend, hidden, f)
            device.fuses = lambda name: "gelu" not in name
        found.append(trained(net, memory))
    (theta, costs, normal), (theta_low, costs_low, low) = found
    assert theta == theta_low
    assert costs == costs_low
    names = f if isinstance(f, list) else [f] * 8
    saves = sum(ACTIVATIONS[name].reads == "z" for name in names) > 1
    assert (low.total < normal.total) == saves


def test_low_memory_with_gelu_in_the_product() -> None:
    """h is then f of the stored z, and equals the result of the product but for rounding."""
    thetas = []
    for memory in ("normal", "low"):
        _, net = on_harness("float32", (24, 8, 16, 24))
        trained(net, memory)
        thetas.append(np.concatenate([t.ravel() for t in net.tensors().values()]))
    np.testing.assert_allclose(*thetas, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("f", FROM_Z)
def test_low_memory_saves_all_but_one(f: str) -> None:
    """One h is in memory at a time, in place of all L − 1 equal hidden layers."""
    hidden = (64,) * 6
    net = network(hidden, f, precision="float32")
    plans = [gpumlp.Trainer(net, batch_size=32, memory=m).memory(M) for m in ("normal", "low")]
    assert 4.9 < (plans[0].total - plans[1].total) / (32 * 64 * 4) <= 5


def test_h_is_recomputed_once_per_layer() -> None:
    """Not for the last hidden layer, whose h is still valid, nor for relu, whose h is stored."""
    device, net = on_harness("float64", (8, 8, 8, 8), ["silu", "relu", "gelu", "silu"])
    calls: list[list[str]] = []

    class Step(gpumlp.Callback):
        def on_step_end(self, trainer: gpumlp.Trainer) -> None:
            calls.append([call for call in device.calls if call.startswith("kernel activation ")])
            device.calls.clear()

    gpumlp.Trainer(net, batch_size=30, memory="low").fit(
        X, LABELS, 1, callbacks=[Step()], progress=False
    )
    assert [len(each) for each in calls] == [2, 2, 2]  # of layers 1 and 3


def test_narrow_network_does_not_need_more() -> None:
    """Three buffers can need more than two buffers and the h that they save."""
    for hidden in [(64,), (64, 2), (2, 64), (64, 2, 64), (64, 2, 2, 64), (1, 2, 3, 4, 5)]:
        for f in (FROM_Z[0], ["silu"] + ["tanh"] * (len(hidden) - 1)):
            net = network(hidden, f)
            plans = [gpumlp.Trainer(net, memory=m).memory(M).total for m in ("low", "normal")]
            assert plans[0] <= plans[1]


def test_forward_pass_needs_two_buffers() -> None:
    device, net = on_harness("float32", (64,) * 8)
    before = device.live
    chunked = Chunked(net, 32, np.dtype(np.int32))
    arena = 32 * 4 * 2 * 64 + 256  # two h, and the labels
    assert chunked.rows == 32
    assert device.live - before == arena + 32 * 4 + 8 + 4 * 8
