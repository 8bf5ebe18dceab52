"""Tests of the CUDA backend on a GPU, instead of the CPU harness."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends import get_backend
from tests.support import network_tests
from tests.support.cuda_networks import classifier, on_host, trained
from tests.support.embeddings import EMBED, WIDTHS, examples
from tests.support.network_tests import (  # noqa: F401  (collected here)
    test_every_activation_with_every_loss,
    test_every_depth_and_regularizer,
    test_every_optimizer,
    test_hidden_softmax_layer,
    test_nan_gradient_shows_in_next_cost,
    test_twenty_steps_of_adamw,
    test_widths_and_minibatches,
)

FACTOR = 100  # products sum in another order, and a GPU has its own elementary functions


@pytest.fixture(autouse=True)
def _on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the collected tests on the GPU, and compare a little less strictly."""
    strict = network_tests.assert_same

    def on_gpu(net: gpumlp.MLP, order: int = 0, **changes: Any) -> gpumlp.MLP:
        precision = changes.pop("precision", net.precision)
        settings = net.config() | {"precision": precision} | changes
        gpu = gpumlp.MLP(**settings, backend="cupy")
        gpu.assign(net.tensors())
        return gpu

    monkeypatch.setattr(network_tests, "on_cuda_backend", on_gpu)
    monkeypatch.setattr(
        network_tests, "assert_same", lambda got, want, t: strict(got, want, FACTOR * t)
    )


def test_two_runs_give_same_bits() -> None:
    bits = set()
    for _ in range(2):
        gpu = network_tests.on_cuda_backend(classifier(precision="float32"))
        trained(gpu, steps=10, clip_norm=0.5)
        bits.add(on_host(gpu.theta.flat).tobytes())
    assert len(bits) == 1


@pytest.mark.parametrize("precision", ["float64", "float32", "tf32"])
def test_large_product(precision: str) -> None:
    """Shapes for which tensor cores and split sums are used, against float64."""
    backend = get_backend("cupy", precision)
    rng = np.random.default_rng(0)
    n = 2048 if precision == "tf32" else 2049  # tensor cores need aligned rows
    h, W = rng.normal(size=(513, 1000)), rng.normal(size=(n, 1000))
    out = backend.empty((513, n))
    backend.input_gradient(backend.asarray(h), backend.asarray(np.ascontiguousarray(W.T)), out)
    error = np.abs(backend.to_host(out) - h @ W.T) / (np.abs(h) @ np.abs(W.T))
    assert error.max() < {"float64": 1e-14, "float32": 1e-6, "tf32": 2e-3}[precision]
    assert precision != "tf32" or error.max() > 1e-6  # it is really another arithmetic


def test_repr_names_gpu() -> None:
    net = gpumlp.MLP([2, 2], backend="auto")
    assert net.backend.name == "cupy"
    assert net.backend.describe() in repr(net)


def test_arrays_on_gpu() -> None:
    """GPU arrays of several dtypes and memory orders; results of GPU arrays are on the GPU too."""
    cupy = pytest.importorskip("cupy")
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(300, 10)), rng.integers(0, 3, 300)
    net = gpumlp.MLP([5, 16, 3], "tanh", precision="float64", backend="cupy", regularizer="l2")
    strided, weights = cupy.asarray(x)[:, ::2], rng.random(300)
    want = net.cost(x[:, ::2], labels, weights, "balanced")
    for y in (labels, cupy.asarray(labels), cupy.eye(3)[cupy.asarray(labels)]):
        got = net.cost(strided, y, cupy.asarray(weights), "balanced")
        np.testing.assert_allclose(got, want, rtol=1e-12)
    p = net.predict(strided)
    assert isinstance(p, cupy.ndarray)
    np.testing.assert_allclose(p.get(), net.predict(x[:, ::2]), rtol=1e-12)
    before = net.penalty()
    net.layers[0].W[...] = 2.0
    assert net.penalty() > before
    net.assign({name: cupy.asarray(value) for name, value in net.tensors().items()})
    broken = strided.copy()
    broken[7, 0] = np.nan
    with pytest.raises(ValueError, match=r"x\[7, 0\] is nan"):
        gpumlp.Trainer(net).fit(broken, labels, 1, progress=False)


@pytest.mark.parametrize("settings", [{}, {"accumulate": 3}, {"memory": "low"}], ids=repr)
@pytest.mark.parametrize("norm", ["layer", "rms", "batch"])
@pytest.mark.parametrize("widths", [[24, 64, 64, 3], [24, 37, 37, 1030, 3]], ids=str)
def test_blocks(widths: list[int], norm: str, settings: Any) -> None:
    """Against NumPy, with the same bits in each run; rows of part of a warp, and of many."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(700, 24)), rng.integers(0, 3, 700)
    blocks = {"norm": norm, "gated": "silu", "dropout": 0.2, "residual": True}
    nets = [
        gpumlp.MLP(widths, "gelu", precision="float64", backend=backend, seed=1, **blocks)
        for backend in ("numpy", "cupy", "cupy")
    ]
    rule = gpumlp.OPTIMIZERS["adamw"].set(eps=1e-3)  # gradients that are 0 stay near 0
    for net in nets:
        trainer = gpumlp.Trainer(net, rule, lr=0.01, batch_size=200, **settings)
        trainer.fit(x, y, 5, progress=False)
    want, got, again = (net.tensors() for net in nets)
    for name, tensor in want.items():
        np.testing.assert_allclose(got[name], tensor, 1e-8, 1e-10, err_msg=name)
        assert np.array_equal(got[name], again[name])
    np.testing.assert_allclose(nets[1].predict(x), nets[0].predict(x), 1e-8, 1e-10)


@pytest.mark.parametrize("embed", [EMBED, {1: (50_000, 33)}], ids=["small", "large"])
@pytest.mark.parametrize("m", [16, 5000])
def test_embeddings(m: int, embed: Any) -> None:
    """Against NumPy, from arrays on the GPU, and with the same bits in each run."""
    cupy = pytest.importorskip("cupy")
    x, y = examples(m, embed)
    nets = [
        gpumlp.MLP(WIDTHS, "gelu", embed=embed, precision="float64", backend=backend, seed=1)
        for backend in ("numpy", "cupy", "cupy")
    ]
    for net, of in zip(nets, (x, x, cupy.asarray(x)), strict=True):
        gpumlp.Trainer(net, "adamw", lr=0.01, batch_size=m, seed=3).fit(of, y, 10, progress=False)
    want, got, again = (net.tensors() for net in nets)
    for name, tensor in want.items():
        np.testing.assert_allclose(got[name], tensor, 1e-8, 1e-10, err_msg=name)
        assert np.array_equal(got[name], again[name])
    broken = cupy.asarray(x)
    broken[7, 1] = 0.5
    with pytest.raises(ValueError, match=r"x\[7, 1\] is 0.5"):
        nets[1].predict(broken)


@pytest.mark.parametrize("plain", [1, 4, 8])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_product_of_columns(precision: str, plain: int) -> None:
    """gz W of the last columns of W, which begin at any address."""
    backend = get_backend("cupy", precision)
    rng = np.random.default_rng(plain)
    gz, W = rng.integers(-8, 8, (300, 64)), rng.integers(-8, 8, (64, plain + 40))
    on_gpu = [backend.asarray(a, dtype=backend.storage) for a in (gz, W)]
    gx = backend.empty((300, 40), backend.storage)
    backend.input_gradient(*on_gpu, gx)
    want = backend.asarray(gz @ W[:, plain:], dtype=backend.storage)
    assert np.array_equal(backend.to_host(gx), backend.to_host(want))
