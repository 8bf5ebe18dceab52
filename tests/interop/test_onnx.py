"""Exported networks agree with gpumlp in onnxruntime and in onnx's reference implementation."""

import json
import re
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpumlp
from gpumlp import ACTIVATIONS, MLP
from gpumlp.data import Dataset, Preparation
from gpumlp.interop.onnx import OPSET, export_onnx
from gpumlp.interop.onnx_graph import NATIVE
from tests.support import networks
from tests.support.onnx_runs import outputs
from tests.support.refusal import refusal

OPSETS = (13, OPSET, 20, 24)
NEEDS = {13: 7, 17: 8, 20: 9, 24: 12}  # opset → IR version


def check(net, model, x, expected, name):
    """Both agree with `expected`, to 1e-5 of the largest in float32, 1e-12 in float64."""
    erf = any(node.op_type == "Erf" for node in model.graph.node)
    tolerance = 1e-12 if net.precision == "float64" and not erf else 1e-5
    for found in outputs(model, {"x": x}):
        assert found[name].dtype == expected.dtype
        assert found[name].shape == expected.shape
        error = abs(found[name] - expected).max() / abs(expected).max()
        assert error <= tolerance, f"{net!r}: {error}"


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("f", ACTIVATIONS)
def test_every_activation(f, opset, precision, rng):
    net = networks.network(f, "squared_error", 3, f, precision=precision)
    x = (2 * rng.normal(size=(40, 3))).astype(precision)
    x = x / 5 if f == "exponential" else x
    model = export_onnx(net, opset=opset)
    assert (model.opset_import[0].version, model.ir_version) == (opset, NEEDS[opset])
    check(net, model, x, net.predict(x), "predictions")


@pytest.mark.parametrize("f", NATIVE)
def test_activation_is_its_operator_if_the_opset_has_it(f):
    op, since, in_float64, _ = NATIVE[f]
    for precision, opset in (("float32", since), ("float32", since - 1), ("float64", 24)):
        if opset < 13:
            continue
        net = MLP([3, 4, 2], f, loss="squared_error", precision=precision, backend="numpy")
        nodes = [node.op_type for node in export_onnx(net, opset=opset).graph.node]
        native = opset >= since and (precision == "float32" or in_float64)
        assert (nodes == ["Gemm", op, "Gemm", "Identity"]) == native, nodes


@pytest.mark.parametrize(("f", "nodes"), [("silu", 2), ("mish", 3)])
def test_short_forms_of_activations(f, nodes):
    net = MLP([3, 4, 2], f, loss="squared_error", backend="numpy")
    assert len(export_onnx(net).graph.node) == 3 + nodes


def test_parameters_of_an_activation(rng):
    """Other than their defaults, as attributes of an operator and as NumPy expressions."""
    x = rng.normal(size=(30, 3))
    for f in (
        ACTIVATIONS["leaky_relu"].set(slope=0.3),
        ACTIVATIONS["elu"].set(alpha=0.7),
        ACTIVATIONS["selu"].set(alpha=1.1, scale=0.8),
    ):
        for precision in ("float32", "float64"):
            net = networks.network(f, "squared_error", 3, precision=precision)
            seen = x.astype(precision)
            check(net, export_onnx(net), seen, net.predict(seen), "predictions")


@pytest.mark.parametrize(
    "loss", ["softmax_cross_entropy", "binary_cross_entropy", "poisson", "huber"]
)
def test_with_the_link_and_without(loss, rng):
    net = networks.network("tanh", loss, 2)
    x = rng.normal(size=(9, 3))
    check(net, export_onnx(net), x, net.predict(x), "predictions")
    check(net, export_onnx(net, link=False), x, net.forward(x), "y_hat")


@settings(max_examples=40)
@given(st.data())
def test_random_architectures(data):
    widths = data.draw(st.lists(st.integers(1, 40), min_size=2, max_size=6), "widths")
    names = st.sampled_from([name for name in ACTIVATIONS if name != "exponential"])
    hidden = data.draw(st.lists(names, min_size=len(widths) - 2, max_size=len(widths) - 2), "f")
    loss = data.draw(st.sampled_from(["squared_error", "softmax_cross_entropy", "poisson"]))
    precision = data.draw(st.sampled_from(["float32", "float64"]))
    opset, seed = data.draw(st.sampled_from(OPSETS)), data.draw(st.integers(0, 99))
    net = MLP(widths, hidden, loss=loss, precision=precision, backend="numpy", seed=seed)
    rng = np.random.default_rng(seed)
    for layer in net.layers:
        layer.b[...] = rng.normal(size=layer.b.shape)
    for rows in (1, 7):  # the batch size is variable
        x = rng.normal(size=(rows, widths[0])).astype(precision)
        check(net, export_onnx(net, opset=opset), x, net.predict(x), "predictions")


# ---- the user's own entries ----------------------------------------------------------------------


def own(f, **params):
    return gpumlp.Activation("mine", f, df=lambda z, h: 1, params=params)


def tempered(z, t):
    h = np.exp((z - np.max(z, axis=-1, keepdims=True)) / t)
    h /= h.sum(axis=1, keepdims=True)
    return h


@pytest.mark.parametrize(
    "f",
    [
        own(lambda z, b: 0.5 * (z + np.sqrt(z * z + b)), b=4.0),  # squareplus
        own(lambda z: np.where((z > -1) & ~(z >= 2), np.square(z) - z**3, np.clip(-z, -2, 0.5))),
        own(lambda z: (z > 0) * np.log1p(np.abs(z)) + np.expm1(np.minimum(z, 0)) * (z <= 0)),
        own(lambda z: np.logaddexp(z, 0).clip(max=3) - np.sign(z) / (1 + np.fabs(z))),
        own(lambda z: np.sin(z) + np.where(z, 1, 2) + np.clip(z, a_min=-1, a_max=1)),
        gpumlp.Activation("mine", tempered, vjp=lambda z, h, gh: gh, params={"t": 0.5}),
    ],
)
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("opset", [13, 20])
def test_own_entry_is_exported_by_its_numpy_expression(f, precision, opset, rng):
    net = networks.network(f, "squared_error", 3, precision=precision)
    x = (2 * rng.normal(size=(60, 3))).astype(precision)
    check(net, export_onnx(net, opset=opset), x, net.predict(x), "predictions")


def test_writing_to_out_is_exported(rng):
    def f(z):
        h = z + 0
        np.maximum(h, 0, out=h)
        return h * h

    net = networks.network(own(f), "squared_error", 3)
    x = rng.normal(size=(20, 3))
    check(net, export_onnx(net), x, net.predict(x), "predictions")


@pytest.mark.parametrize(
    ("f", "reason"),
    [
        (lambda z: np.arctan(z), "it uses arctan"),
        (lambda z: np.ones_like(z), "it uses numpy.ones_like"),
        (lambda z: z if z > 0 else -z, 'it asks "if z …"'),
        (lambda z: np.asarray(z) + 1, "numpy.asarray(z)"),
        (lambda z: z[:, :1], "it takes parts of z"),
        (lambda z: z / z.std(), "it uses z.std"),
        (lambda z: z.sum(axis=0), "axis=-1, keepdims=True"),
        (lambda z: 1.0, "its f returns float"),
        (lambda z: np.add.reduce(z), "it uses numpy.add with reduce"),
    ],
)
def test_unsupported_numpy_code_raises(f, reason):
    net = MLP([3, 4, 2], own(f), backend="numpy")
    advice = "write its f with + - * / **, comparisons, NumPy's where, clip, absolute, "
    refusal(ValueError, lambda: export_onnx(net), "activation 'mine'", reason, advice)


# ---- with a preparation --------------------------------------------------------------------------


def prepared(rng, classes, loss="softmax_cross_entropy", n=3):
    """A network in float32, and a preparation with offsets that float32 cannot represent."""
    x = rng.normal(size=(50, 3)) * [1, 1e3, 1e-3] + [1.7e9, 0, 5]
    y = rng.integers(0, len(classes), 50) if classes else 1e4 + rng.normal(size=(50, n))
    task = "classification" if classes else "regression"
    dataset = Dataset("t", task, x, y, ("when", "width", "naïve"), classes, "kind")
    net = networks.network("relu", loss, 2, precision="float32")
    net = MLP([3, 8, n], loss=loss, precision="float32", backend="numpy", seed=3)
    return net, x, Preparation.of(dataset, x=True, y=not classes)


@pytest.mark.parametrize(
    ("classes", "loss", "n"),
    [
        (("setosa", "vïrginica", "x y"), "softmax_cross_entropy", 3),
        (("no", "yes"), "binary_cross_entropy", 1),
    ],
)
def test_labels_of_columns(classes, loss, n, rng):
    net, x, preparation = prepared(rng, classes, loss, n)
    model = export_onnx(net, preparation=preparation)
    p = preparation.outputs(net.predict(preparation.inputs(x)))
    check(net, model, x, p, "probabilities")
    for found in outputs(model, {"x": x}):
        assert found["label"].tolist() == [classes[i] for i in p.argmax(axis=1)]
    check(
        net, export_onnx(net, preparation=preparation, link=False), x,
        net.forward(preparation.inputs(x)).astype(float), "y_hat",
    )  # fmt: skip


def test_values_are_in_the_targets_unit(rng):
    net, x, preparation = prepared(rng, None, "squared_error", 2)
    p = preparation.outputs(net.predict(preparation.inputs(x)))
    check(net, export_onnx(net, preparation=preparation), x, p, "values")


@dataclass(frozen=True)
class Wider(Preparation):
    """A preparation that does more."""

    embeddings: tuple[str, ...] = ()


def test_missing_values_are_filled_and_indicated(rng):
    _, x, known = prepared(rng, ("a", "b", "c"))
    gone = rng.random(x.shape) < 0.2
    fill, known = (1.7e9, 5.0, -3.0), known.to_json()
    net = MLP([5, 8, 3], backend="numpy")
    wider = Preparation(**{**known, "fill": fill, "holes": ("when", "naïve")})
    seen = (np.where(gone, fill, x) - known["shift"]) / known["scale"]
    seen = np.c_[seen[:, 0], gone[:, 0], seen[:, 1:], gone[:, 2]]
    model = export_onnx(net, preparation=wider)
    p = net.predict(seen.astype("float32")).astype(float)
    check(net, model, np.where(gone, np.nan, x), p, "probabilities")


def test_unsupported_preparation_raises(rng):
    net, _, preparation = prepared(rng, ("a", "b", "c"))
    wider = Wider(**{**preparation.to_json(), "embeddings": ("red",)})
    refusal(
        ValueError, lambda: export_onnx(net, preparation=wider), "embeddings", "preparation=None"
    )


# ---- the file ------------------------------------------------------------------------------------


def test_names_and_metadata(rng, tmp_path):
    net, _, preparation = prepared(rng, ("a", "b", "c"))
    export_onnx(net, tmp_path / "m.onnx", preparation=preparation)
    model = onnx.load(tmp_path / "m.onnx")
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    for name, tensor in net.tensors().items():
        np.testing.assert_array_equal(stored[name], tensor)  # (out, in), as torch has them
    properties = {prop.key: prop.value for prop in model.metadata_props}
    assert properties.pop("gpumlp") == model.producer_version == gpumlp.__version__
    properties = {key: json.loads(value) for key, value in properties.items()}
    assert properties == {
        "network": net.config(), "task": "classification", "target": "kind",
        "features": ["when", "width", "naïve"], "classes": ["a", "b", "c"],
    }  # fmt: skip
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert session.get_inputs()[0].shape == ["batch", 3]
    assert [output.shape for output in session.get_outputs()] == [["batch", 3], ["batch"]]


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize(
    "loss", ["softmax_cross_entropy", "binary_cross_entropy", "poisson", "huber"]
)
def test_an_ensemble_is_one_graph(loss, opset, precision, rng):
    """The mean after the link, without members that diverged."""
    e = gpumlp.Ensemble(4, [3, 8, 2], "gelu", loss=loss, precision=precision, backend="numpy")
    e.diverged = {1}
    x = rng.normal(size=(40, 3)).astype(precision)
    model = export_onnx(e, opset=opset)
    check(e, model, x, e.predict(x), "predictions")
    names = {tensor.name for tensor in model.graph.initializer}
    assert {"members.0.0.weight", "members.2.2.bias"} <= names
    assert "members.3.0.weight" not in names
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(about["ensemble"])["seeds"] == [0, 1, 2, 3]
    if e.loss.link.name == "identity":
        check(e, export_onnx(e, link=False), x, e.predict(x), "y_hat")
    else:
        said = "link=False is for single networks"
        refusal(ValueError, lambda: export_onnx(e, link=False), said, "pass link=True")


def test_an_ensemble_with_a_preparation(rng):
    """One output for two classes, in float64 from the logits on."""
    _, x, known = prepared(rng, ("a", "b"))
    e = gpumlp.Ensemble(3, [len(known.columns), 6, 1], loss="binary_cross_entropy", backend="numpy")
    inputs = known.inputs(x)
    p = np.mean([known.outputs(net.predict(inputs)) for net in e], axis=0)
    for found in outputs(export_onnx(e, preparation=known), {"x": x}):
        np.testing.assert_allclose(found["probabilities"], p, rtol=1e-5)
        best = np.array(["a", "b"])[p.argmax(axis=1)]
        assert found["label"].tolist() == best.tolist()


def test_large_tensors_go_into_a_second_file(rng, tmp_path, monkeypatch):
    monkeypatch.setattr("gpumlp.interop.onnx.LIMIT", 100)
    net = networks.network("gelu", "squared_error", 3)
    x = rng.normal(size=(5, 3))
    export_onnx(net, tmp_path / "m.onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "m.onnx.data"}
    assert (tmp_path / "m.onnx.data").stat().st_size >= 8 * net.theta.layout.count
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    np.testing.assert_allclose(session.run(None, {"x": x})[0], net.predict(x), rtol=1e-12)


def test_invalid_arguments_raise(tmp_path, rng):
    net = MLP([4, 2], backend="numpy")
    other = prepared(rng, ("a", "b"))[-1]
    refusal(ValueError, lambda: export_onnx(net, preparation=other), "3 inputs", "has 4")
    newest = onnx.defs.onnx_opset_version()
    for opset, bound in ((12, "at least 13"), (newest + 1, f"at most {newest}")):
        refusal(ValueError, lambda o=opset: export_onnx(net, opset=o), "opset", bound)
    refusal(TypeError, lambda: export_onnx(net, opset="17"), "opset must be a whole number")
    refusal(FileNotFoundError, lambda: export_onnx(net, tmp_path / "no" / "m.onnx"), "folder")
    refusal(IsADirectoryError, lambda: export_onnx(net, tmp_path), "it is a folder")


def test_missing_onnx_raises(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=re.escape('pip install "gpumlp[onnx]"')):
        export_onnx(MLP([3, 2], backend="numpy"))
