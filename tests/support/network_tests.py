"""Tests of whole networks that run on the CPU harness and on a GPU.

`tests/backends/cuda` collects them for the harness.  `tests/gpu` collects them for a GPU: there,
`on_cuda_backend` and `assert_same` of this module are replaced.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import ACTIVATIONS, LOSSES, OPTIMIZERS
from tests.support import networks
from tests.support.cuda_networks import (
    TOLERANCE,
    assert_same,
    classifier,
    on_cuda_backend,
    problem,
    trained,
)
from tests.support.harness.catalogue import PULL


def check(net: gpumlp.MLP, gpu: gpumlp.MLP, loss: str, m: int = 9) -> None:
    """Compare ŷ, J and every gradient of the two networks."""
    x, y, weights = networks.batch(loss, np.random.default_rng(m), m)
    tolerance = TOLERANCE[net.precision]
    assert_same(gpu.forward(x), net.forward(x), tolerance)
    assert_same(gpu.predict(x), net.predict(x), tolerance)
    J, gradients = net.cost_and_gradients(x, y, weights)
    J_gpu, gradients_gpu = gpu.cost_and_gradients(x, y, weights)
    assert_same(J_gpu, J, tolerance)
    assert_same(gpu.cost(x, y, weights), J, tolerance)
    for got, want in zip(networks.parts(gradients_gpu), networks.parts(gradients), strict=True):
        for one, other in zip(got, want, strict=True):
            assert_same(one, other, tolerance)


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("f", ACTIVATIONS)
def test_every_activation_with_every_loss(f: str, precision: str) -> None:
    for loss in LOSSES:
        for output in networks.output_activations(f, loss):
            net = networks.network(f, loss, 3, output, precision=precision, regularizer=PULL)
            check(net, on_cuda_backend(net), loss)


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("regularizer", networks.REGULARIZERS)
def test_every_depth_and_regularizer(depth: int, regularizer: Any) -> None:
    loss = "softmax_cross_entropy"
    net = networks.network("silu", loss, depth, regularizer=regularizer)
    check(net, on_cuda_backend(net), loss)


@pytest.mark.parametrize("widths", [(1, 1, 1), (8, 16, 4), (3, 65, 2), (129, 257, 33)])
@pytest.mark.parametrize("m", [1, 2, 257])
def test_widths_and_minibatches(widths: tuple[int, ...], m: int) -> None:
    """Widths that allow 16-byte accesses and widths that do not; labels; no penalty of biases."""
    rng = np.random.default_rng(m)
    net = gpumlp.MLP(
        widths, "tanh", regularizer=gpumlp.L2(0.1, biases=False), precision="float64",
        backend="numpy",
    )  # fmt: skip
    gpu = on_cuda_backend(net)
    x, y = rng.normal(size=(m, widths[0])), rng.integers(0, widths[-1], m)
    J, gradients = net.cost_and_gradients(x, y)
    J_gpu, gradients_gpu = gpu.cost_and_gradients(x, y)
    assert_same(J_gpu, J, 1e-12)
    for got, want in zip(networks.parts(gradients_gpu), networks.parts(gradients), strict=True):
        for one, other in zip(got, want, strict=True):
            assert_same(one, other, 1e-12)


def test_hidden_softmax_layer() -> None:
    net = networks.network(["softmax", "tanh", "softmax"], "squared_error", 4)
    check(net, on_cuda_backend(net), "squared_error", m=40)


def test_twenty_steps_of_adamw() -> None:
    net = classifier()
    gpu = on_cuda_backend(net)
    want = trained(net, lr=0.01)
    got = trained(gpu, lr=0.01)
    assert_same(gpu.theta.flat, net.theta.flat, 1e-12)
    assert_same(got.slots, want.slots, 1e-12)
    np.testing.assert_allclose(got.history["cost"], want.history["cost"], rtol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_every_optimizer(name: str, clip_norm: float | None) -> None:
    net = classifier("tanh")
    gpu = on_cuda_backend(net)
    for each in (net, gpu):
        trained(each, name, steps=5, lr=0.01, clip_norm=clip_norm)
    assert_same(gpu.theta.flat, net.theta.flat, 1e-12)


def test_nan_gradient_shows_in_next_cost() -> None:
    """Clipping does not hide it: the norm is not finite, and then θ becomes NaN."""
    x, y, _ = problem(16)
    gpu = on_cuda_backend(classifier())
    gpu.layers[1].W[0] = np.nan
    with pytest.raises(FloatingPointError, match="diverged"):
        gpumlp.Trainer(gpu, clip_norm=1.0, batch_size=16).fit(x, y, 2, progress=False)
