"""--json: stdout holds one line of JSON, with the numbers that people are shown."""

import json
import re

import numpy as np
import pytest

pytest.importorskip("typer")

import gpumlp
from gpumlp.cli.output import print_json
from tests.support.cli_cases import FLOWERS, NAMES, SMALL, X, rows_of, run


def json_of(*arguments, code=0):
    """The JSON that a command prints: one line, without NaN, which is not JSON."""
    text = run(*arguments, "--json", code=code).stdout
    assert text.count("\n") == 1
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_train(flowers, tmp_path):
    found = json_of("train", flowers, *FLOWERS, "--patience", 1, "--out", tmp_path / "o")
    history = json.loads((tmp_path / "o" / "history.json").read_text())
    assert found["stopped"] == history["stopped"]
    assert found["epochs"] == len(history["columns"]["cost"])
    assert found["epoch"] == history["best_epoch"]
    row = {name: column[found["epoch"]] for name, column in history["columns"].items()}
    assert found["result"] == row
    assert found["metric"] == "accuracy"
    assert found["data"] == {
        "name": "flowers", "task": "classification", "examples": 150, "features": 3,
        "classes": ["setosa", "versicolor", "virginica"],
    }  # fmt: skip
    assert found["network"]["widths"] == [3, 16, 3]
    assert found["network"]["parameters"] == 3 * 16 + 16 + 16 * 3 + 3
    files = {path.name: str(path) for path in (tmp_path / "o").iterdir()}
    assert found["files"] == files


def test_train_with_progress_on_stderr(flowers, tmp_path):
    result = run("train", flowers, *FLOWERS[:-1], "--out", tmp_path / "o", "--json")
    assert json.loads(result.stdout)["epochs"] == 5
    assert re.search("epoch[ =]5", result.stderr)


def test_plan(flowers, tmp_path):
    found = json_of("train", flowers, *FLOWERS, "--plan", "--out", tmp_path / "o")
    net = gpumlp.MLP([3, 16, 3], backend="numpy")
    planned = gpumlp.Trainer(net, batch_size=32).memory(120, validation=30, train_metric=True)
    assert found["memory"]["total"] == planned.total
    assert found["memory"]["theta"] == planned.theta
    assert not (tmp_path / "o").exists()


def test_evaluate_and_predict(flowers, model):
    shown = dict(line.split() for line in run("evaluate", model, flowers).stdout.splitlines()[2:])
    found = json_of("evaluate", model, flowers)["result"]
    assert found == {name: pytest.approx(float(text), rel=1e-5) for name, text in shown.items()}
    rows = rows_of(run("predict", model, flowers).stdout)
    lines = [
        json.loads(line)
        for line in run("predict", model, flowers, "--json").stdout.split("\n")[:-1]
    ]
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert line["prediction"] == row["prediction"]
        for name in set(NAMES):
            assert line["probabilities"][name] == pytest.approx(float(row[f"probability_{name}"]))


def test_regression(tmp_path):
    np.savez(tmp_path / "t.npz", x=X, y=X[:, :2] * 7 + 5)
    run("train", tmp_path / "t.npz", "--out", tmp_path, *SMALL)
    model = tmp_path / "model.safetensors"
    found = json_of("evaluate", model, tmp_path / "t.npz", "--plot", tmp_path / "r.png")
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    assert set(found["result"]) == {"cost", "r2", "rmse", "mae"}
    assert found["data"]["classes"] is None
    run("predict", model, tmp_path / "t.npz", "--out", tmp_path / "p.npy")
    text = run("predict", model, tmp_path / "t.npz", "--json").stdout
    lines = [json.loads(line)["prediction"] for line in text.split("\n")[:-1]]
    np.testing.assert_array_equal(lines, np.load(tmp_path / "p.npy"))


def test_predictions_in_a_file(flowers, model, tmp_path):
    found = json_of("predict", model, flowers, "--out", tmp_path / "p.csv")
    assert found == {"file": str(tmp_path / "p.csv"), "examples": 150}
    assert (tmp_path / "p.csv").read_text() == run("predict", model, flowers).stdout


def test_info():
    found = json_of("info")
    assert found["gpumlp"] == gpumlp.__version__
    assert found["NumPy"].startswith(np.__version__)
    lines = run("info").stdout.splitlines()
    shown = {line[:15].strip(): line[15:] for line in lines}
    assert {k: "not installed" if v is None else v for k, v in found.items()} == {
        k: v.strip() for k, v in shown.items()
    }


def test_errors_are_on_stderr_only(flowers, tmp_path):
    result = run("train", flowers, "--json", "--out", tmp_path / "o", code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("gpumlp: error: ")


def test_numbers_that_json_lacks_are_null(capsys):
    print_json({"a": [float("nan"), 1.5, (float("inf"),)], "ä": {"b": -np.inf}})
    assert capsys.readouterr().out == '{"a": [null, 1.5, [null]], "\\u00e4": {"b": null}}\n'


def test_plot_and_json_go_together(flowers, model, tmp_path):
    plain = json_of("evaluate", model, flowers)
    assert json_of("evaluate", model, flowers, "--plot", tmp_path / "c.png") == plain
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
