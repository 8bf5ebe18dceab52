"""Exported models of columns of categories compute Preparation.inputs, in both runtimes."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from gpumlp import MLP, Ensemble
from gpumlp.data import Preparation, load_inputs
from gpumlp.interop.onnx import export_onnx
from tests.support.cli_cases import SMALL, rows_of, run
from tests.support.data_cases import write_csv
from tests.support.onnx_runs import outputs
from tests.support.timing import slowdown

WORDS = {"town": ("bonn", "köln", "x y"), "colour": ("blue", "red"), "fill": ("a", "b")}
M = 240


def known(**more):
    """Numbers with and without missing values; categories with others, with gaps, plain."""
    settings = {
        "task": "classification",
        "features": ("town", "age", "colour", "size", "fill", "area"), "target": "kind",
        "classes": ("no", "yes", "perhaps"), "categories": WORDS, "others": ("town",),
        "holes": ("age", "colour"), "fill": (0.0, 41.0, 0.0, 3.0, 0.0, 7.0),
        "shift": (0.0, 40.0, 0.0, 2.5, 0.0, 1.7e9), "scale": (1.0, 9.0, 1.0, 0.1, 1.0, 100.0),
    }  # fmt: skip
    return Preparation(**{**settings, **more})


def raw(preparation, rng, m=40):
    """The inputs of a graph, and the same as x of `Preparation.inputs`."""
    inputs, x = {}, np.empty((m, len(preparation.features)))
    for j, name in enumerate(preparation.features):
        words = preparation.categories.get(name)
        if words is None:
            x[:, j] = rng.normal(size=m) * 10 + (preparation.shift or [0] * 9)[j]
            x[rng.random(m) < 0.2, j] = np.nan
            inputs[name] = x[:, j : j + 1]
        else:
            many = np.array([*words, "unknown", ""], object)
            at = rng.integers(0, len(many), m)
            x[:, j] = np.where(at == len(words) + 1, np.nan, at)
            inputs[name] = many[at][:, None]
    return inputs, x


CASES = [
    {},
    {"holes": (), "others": ()},
    {"holes": ("colour", "fill"), "others": ("colour", "fill")},
    {"shift": None, "scale": None},
    {"features": ("colour", "town"), "categories": {k: WORDS[k] for k in ("colour", "town")},
     "fill": (0.0, 0.0), "shift": None, "scale": None, "holes": ("town",)},
    {"categories": {**WORDS, "town": ()}},  # all are rare, in a file of an earlier version
    {"categories": {**WORDS, "town": ()}, "others": ()},
    {"categories": {**WORDS, "town": ()}, "others": (), "holes": ("town", "age")},
    {"embedded": {"town": 3}},  # without a place in training for missing towns
    {"embedded": {"town": 1, "colour": 4, "fill": 2}},
    {"embedded": {"town": 5}, "categories": {**WORDS, "town": ()}, "others": ()},
    {"embedded": {"town": 3}, "features": ("age", "town", "colour", "size", "fill", "area"),
     "holes": (), "fill": (0.0,) * 6, "shift": None, "scale": None},  # it is input 1
]  # fmt: skip


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("opset", [13, 17, 24])
@pytest.mark.parametrize("more", CASES, ids=lambda p: ",".join(p) or "all")
def test_graph_agrees_with_preparation(more, opset, precision, rng):
    preparation = known(**more)
    width = len(preparation.columns)
    embed = {"embed": preparation.embed} if preparation.embedded else {}
    net = MLP([width, 7, 3], "tanh", precision=precision, backend="numpy", seed=4, **embed)
    model = export_onnx(net, opset=opset, preparation=preparation)
    inputs, x = raw(preparation, rng)
    p = preparation.outputs(net.predict(preparation.inputs(x)))
    exact = 1e-12 if precision == "float64" else 1e-5
    for found in outputs(model, inputs):
        np.testing.assert_allclose(found["probabilities"], p, rtol=exact)
        assert found["label"].tolist() == [preparation.classes[i] for i in p.argmax(axis=1)]


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("embed", [{1: (9, 3)}, {0: (4, 1), 1: (9, 3), 3: (5, 2)}, {3: (7, 12)}])
def test_codes_of_a_network_alone_and_of_an_ensemble(embed, precision, rng):
    settings = {"precision": precision, "backend": "numpy", "embed": embed}
    blocks = {"norm": "layer", "residual": True}
    x = rng.normal(size=(20, 4))
    for j, (c, _) in embed.items():
        x[:, j] = rng.integers(c, size=20)
    for net in (
        MLP([4, 6, 6, 2], "tanh", seed=2, **settings, **blocks),
        Ensemble(2, [4, 6, 2], "tanh", seeds=[1, 2], **settings),
    ):
        model = export_onnx(net)
        names = {each.name for each in model.graph.initializer}
        prefix = "members.1." if isinstance(net, Ensemble) else ""
        assert f"{prefix}embed.{max(embed)}.weight" in names
        for found in outputs(model, {"x": x.astype(precision)}):
            exact = 1e-12 if precision == "float64" else 1e-5
            np.testing.assert_allclose(found["predictions"], net.predict(x), rtol=exact)


def test_probabilities_of_large_logits_keep_their_order_and_nan_gets_no_label():
    preparation = Preparation("classification", ("a",), "y", ("no", "yes"))
    net = MLP([1, 2, 1], loss="binary_cross_entropy", backend="numpy")
    net.layers[0].W[...], net.layers[1].W[...] = [[1], [-1]], [[1, -1]]
    z = np.array([-30.0, -20, 0, 18, 20, 30, 1e300, np.nan])[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        each = [*outputs(export_onnx(net, preparation=preparation), {"x": z})]
    for found in each:
        p = found["probabilities"]
        np.testing.assert_allclose(p[:6, 1], 1 / (1 + np.exp(-z[:6, 0])), atol=1e-15)
        np.testing.assert_allclose(p[:6, 0], 1 / (1 + np.exp(z[:6, 0])), atol=1e-15)
        assert len(set(p[:6, 1])) == 6
        assert found["label"].tolist() == ["no"] * 3 + ["yes"] * 4 + [""]


@pytest.mark.parametrize("embedded", [{}, {"town": 3, "fill": 2}])
def test_network_inputs_are_in_order(embedded, rng):
    """A network that is the identity returns its inputs."""
    preparation = known(task="regression", classes=None, embedded=embedded)
    n = len(preparation.columns)
    net = MLP([n, n], loss="squared_error", precision="float64", backend="numpy")
    net.layers[0].W[...], net.layers[0].b[...] = np.eye(n), 0
    inputs, x = raw(preparation, rng)
    for found in outputs(export_onnx(net, preparation=preparation), inputs):
        np.testing.assert_allclose(found["values"], preparation.inputs(x), rtol=1e-12)


def test_inputs_and_metadata(tmp_path):
    preparation = known()
    net = MLP([len(preparation.columns), 3], backend="numpy")
    export_onnx(net, tmp_path / "m.onnx", preparation=preparation, link=False)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    kinds = {entry.name: (entry.type, entry.shape) for entry in session.get_inputs()}
    assert list(kinds) == list(preparation.features)
    for name, kind in kinds.items():
        words = name in WORDS
        assert kind == ("tensor(string)" if words else "tensor(double)", ["batch", 1])
    model = onnx.load(tmp_path / "m.onnx")
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17), ("ai.onnx.ml", 2)]
    properties = {prop.key: prop.value for prop in model.metadata_props}
    assert json.loads(properties["categories"]) == {
        name: list(words) for name, words in WORDS.items()
    }


NAMES = ["label", "probabilities", "0.weight", "", "inputs/fill", "x", "inputs/order", "variable",
         "inputs/words/town", "inputs/IsNaN_1", "output/classes", "unnamed", "batch"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_column_may_have_any_name_that_the_graph_uses(name, rng):
    preparation = known(features=("town", "age", "colour", "label_", "fill", name))
    net = MLP([len(preparation.columns), 3], backend="numpy", seed=2)
    model = export_onnx(net, preparation=preparation)
    inputs, x = raw(preparation, rng)
    own = [entry.name for entry in model.graph.input]
    assert own == [name or "unnamed" for name in preparation.features]
    inputs = dict(zip(own, inputs.values(), strict=True))
    p = preparation.outputs(net.predict(preparation.inputs(x)))
    for found in outputs(model, inputs):
        names = ["probabilities_" if name == "probabilities" else "probabilities",
                 "label__" if name == "label" else "label"]  # fmt: skip
        assert list(found) == names
        np.testing.assert_allclose(found[names[0]], p, rtol=1e-5, atol=1e-30)
        assert found[names[1]].tolist() == [preparation.classes[i] for i in p.argmax(axis=1)]


def test_whole_numbers_with_a_point_and_truth_values_are_the_categories_that_they_mean(rng):
    words = {"town": ("1", "2"), "colour": ("False", "True"), "fill": ("01", "1")}
    preparation = known(categories=words, others=())
    net = MLP([len(preparation.columns), 3], backend="numpy", seed=2)
    model = export_onnx(net, preparation=preparation)
    inputs = {name: np.zeros((2, 1)) for name in preparation.features}
    p = []
    for town, colour, fill in (("1", "False", "1"), ("1.0", "FALSE", "1.0")):
        inputs |= {
            name: np.array([[word], [""]], object)
            for name, word in {"town": town, "colour": colour, "fill": fill}.items()
        }
        p += [found["probabilities"] for found in outputs(model, inputs)]
    for other in p[1:]:
        np.testing.assert_allclose(other, p[0], rtol=1e-6)


def test_a_graph_knows_the_spellings_that_a_table_has(tmp_path, rng):
    """And not those of two categories, such as True of true and TRUE."""
    words = {
        "town": ("TRUE", "perhaps", "true"),
        "colour": ("false", "true", "x"),
        "fill": ("k\xf6ln",),
    }
    texts = [("TRUE", "1", "ko\u0308ln"), ("True", "0.0", "k\xf6ln"), ("true", "TRUE", "bonn")]
    preparation = known(categories=words, others=(), holes=(), shift=None, scale=None)
    columns = dict(zip(WORDS, zip(*texts, strict=True), strict=True))
    numbers = {name: (1.0,) * 3 for name in preparation.features if name not in WORDS}
    path = write_csv(tmp_path / "t.csv", columns | numbers)
    x = load_inputs(path, preparation)
    net = MLP([len(preparation.columns), 3], backend="numpy", seed=2)
    inputs = {name: np.array(values, object)[:, None] for name, values in columns.items()}
    inputs |= {name: np.ones((3, 1)) for name in numbers}
    p = net.predict(preparation.inputs(x))
    for found in outputs(export_onnx(net, preparation=preparation), inputs):
        np.testing.assert_allclose(found["probabilities"], p, rtol=1e-5)


@pytest.fixture
def houses(tmp_path, rng):
    """A table with categories, missing values and numbers that are categories; and its model."""
    town = np.array(["bonn", "köln", "ulm", "rare", ""])[
        rng.choice(5, M, p=[0.4, 0.3, 0.2, 0.01, 0.09])
    ]
    zone = rng.integers(1, 5, M)
    age = np.where(rng.random(M) < 0.1, "", rng.normal(40, 9, M).round(2).astype(str))
    price = 100 * zone + 50 * (town == "bonn") + rng.normal(size=M)
    columns = {"town": town, "age": age, "zone": zone, "price": price}
    path = write_csv(tmp_path / "houses.csv", columns)
    options = ["--target", "price", "--categorical", "zone", "--out", tmp_path / "o"]
    run("train", path, *options, *SMALL)
    return path, columns, tmp_path / "o" / "model.safetensors"


@pytest.mark.parametrize("embed", [None, "2,town=4"])
def test_gpumlp_export_agrees_with_gpumlp_predict(houses, tmp_path, embed):
    path, columns, model = houses
    if embed:
        config = model.with_name("run.toml")
        run("train", "--config", config, "--embed", embed, "--out", tmp_path / "e", "--quiet")
        model = tmp_path / "e" / "model.safetensors"
        assert Preparation.load(model).embedded == {"town": 4, "zone": 2}
    output = run("export", model, tmp_path / "m.onnx").stdout
    assert "inputs   town (batch, 1), age (batch, 1), zone (batch, 1)\n" in output
    new = {name: values[:9].copy() for name, values in columns.items() if name != "price"}
    new["town"][:2], new["zone"][1:3] = ["paris", ""], 77
    write_csv(path, new)
    rows = rows_of(run("predict", model, path).stdout)
    ages = [float(text or "nan") for text in new["age"]]
    inputs = {name: np.array(new[name]).astype(str).astype(object)[:, None] for name in new}
    inputs["age"] = np.array(ages)[:, None]
    for found in outputs(onnx.load(tmp_path / "m.onnx"), inputs):
        values = [float(row["prediction"]) for row in rows]
        np.testing.assert_allclose(found["values"][:, 0], values, rtol=1e-6)


def test_wrong_uses_raise(houses, tmp_path):
    model = houses[-1]
    out = tmp_path / "m.onnx"
    for arguments, message in [
        ([model, out, "--opset", 12], "opset must be at least 13"),
        ([model, tmp_path / "m.npz", "--raw"], "are for .onnx files"),
    ]:
        assert message in run("export", *arguments, code=2).stderr
    assert not out.exists()
    run("export", model, out, "--no-raw")
    assert [entry.name for entry in onnxruntime.InferenceSession(out).get_inputs()] == ["x"]


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("words", [{}, {"town": ("bonn", "köln")}])
def test_dates_and_constant_columns(words, precision, rng):
    """A column of dates is an input in days since 1970."""
    preparation = Preparation(
        "regression", ("town", "sold", "age", "seen"), "price", shift=(0.0, 19_000.0, 5.0, 0.4),
        scale=(1.0, 300.0, 2.0, 0.3), fill=(0.0, 19_100.0, 5.0, 0.5), holes=("sold", "age"),
        categories=words, constant={"age": 5.0},
        dates={"sold": ("month", "weekday"), "seen": ("hour",)},
    )  # fmt: skip
    m = 200
    x = np.stack([
        rng.integers(0, 2, m), rng.uniform(-9000, 30_000, m), rng.normal(size=m), rng.random(m)
    ], axis=1)  # fmt: skip
    x[::7, 1:] = np.nan
    inputs = {"x": x}
    if words:
        inputs = {name: x[:, [j]] for j, name in enumerate(preparation.features)}
        inputs["town"] = np.array(words["town"], object)[x[:, [0]].astype(int)]
    net = MLP([len(preparation.columns), 4, 1], "tanh", precision=precision, backend="numpy")
    want = net.predict(preparation.inputs(x))
    model = export_onnx(net, None, preparation=preparation)
    for found in outputs(model, inputs):
        [values] = found.values()
        np.testing.assert_allclose(values.reshape(want.shape), want, rtol=1e-5, atol=1e-6)


def test_wide_graph_takes_time_in_proportion():
    def prepared(n):
        names = tuple(f"g{j}" for j in range(n))
        preparation = Preparation(
            "regression", names, "y", fill=(0.0,) * n, holes=names[::2],
            dates=dict.fromkeys(names[1::4], ("month",)),
        )  # fmt: skip
        net = MLP([len(preparation.columns), 1], loss="squared_error", backend="numpy")
        return lambda: export_onnx(net, preparation=preparation)

    assert slowdown(prepared, 250, 4000, most=2) < 2
