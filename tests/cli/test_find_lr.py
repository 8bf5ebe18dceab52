"""gpumlp find-lr: the range test of the network that train would train."""

import json

import numpy as np
import pytest

pytest.importorskip("typer")

import gpumlp
from gpumlp import plots
from tests.support.cli_cases import flowers_in_python, refused, run

OPTIONS = ["--target", "species", "--hidden", "16", "--batch-size", "32", "--backend", "numpy"]


def by_hand(path, rule="adamw", seed=0, **settings):
    """What the command should find, in Python."""
    trainer, (x, y), *_ = flowers_in_python(path, rule, seed, **settings)
    return trainer, (x.astype(np.float32), y)


def json_of(*arguments):
    return json.loads(run("find-lr", *arguments, "--json").stdout)


def test_matches_the_python_api(flowers, tmp_path):
    trainer, data = by_hand(flowers)
    curve = trainer.find_lr(*data)
    found = json_of(flowers, *OPTIONS)
    assert (found["suggestion"], found["minimum"]) == (curve.suggestion, curve.minimum)
    assert found["exploded"] == curve.exploded
    for name in ("lr", "loss", "smoothed"):
        np.testing.assert_array_equal(found["curve"][name], getattr(curve, name))
    assert found["data"]["examples"] == 150
    assert found["network"]["widths"] == [3, 16, 3]
    lines = run("find-lr", flowers, *OPTIONS).stdout.splitlines()
    assert lines[0].endswith("120 for training, 30 for validation")
    assert lines[2].startswith(f"suggestion  {curve.suggestion:.2g}, where")
    assert lines[3].startswith(f"minimum     {curve.minimum:.2g}, where")
    end = ", where the cost explodes" if curve.exploded else ""
    assert lines[4] == f"steps       {len(curve.lr)}, from 1e-07 to {curve.lr[-1]:.2g}{end}"


def test_options_reach_the_trainer(flowers):
    options = [
        "--optimizer", "momentum", "--accumulate", 2, "--no-shuffle", "--clip-norm", 1, "--seed", 3,
        "--group", "first:lr=0.5", "--start", 1e-4, "--end", 0.1, "--steps", 40,
    ]  # fmt: skip
    trainer, data = by_hand(
        flowers, "momentum", 3, accumulate=2, shuffle=False, clip_norm=1.0,
        groups={"first": gpumlp.Group(0.5)},
    )  # fmt: skip
    curve = trainer.find_lr(*data, start=1e-4, end=0.1, steps=40)
    np.testing.assert_array_equal(json_of(flowers, *OPTIONS, *options)["curve"]["loss"], curve.loss)


def test_reads_the_run_toml_of_a_training(flowers, tmp_path):
    run("train", flowers, *OPTIONS, "--epochs", 1, "--patience", 1, "--out", tmp_path / "o", "-q")
    before = sorted(tmp_path.rglob("*"))
    file = tmp_path / "o" / "run.toml"
    assert json_of("--config", file) == json_of(flowers, *OPTIONS)
    assert sorted(tmp_path.rglob("*")) == before
    file.write_text(file.read_text() + "stepps = 3\n")
    error = run("find-lr", "--config", file, code=2).stderr
    assert "unknown key 'stepps'; did you mean 'steps'?" in error


def test_plot_draws_the_curve(flowers, tmp_path, monkeypatch):
    drawn = []
    figure = plots.range_figure
    monkeypatch.setattr(plots, "range_figure", lambda *c: (drawn.append(c), figure(*c))[1])
    found = json_of(flowers, *OPTIONS, "--plot", tmp_path / "lr.png")
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")
    assert [suggestion for _, _, _, suggestion, _ in drawn] == [found["suggestion"]]


def test_no_suggestion_where_the_cost_never_falls(flowers):
    options = ["--optimizer", "sgd", "--group", "weights:lr=0", "--group", "biases:lr=0"]
    options += ["--batch-size", 120, "--no-shuffle"]  # the same cost to the bit
    found = run("find-lr", flowers, *OPTIONS, *options).stdout
    assert "suggestion  none: the cost never falls\n" in found
    assert json_of(flowers, *OPTIONS, *options)["suggestion"] is None


WRONG = [
    (["--start", "0"], "--start must be more than 0 and less than --end, got 0 and 10"),
    (["--start", "nan"], "--start must be more than 0 and less than --end"),
    (["--end", "1e-9"], "less than --end, got 1e-07 and 1e-09"),
    (["--end", "inf"], "less than --end, got 1e-07 and inf"),
    (["--steps", "9"], "Invalid value for '--steps'"),
    (["--plot", "lr.pdf"], "--plot must end in .png, got lr.pdf"),
    (["--plot", "no/lr.png"], "the folder"),
    (["--epochs", "3"], "No such option: --epochs"),
    (["--accumulate", "99"], "--accumulate 99 micro-batches cannot be made of --batch-size 32"),
    (["--group", "bias:lr=2"], "unknown group 'bias'; did you mean 'biases'?"),
    (["--optimizer", "adamm"], "unknown optimizer 'adamm'; did you mean 'adam'?"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda p: p[0])
def test_invalid_options_are_reported_before_the_data_is_read(arguments, message, tmp_path):
    assert message in refused("find-lr", tmp_path / "none.csv", *OPTIONS, *arguments)


def test_a_start_that_is_too_high_is_reported(flowers):
    options = [*OPTIONS, "--optimizer", "sgd", "--start", 1e30, "--end", 1e38, "--steps", 10]
    error = run("find-lr", flowers, *options, code=2).stderr
    assert "the cost is not finite after a step with lr 1e+30" in error
    assert error.endswith("or lower --start\n")
