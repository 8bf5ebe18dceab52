"""Norms, gates, dropout and skips in ONNX: against the network, in onnxruntime and onnx's own."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from gpumlp import ACTIVATIONS, MLP, Ensemble
from gpumlp.data import Dataset, Preparation
from gpumlp.functions.stages import GATES, NORMS
from gpumlp.interop.onnx import export_onnx
from tests.support.blocks import COLUMN_RMS, MANY, WIDTHS, batch_network, random_network
from tests.support.onnx_runs import outputs, session
from tests.support.refusal import refusal

RNG = np.random.default_rng(5)
OPSETS = (13, 17, 18, 24)
NEAR = {"float32": 1e-5, "float64": 1e-12}


def tamed(net: MLP) -> MLP:
    """The network with such variances that batch norm leaves small numbers, for the exponential."""
    net.assign({k: a + 1e3 * k.endswith("_var") for k, a in net.tensors().items()})
    return net


def network(precision: str = "float32", **blocks: Any) -> MLP:
    net = MLP(WIDTHS, "gelu", backend="numpy", precision=precision, seed=1, **MANY | blocks)
    net.assign({k: v + 0.2 * RNG.normal(size=v.shape) for k, v in net.tensors().items()})
    return net


def check(model: Any, x: Any, want: Any, near: float, name: str = "predictions") -> None:
    """Both implementations agree with `want`, relative to the largest entry."""
    for found in (each[name] for each in outputs(model, {"x": x})):
        assert found.dtype == want.dtype
        np.testing.assert_allclose(found, want, 0, near * float(np.abs(want).max()))


@pytest.mark.parametrize("precision", NEAR)
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("make", [random_network, batch_network])
@pytest.mark.parametrize("seed", range(6))
def test_random_networks(seed: int, make: Any, opset: int, precision: str) -> None:
    net = make(seed, precision=precision)
    x = RNG.normal(size=(40, net.widths[0])).astype(precision)
    for link, want in ((True, net.predict(x)), (False, net.forward(x))):
        model = export_onnx(net, opset=opset, link=link)
        check(model, x, want, NEAR[precision], "predictions" if link else "y_hat")


@pytest.mark.parametrize("precision", NEAR)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("f", GATES)
def test_every_gate_and_norm(f: str, norm: str, precision: str) -> None:
    net = network(precision, gated=f, norm=NORMS[norm].set(eps=0.05), residual=2)
    net = tamed(net) if f == "exponential" else net
    x = RNG.normal(size=(30, 6)).astype(precision)
    near = 1e-5 if f == "gelu_erf" else NEAR[precision]  # onnxruntime's erf is float32
    check(export_onnx(net), x, net.predict(x), near)


@pytest.mark.parametrize("precision", NEAR)
def test_a_norm_of_large_numbers_subtracts_the_mean_first(precision: str) -> None:
    net = MLP([6, 8, 3], "identity", norm="layer", backend="numpy", precision=precision)
    net.layers[0].b[...] = 1e3
    x = RNG.normal(size=(30, 6)).astype(precision)
    for opset in OPSETS:
        near = 1e-3 if precision == "float32" else 1e-10  # the rounding of h itself
        check(export_onnx(net, opset=opset, link=False), x, net.forward(x), near, "y_hat")


def test_which_operators_the_graph_has() -> None:
    def nodes(precision: str, opset: int, **blocks: Any) -> list[str]:
        plain: dict[str, Any] = {"norm": None, "residual": False, "gated": None, "dropout": 0.0}
        net = network(precision, **plain | blocks)
        made = export_onnx(net, opset=opset, link=False).graph.node
        return [n.op_type for n in made if n.op_type not in ("Gemm", "Identity")]

    f = nodes("float32", 20)
    assert f == ["Gelu"] * 3
    assert nodes("float32", 20, dropout=0.5) == f
    assert nodes("float32", 20, norm="layer").count("LayerNormalization") == 3
    assert "LayerNormalization" not in nodes("float64", 20, norm="layer")
    assert "LayerNormalization" not in nodes("float32", 13, norm="layer")
    assert nodes("float32", 20, norm="rms").count("ReduceMean") == 3
    assert nodes("float32", 20, norm="batch").count("BatchNormalization") == 3
    assert nodes("float32", 20, residual=True) == ["Gelu", "Gelu", "Add", "Gelu", "Add"]
    assert nodes("float32", 20, gated="silu") == ["Split", "Sigmoid", "Mul", "Mul"] * 3


def test_names_of_parameters() -> None:
    net = network()
    found = {each.name for each in export_onnx(net).graph.initializer}
    assert set(net.tensors()) <= found


@pytest.mark.parametrize("precision", NEAR)
def test_an_ensemble_is_one_graph(precision: str) -> None:
    ensemble = Ensemble(3, WIDTHS, "gelu", backend="numpy", precision=precision, **MANY)
    ensemble.diverged = {1}
    model = export_onnx(ensemble)
    x = RNG.normal(size=(20, 6)).astype(precision)
    check(model, x, ensemble.predict(x), NEAR[precision])
    names = {each.name for each in model.graph.initializer}
    assert {"members.1.4.skip.weight", "members.0.2.norm.bias"} <= names
    assert not any(name.startswith("members.2.") for name in names)


def test_with_a_preparation_the_graph_takes_raw_columns() -> None:
    x = RNG.normal(size=(60, 6)) * [1, 10, 100, 1, 1, 1] + 5
    classes = ("a", "b", "c")
    data = Dataset("t", "classification", x, np.arange(60) % 3, tuple("uvwxyz"), classes)
    preparation = Preparation.of(data, x=True, y=False)
    net = network()
    model = export_onnx(net, preparation=preparation)
    p = net.predict(preparation.inputs(x).astype(np.float32)).astype(np.float64)
    check(model, x, p, 1e-5, "probabilities")
    assert list(session(model).run(["label"], {"x": x})[0]) == [classes[i] for i in p.argmax(1)]


def test_a_norm_of_ones_own_is_traced() -> None:
    rms = NORMS["rms"]

    def forward(x: Any, phi: Any, eps: float) -> Any:
        return x / (np.abs(x).mean(axis=-1, keepdims=True) + eps) * phi[0]

    own = dataclasses.replace(rms, name="mean_absolute", forward=forward)
    net = network(norm=own)
    x = RNG.normal(size=(20, 6)).astype(np.float32)
    check(export_onnx(net), x, net.predict(x), 1e-5)
    wrong = dataclasses.replace(own, name="sorted", forward=lambda x, phi, eps: np.sort(x))
    refusal(
        ValueError, lambda: export_onnx(network(norm=wrong)),
        "norm 'sorted' cannot be written in ONNX: it uses numpy.sort", "write its forward with",
    )  # fmt: skip


@pytest.mark.parametrize("precision", NEAR)
def test_a_norm_over_columns_of_ones_own_is_traced(precision: str) -> None:
    net = network(precision, norm=COLUMN_RMS)
    x = RNG.normal(size=(20, 6)).astype(precision)
    model = export_onnx(net)
    check(model, x, net.predict(x), NEAR[precision])
    assert "2.norm.running_square" in {each.name for each in model.graph.initializer}


def test_a_gate_of_ones_own_is_traced() -> None:
    own = dataclasses.replace(ACTIVATIONS["tanh"], name="mine", f=lambda z: np.tanh(z) + 0.5)
    net = network(gated=own)
    x = RNG.normal(size=(20, 6)).astype(np.float32)
    check(export_onnx(net), x, net.predict(x), 1e-5)
