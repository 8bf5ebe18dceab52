"""The README's Python runs as it stands, and quotes the loops as they are."""

import json
import re
import shlex
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest

import gpumlp
from tests.support.cli_cases import run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^gpumlp .*", README, re.MULTILINE)
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_example_learns(capsys):
    [example] = [block for block in BLOCKS if "Trainer" in block]
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    space = {}
    exec(example, space)
    assert space["history"]["val_metric"][-1] > 0.9
    assert "MLP(20-128-128-2" in capsys.readouterr().out


def test_an_activation_is_one_entry():
    [example] = [block for block in BLOCKS if "squareplus" in block]
    space = {}
    exec(example, space)
    f, z = space["squareplus"], np.linspace(-3, 3, 61)
    e = 1e-6
    slope = (f.f(z + e, **f.params) - f.f(z - e, **f.params)) / (2 * e)
    np.testing.assert_allclose(f.df(z, None, **f.params), slope, rtol=1e-8)
    J, _ = space["net"].cost_and_gradients(np.ones((4, 20)), [0, 1, 0, 1])
    assert np.isfinite(J)
    assert isinstance(space["net"], gpumlp.MLP)


def test_the_estimator_scores(capsys):
    pytest.importorskip("sklearn")
    [example] = [block for block in BLOCKS if "MLPClassifier" in block]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that 30 epochs were not enough for tol=0
        exec(example, {})
    assert 0.95 < float(capsys.readouterr().out) < 1


def test_every_python_block_is_run_or_quoted():
    known = ("Trainer", "squareplus", "MLPClassifier", "backend.")
    assert [[name for name in known if name in block][:1] != [] for block in BLOCKS] == [True] * 5


def test_the_commands_run(tmp_path, monkeypatch, rng):
    """On a table of houses; the benchmarks have no time for their parts."""
    monkeypatch.chdir(tmp_path)
    x = rng.normal(size=(300, 3))
    rows = np.column_stack([x, x @ [3.0, -2.0, 1.0]])
    for name in ("housing.csv", "new.csv"):
        np.savetxt(name, rows, delimiter=",", header="backends,age,area,price", comments="")
    for line in COMMANDS:
        program, command, *arguments = shlex.split(line, comments=True)
        assert program == "gpumlp"
        short = {"train": ["--epochs", 20], "bench": ["--minutes", 0]}
        done = run(command, *arguments, *short.get(command, []))
        if command == "bench":  # its parts are chosen, and none is begun
            assert "stopped before gpumlp on" in done.output
    assert (tmp_path / "predictions.csv").read_text().count("\n") == 301
    for name in ("residuals.png", "housing.onnx", "runs/housing/run.toml", "runs/again/run.toml"):
        assert (tmp_path / name).stat().st_size > 0
    assert "lr = 0.002" in (tmp_path / "runs/again/run.toml").read_text()


def test_the_loops_are_quoted():
    driver = (ROOT / "gpumlp" / "backprop.py").read_text()
    loops = [block for block in BLOCKS if block.startswith(("for k", "backend."))]
    assert len(loops) == 2
    for loop in loops:
        assert textwrap.indent(loop, "    ") in driver


def test_figures_are_those_of_the_committed_results():
    results = json.loads((ROOT / "benchmarks" / "results" / "cpu.json").read_text())
    committed = {
        f"{entry['gpumlp_over_this']:.2f}"
        for part in ("step", "step, 25 in a row", "epoch")
        for name, entry in results[part].items()
        if name != "gpumlp"
    }
    fits = json.loads((ROOT / "benchmarks" / "results" / "estimators.json").read_text())
    committed |= {
        f"{fits[part]['scikit-learn']['gpumlp_over_this']:.2f}"
        for part in ("fit, float64", "fit, float32")
    }
    quoted = set(re.findall(r"\| (\d+\.\d+) of (?:its|their) time", README))
    assert quoted == committed


def test_the_figure_of_streaming_is_the_worst_of_the_committed_ones():
    path = ROOT / "benchmarks" / "results" / "streaming_numpy.json"
    steps = json.loads(path.read_text())["step"]
    worst = max(entry["over_the_backend"] for entry in steps.values())
    assert (
        f"takes at most {worst:.2f} of its time on data in\nmemory (`{path.relative_to(ROOT)}`"
        in README
    )


def test_the_memory_of_large_files_is_the_committed_one():
    path = ROOT / "benchmarks" / "results" / "large_files.json"
    kinds = json.loads(path.read_text())["files"]
    worst = max(kind["train"]["resident_over_imports_mb"] for kind in kinds.values())
    assert 300 < worst < 350
    assert min(kind["bytes"] for kind in kinds.values()) > 1.9e9
    assert f"train in under 350 MB over the\nimports (`{path.relative_to(ROOT)}`)" in README
