"""What `gpumlp predict` and `gpumlp evaluate` refuse, and the digits of what they write."""

import io
import json

import numpy as np
import pytest

pytest.importorskip("typer")

import gpumlp
from gpumlp.cli.predictions import write_lines
from gpumlp.data import Preparation
from tests.support.cli_cases import refused, rows_of, run

COLUMNS = ("load", "speed")


def write_model(path, task="classification", classes=("no", "yes"), activation="relu", **layers):
    """A model of `gpumlp train` with given numbers: ŷ = f(x W₁ᵀ) W₂ᵀ, without biases."""
    loss = {2: "binary_cross_entropy", 3: "softmax_cross_entropy"}.get(len(classes or ()))
    settings = {"loss": loss or "squared_error", "backend": "numpy"}
    net = gpumlp.MLP([2, 2, 3 if loss == "softmax_cross_entropy" else 1], activation, **settings)
    net.layers[0].W[...] = layers.get("first", np.eye(2))
    net.layers[1].W[...] = layers.get("second", 1.0)
    preparation = Preparation(task, COLUMNS, "y", classes if task == "classification" else None)
    net.save(path, {"data": preparation.to_json()})
    return path


def write_rows(path, rows, y=None):
    columns = [*COLUMNS] if y is None else [*COLUMNS, "y"]
    rows = rows if y is None else [[*row, label] for row, label in zip(rows, y, strict=True)]
    path.write_text("\n".join(",".join(map(str, row)) for row in [columns, *rows]) + "\n")
    return path


@pytest.fixture(params=[("no", "yes"), ("a", "b", "c"), None])
def model(request, tmp_path):
    task = "classification" if request.param else "regression"
    return write_model(tmp_path / "m.safetensors", task, request.param, "tanh")


@pytest.mark.parametrize("value", ["1e300", "-3.5e38", "1e39"])
def test_values_beyond_the_network_are_refused_as_in_training(model, tmp_path, value):
    """Through tanh the network's output would be an ordinary number."""
    new = write_rows(tmp_path / "new.csv", [[1, 2], [3, value], [5, 6]])
    said = refused("predict", model, new)
    assert f"row 2 has {float(value):g} as the input 'speed'" in said
    assert "beyond the network's float32; correct or remove the row" in said
    for form in ("csv", "npy", "parquet"):
        refused("predict", model, new, "--out", tmp_path / f"p.{form}")
        assert not (tmp_path / f"p.{form}").exists()
    run("predict", model, write_rows(tmp_path / "good.csv", [[1, 2], [5, 6]]))


def test_evaluate_refuses_them_too(tmp_path):
    model = write_model(tmp_path / "m.safetensors", activation="tanh")
    data = write_rows(tmp_path / "t.csv", [[1, 2], [3, 1e300], [5, 6]], ["no", "yes", "yes"])
    assert "row 2 has 1e+300 as the input 'speed'" in refused("evaluate", model, data)


def test_evaluate_without_the_rows_that_have_no_target(tmp_path):
    model = write_model(tmp_path / "m.safetensors", activation="tanh")
    rows, y = np.arange(8).reshape(4, 2), ["no", "", "yes", "yes"]
    data = write_rows(tmp_path / "t.csv", rows, y)
    assert "leave out those rows, --drop-missing-target" in refused("evaluate", model, data)
    found = run("evaluate", model, data, "--drop-missing-target", "--json")
    rest = write_rows(tmp_path / "t.csv", rows[[0, 2, 3]], y[:1] + y[2:])
    assert found.stdout == run("evaluate", model, rest, "--json").stdout


@pytest.mark.parametrize("classes", [("no", "yes"), ("a", "b", "c"), None])
def test_an_output_that_is_not_a_number_gets_no_label(tmp_path, classes):
    """Finite inputs that overflow within the network: ∞ − ∞."""
    task = "classification" if classes else "regression"
    first = [[1e10, 0], [1e10, 0]]
    model = write_model(
        tmp_path / "m.safetensors", task, classes, first=first, second=np.array([1.0, -1.0])
    )
    rows = [[1, 0], [2, 0], [3e38, 0]]
    assert "output for row 3 is not a number" in refused(
        "predict", model, write_rows(tmp_path / "new.csv", rows)
    )
    y = [classes[0], classes[1], classes[0]] if classes else [0.5, 1.5, 2.5]
    data = write_rows(tmp_path / "t.csv", rows, y)
    assert "output for row 3 is not a number" in refused("evaluate", model, data)


def test_large_logits_keep_their_order(tmp_path):
    """σ(17) is 1 in float32, and 9 digits end at σ(21)."""
    model = write_model(tmp_path / "m.safetensors", second=[[1.0, -1.0]])
    z = np.array([-80, -30, -18, 0, 18, 18.5, 25, 30])
    rows = np.column_stack([np.maximum(z, 0), np.maximum(-z, 0)]).tolist()
    new = write_rows(tmp_path / "new.csv", rows)
    want = {"probability_yes": 1 / (1 + np.exp(-z)), "probability_no": 1 / (1 + np.exp(z))}
    found = rows_of(run("predict", model, new).stdout)
    lines = run("predict", model, new, "--json").stdout.splitlines()
    for name, p in want.items():
        written = np.array([float(row[name]) for row in found])
        np.testing.assert_allclose(written, p, rtol=1e-8)
        assert len(set(written)) == len(z)
        key = name.removeprefix("probability_")
        p_json = [json.loads(line)["probabilities"][key] for line in lines]
        np.testing.assert_allclose(p_json, p, rtol=1e-12)


def test_numbers_have_the_digits_that_vary(tmp_path):
    """Of a target with a large mean, such as seconds since 1970, 9 digits are those of the mean."""
    net = gpumlp.MLP([2, 1], loss="squared_error", backend="numpy")
    preparation = Preparation("regression", COLUMNS, "y", y_shift=(1.7e9,), y_scale=(1e-3,))
    net.save(tmp_path / "m.safetensors", {"data": preparation.to_json()})
    new = write_rows(tmp_path / "new.csv", [[1, 2], [3, 4]])
    for name in ("p.csv", "p.npy"):
        run("predict", tmp_path / "m.safetensors", new, "--out", tmp_path / name)
    exact = np.load(tmp_path / "p.npy")[:, 0]
    assert exact[0] != exact[1]
    written = [float(row["prediction"]) for row in rows_of((tmp_path / "p.csv").read_text())]
    np.testing.assert_allclose(written, exact, rtol=0, atol=1e-9)


@pytest.mark.parametrize("out", [True, False])
def test_labels_are_quoted_where_they_would_be_read_otherwise(out, tmp_path):
    classes = ("NA", 'a,"b"', "c\rd")
    model = write_model(tmp_path / "m.safetensors", classes=classes, second=np.eye(3, 2))
    new = write_rows(tmp_path / "new.csv", [[1, 0], [0, 1]])
    path = tmp_path / "p.csv"
    text = run("predict", model, new, *(["--out", path] if out else []))
    text = path.read_bytes().decode() if out else text.stdout
    assert text.startswith(
        'prediction,probability_NA,"probability_a,""b""","probability_c\rd"\n"NA",'
    )
    assert '\n"a,""b""",' in text


@pytest.mark.parametrize("k", [1, 2, 5, 2500])
@pytest.mark.parametrize("labelled", [True, False])
def test_lines_are_those_of_each_number_alone(k, labelled):
    """For any number of rows and columns, and labels that are formats of numbers."""
    rng = np.random.default_rng(k)
    p = rng.dirichlet(np.full(k, 0.1), 4000 if k < 9 else 3)
    p[::2] = np.roll(p[::2], 1, axis=0) * 10.0 ** rng.integers(-300, 1, len(p[::2]))[:, None]
    classes = tuple(f"%s{j}%" for j in range(k)) if labelled else None
    text = io.StringIO()
    write_lines(text, iter([p[:1], p[1:]]), [f"c{j}" for j in range(k + labelled)], classes, 9)
    header, *lines = text.getvalue().splitlines()
    assert header.count(",") == k - 1 + labelled
    for line, row in zip(lines, p.tolist(), strict=True):
        label = [f"%s{np.argmax(row)}%"] * labelled
        shown = [repr(v) if labelled and 0.99 < v < 1 else f"{v:.9g}" for v in row]
        assert line == ",".join([*label, *shown])
