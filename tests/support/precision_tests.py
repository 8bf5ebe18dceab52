"""Tests of the 16-bit precisions that run on the CUDA backend's harness and on the CPU backend.

Products read and write 16 bits, so results agree with NumPy's to the accuracy of the storage type,
after a few layers.  θ, the slots and J have more bits.  A module that collects these tests has a
fixture `precision`, and may replace `on_cuda_backend` of this module.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import ACTIVATIONS, LOSSES, OPTIMIZERS
from tests.support import networks
from tests.support.cuda_networks import (
    EPS,
    KIND,
    classifier,
    moved,
    on_cuda_backend,
    on_host,
    problem,
    relative,
    trained,
)
from tests.support.harness.catalogue import PULL


def rounding(precision: str) -> Any:
    """A function that rounds an array to the storage type and casts it back."""
    return lambda a: a.astype(KIND[precision]).astype(np.float32)


def reference(net: gpumlp.MLP) -> gpumlp.MLP:
    """The same network in float64."""
    exact = gpumlp.MLP(**{**net.config(), "precision": "float64"}, backend="numpy")
    exact.assign(net.tensors())
    return exact


@pytest.mark.parametrize("f", ACTIVATIONS)
def test_every_activation(f: str, precision: str) -> None:
    """J and every gradient are those of plain NumPy with each stored array rounded to 16 bits.

    Another order of sums can change a result to its neighbour, and with it later results.
    """
    for loss in ("squared_error", "softmax_cross_entropy"):
        net = networks.network(f, loss, 3, precision="float32", regularizer=PULL)
        gpu = on_cuda_backend(net, precision=precision)
        x, y, weights = networks.batch(loss, np.random.default_rng(3), 33)
        J, *want = networks.plainly(
            net, x, np.eye(7)[y] if y.ndim == 1 else y, weights, "float32", rounding(precision)
        )
        J_gpu, gradients = gpu.cost_and_gradients(x, y, weights)
        assert abs(J_gpu - J) < 2 * EPS[precision] * abs(J)
        assert abs(gpu.cost(x, y, weights) - J_gpu) < 1e-6 * abs(J)
        for ours, theirs in zip(networks.parts(gradients), want, strict=True):
            for one, other in zip(ours, theirs, strict=True):
                assert one.dtype == KIND[precision]
                assert relative(one, other) < 4 * EPS[precision]


@pytest.mark.parametrize("f", ["tanh", "gelu", "softmax"])
def test_outputs_and_gradients_are_close_to_float64(f: str, precision: str) -> None:
    """The error is a few roundings of the storage type."""
    net = networks.network(f, "squared_error", 3, precision="float32")
    exact, gpu = reference(net), on_cuda_backend(net, precision=precision)
    x, y, weights = networks.batch("squared_error", np.random.default_rng(3), 33)
    assert relative(gpu.forward(x), exact.forward(x)) < 2 * EPS[precision]
    _, want = exact.cost_and_gradients(x, y, weights)
    _, got = gpu.cost_and_gradients(x, y, weights)
    for ours, theirs in zip(networks.parts(got), networks.parts(want), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert relative(one, other) < 8 * EPS[precision]


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss(loss: str, precision: str) -> None:
    """J and gh of a 16-bit ŷ: the loss computes in float32, with float32 targets."""
    for output in networks.output_activations("tanh", loss):
        net = networks.network("tanh", loss, 2, output, precision="float32")
        exact, gpu = reference(net), on_cuda_backend(net, precision=precision)
        x, y, weights = networks.batch(loss, np.random.default_rng(5), 33)
        J, want = exact.cost_and_gradients(x, y, weights)
        J_gpu, got = gpu.cost_and_gradients(x, y, weights)
        assert abs(J_gpu - J) < 12 * EPS[precision] * (abs(J) + 1)
        for one, other in zip(got.W, want.W, strict=True):
            assert relative(one, other) < 80 * EPS[precision]


def test_targets_and_weights_are_not_rounded(precision: str) -> None:
    """bfloat16 cannot represent a target of 1001, whose squared error for ŷ = 1000 is 1."""
    net = on_cuda_backend(
        gpumlp.MLP([1, 1], loss="squared_error", backend="numpy"), precision=precision
    )
    net.assign({"0.weight": [[0.0]], "0.bias": [1000.0]})
    assert net.cost([[1.0]], [[1001.0]]) == 1.0
    # the weights are 1/3 and 2/3 in float32
    assert abs(net.cost([[1.0], [1.0]], [[1001.0], [1002.0]], [1, 2]) - 3) < 1e-6


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_training_follows_float32(name: str, clip_norm: float | None, precision: str) -> None:
    """After ten steps θ has changed as in float32, to the accuracy of 16-bit gradients."""
    net = classifier("tanh", precision="float32")
    gpu = on_cuda_backend(net, precision=precision)
    start = net.tensors()
    lr = 0.01 if name != "lion" else 0.001
    for each in (net, gpu):
        trained(each, name, steps=10, lr=lr, clip_norm=clip_norm)
    # in rules that use the gradient's sign, rounding a small gradient can change a whole step
    slack = {"adam": 12, "adamw": 12, "rmsprop": 30, "lion": 60}.get(name, 8)
    assert relative(moved(gpu, start), moved(net, start)) < slack * EPS[precision]


def test_products_read_rounded_theta(precision: str) -> None:
    """The copy has the bits of the rounded θ after training and after an assignment."""
    gpu = on_cuda_backend(classifier(precision="float32"), precision=precision)

    def fresh() -> bool:
        rounded, theta = on_host(gpu.rounded.flat), on_host(gpu.theta.flat)
        assert rounded.dtype == KIND[precision]
        assert theta.dtype == np.float32
        return rounded.tobytes() == theta.astype(rounded.dtype).tobytes()

    trained(gpu, steps=5)
    assert fresh()
    x, _, _ = problem()
    before = gpu.predict(x)
    gpu.layers[0].W[...] = 0.125
    assert not fresh()
    assert not np.array_equal(gpu.predict(x), before)
    assert fresh()
    gpu.layers[0].W[...] = 0.25
    trained(gpu, steps=5)
    assert fresh()
