"""gpumlp find-lr: the range test of the network that train would train."""

import json

import numpy as np
import pytest

pytest.importorskip("typer")

import gpumlp
from gpumlp import plots
from gpumlp.data import load, split
from tests.support.cli_cases import run

OPTIONS = ["--target", "species", "--hidden", "16", "--batch-size", "32", "--backend", "numpy"]


def by_hand(path, rule="adamw", seed=0, **settings):
    """What the command should find, in Python."""
    train, _ = split(load(path, "species"), 0.2, seed)
    x = (train.x - train.x.mean(0)) / train.x.std(0)
    loss = gpumlp.LOSSES["softmax_cross_entropy"].set(smoothing=0.1)
    net = gpumlp.MLP([3, 16, 3], loss=loss, backend="numpy", seed=seed)
    trainer = gpumlp.Trainer(net, rule, batch_size=32, seed=seed, **settings)
    return trainer, (x.astype(np.float32), train.y)


def told(*arguments):
    return json.loads(run("find-lr", *arguments, "--json").stdout)


def test_is_that_of_the_python_api(flowers, tmp_path):
    trainer, data = by_hand(flowers)
    curve = trainer.find_lr(*data)
    found = told(flowers, *OPTIONS)
    assert (found["suggestion"], found["minimum"]) == (curve.suggestion, curve.minimum)
    assert found["exploded"] == curve.exploded
    for name in ("lr", "loss", "smoothed"):
        np.testing.assert_array_equal(found["curve"][name], getattr(curve, name))
    assert found["data"]["examples"] == 150
    assert found["network"]["widths"] == [3, 16, 3]
    lines = run("find-lr", flowers, *OPTIONS).stdout.splitlines()
    assert lines[0].endswith("120 to train on, 30 held out")
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
    np.testing.assert_array_equal(told(flowers, *OPTIONS, *options)["curve"]["loss"], curve.loss)


def test_takes_the_file_of_a_run(flowers, tmp_path):
    run("train", flowers, *OPTIONS, "--epochs", 1, "--patience", 1, "--out", tmp_path / "o", "-q")
    before = sorted(tmp_path.rglob("*"))
    file = tmp_path / "o" / "run.toml"
    assert told("--config", file) == told(flowers, *OPTIONS)
    assert sorted(tmp_path.rglob("*")) == before
    file.write_text(file.read_text() + "stepps = 3\n")
    error = run("find-lr", "--config", file, code=2).stderr
    assert "unknown key 'stepps'; did you mean 'steps'?" in error


def test_the_picture_is_of_the_curve(flowers, tmp_path, monkeypatch):
    drawn = []
    figure = plots.range_figure
    monkeypatch.setattr(plots, "range_figure", lambda *c: (drawn.append(c), figure(*c))[1])
    found = told(flowers, *OPTIONS, "--plot", tmp_path / "lr.png")
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")
    assert [suggestion for _, _, _, suggestion, _ in drawn] == [found["suggestion"]]


def test_no_suggestion_where_the_cost_never_falls(flowers):
    options = ["--optimizer", "sgd", "--group", "weights:lr=0", "--group", "biases:lr=0"]
    options += ["--batch-size", 120, "--no-shuffle"]  # the same cost to the bit
    found = run("find-lr", flowers, *OPTIONS, *options).stdout
    assert "suggestion  none: the cost never falls\n" in found
    assert told(flowers, *OPTIONS, *options)["suggestion"] is None


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
def test_wrong_uses_are_told_before_the_data_is_read(arguments, message, tmp_path):
    result = run("find-lr", tmp_path / "none.csv", *OPTIONS, *arguments, code=2)
    assert result.stderr.startswith("gpumlp: error: ")
    assert (result.stderr.count("\n"), result.stdout) == (1, "")
    assert message in result.stderr


def test_a_start_that_explodes_at_once_is_told(flowers):
    options = [*OPTIONS, "--optimizer", "sgd", "--start", 1e30, "--end", 1e38, "--steps", 10]
    error = run("find-lr", flowers, *options, code=2).stderr
    assert "the cost is not finite after a step with lr 1e+30" in error
    assert error.endswith("or lower --start\n")
