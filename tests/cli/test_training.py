"""train's options of steps, metrics, early stopping and plateau, against the Python API."""

import json
import tomllib

import numpy as np
import pytest

pytest.importorskip("typer")

import gpumlp
from gpumlp.callbacks import EarlyStopping, ReduceOnPlateau
from tests.support.cli_cases import (
    FLOWERS,
    LONGER,
    columns,
    fit_flowers,
    plotted,
    refused,
    run,
    theta,
)


def by_hand(path, epochs=5, metric="auto", early_stopping=None, callbacks=(), **settings):
    """What the command should do, in Python: θ and the history."""
    fit = {"metric": metric, "early_stopping": early_stopping, "callbacks": list(callbacks)}
    net, history, _ = fit_flowers(path, epochs, fit, **settings)
    return net.theta.flat, history


STEPS = [
    (["--ema", "0.9"], {"ema": 0.9}),
    (["--accumulate", "3"], {"accumulate": 3}),
    (["--no-shuffle"], {"shuffle": False}),
    (
        ["--group", "biases:decay=0,lr=2", "--group", " first : lr = 0.1 "],
        {"groups": {"biases": gpumlp.Group(2, 0), "first": gpumlp.Group(0.1)}},
    ),
]


@pytest.mark.parametrize(("options", "settings"), STEPS, ids=lambda p: str(p)[:20])
def test_step_options_match_the_trainer(options, settings, flowers, tmp_path):
    run("train", flowers, *FLOWERS, *options, "--out", tmp_path / "o")
    expected, history = by_hand(flowers, **settings)
    np.testing.assert_array_equal(theta(tmp_path / "o"), expected)
    np.testing.assert_array_equal(columns(tmp_path / "o")["val_cost"], history["val_cost"])
    assert (expected != by_hand(flowers)[0]).any()  # it makes a difference


def test_run_toml_has_a_list_of_groups(flowers, tmp_path):
    groups = ["--group", "biases:decay=0", "--group", "first:lr=0.1"]
    run("train", flowers, *FLOWERS, *groups, "--out", tmp_path / "a")
    file = tmp_path / "a" / "run.toml"
    assert tomllib.loads(file.read_text())["group"] == ["biases:decay=0", "first:lr=0.1"]
    run("train", "--config", file, "--out", tmp_path / "b", "-q")
    np.testing.assert_array_equal(theta(tmp_path / "a"), theta(tmp_path / "b"))
    file.write_text(file.read_text().replace('["biases:decay=0", "first:lr=0.1"]', '"first:lr=0"'))
    run("train", "--config", file, "--out", tmp_path / "c", "-q")
    expected, _ = by_hand(flowers, groups={"first": gpumlp.Group(0)})
    np.testing.assert_array_equal(theta(tmp_path / "c"), expected)


def test_metrics_are_columns_of_the_table_the_json_and_the_figure(flowers, tmp_path, monkeypatch):
    drawn = plotted(monkeypatch)
    options = [*FLOWERS[:-1], "--metric", "roc_auc_ovr, auto"]
    printed = run("train", flowers, *options, "--out", tmp_path / "o").stdout
    _, history = by_hand(flowers, metric=["roc_auc_ovr", "auto"])
    found = columns(tmp_path / "o")
    for name in ("roc_auc_ovr", "val_roc_auc_ovr", "metric", "val_metric"):
        np.testing.assert_array_equal(found[name], history[name])
    end = [f"{found[f'val_{name}'][-1]:.4f}" for name in ("roc_auc_ovr", "metric")]
    assert f"5 epochs: validation roc_auc_ovr {end[0]}, validation accuracy {end[1]}" in printed
    words = " ".join(printed.split())  # the table folds long heads
    assert f"{found['val_roc_auc_ovr'][-1]:.4g}" in words
    assert "…" not in printed
    as_json = [*FLOWERS, "--metric", "f1_macro", "--out", tmp_path / "p", "--json"]
    printed = json.loads(run("train", flowers, *as_json).stdout)
    assert printed["metric"] == "f1_macro"
    assert printed["result"]["val_f1_macro"] == columns(tmp_path / "p")["val_f1_macro"][-1]
    assert [named["metric"] for _, named in drawn] == ["roc_auc_ovr", "f1_macro"]


def test_early_stopping_watches_the_monitored_column(flowers, tmp_path):
    options = ["--metric", "f1_macro", "--patience", 2, "--monitor", "val_f1_macro", *LONGER]
    run("train", flowers, *FLOWERS, *options, "--out", tmp_path / "o")
    expected, history = by_hand(
        flowers, 12, ["f1_macro"], EarlyStopping(2, monitor="val_f1_macro"), lr=0.03
    )
    np.testing.assert_array_equal(theta(tmp_path / "o"), expected)
    written = json.loads((tmp_path / "o" / "history.json").read_text())
    assert (written["stopped"], written["best_epoch"]) == ("early", history.best_epoch)


def test_monitor_without_validation_data(flowers, tmp_path):
    options = ["--validation", 0, "--patience", 2, "--monitor", "metric", *LONGER]
    run("train", flowers, *FLOWERS, *options, "--out", tmp_path / "o")
    found = json.loads((tmp_path / "o" / "history.json").read_text())
    best = found["columns"]["metric"]
    assert found["best_epoch"] == best.index(max(best))


def test_plateau_lowers_the_learning_rate(flowers, tmp_path):
    options = ["--plateau", 1, "--plateau-factor", 0.5, "--monitor", "metric", *LONGER]
    run("train", flowers, *FLOWERS, *options, "--out", tmp_path / "o")
    hook = ReduceOnPlateau("metric", 0.5, 1)
    expected, history = by_hand(flowers, 12, callbacks=[hook], lr=0.03)
    np.testing.assert_array_equal(theta(tmp_path / "o"), expected)
    assert columns(tmp_path / "o")["lr"] == history["lr"]
    assert history["lr"] != by_hand(flowers, 12, lr=0.03)[1]["lr"]


WRONG = [
    (["--ema", "1"], "--ema must be a number between 0 and 1, as 0.999; got 1.0"),
    (["--ema", "nan"], "ema must be a number between 0 and 1"),
    (["--ema", "much"], "Invalid value for '--ema'"),
    (["--accumulate", "0"], "Invalid value for '--accumulate'"),
    (["--accumulate", "2.5"], "Invalid value for '--accumulate'"),
    (["--accumulate", "64"], "--accumulate 64 micro-batches cannot be made of --batch-size 32"),
    (["--group", "bias:lr=2"], "unknown group 'bias'; did you mean 'biases'? known: weights"),
    (
        ["--group", "biases"],
        "--group must be NAME:lr=X,decay=Y, such as biases:decay=0, got 'biases'",
    ),
    (["--group", "biases:rate=2"], "--group must be NAME:lr=X,decay=Y"),
    (["--group", "biases:lr=two"], "--group must be NAME:lr=X,decay=Y"),
    (["--group", "biases:lr=2,"], "--group must be NAME:lr=X,decay=Y"),
    (["--group", "biases:lr=-1"], "--group biases:lr=-1: lr must"),
    (["--group", "biases:lr=1,lr=2"], "biases is given twice; write biases:lr=X,decay=Y"),
    (["--group", "biases:lr=1", "--group", "biases:decay=2"], "biases is given twice"),
    (
        ["--group", "biases:decay=0", "--optimizer", "sgd"],
        "--group biases:decay=0: sgd has no weight decay; leave it out, or use --optimizer adamw",
    ),
    (["--no-shuffle", "no"], "no"),
    (["--shufle"], "No such option: --shufle"),
    (["--shuffle=yes"], "--shuffle"),
    (["--metric", "roc_auc_over"], "unknown metric 'roc_auc_over'; did you mean 'roc_auc_ovr'"),
    (["--metric", ","], "--metric must be names such as f1_macro,roc_auc_ovr, got ','"),
    (["--metric", "f1_macro,f1_macro"], "--metric has 'f1_macro' twice; give it once"),
    (["--metric", "roc_auc"], "metric 'roc_auc' does not go with softmax_cross_entropy"),
    (["--monitor", "val_cost"], "--monitor is for --patience and --plateau; add --pat"),
    (
        ["--monitor", "val_f1", "--patience", "2"],
        "--monitor watches 'val_f1', which this fit does not compute; monitor one of: cost, metric",
    ),
    (["--monitor", "lr", "--plateau", "2"], "--monitor must be a column of costs or metrics"),
    (
        ["--monitor", "val_metric", "--plateau", "2", "--validation", "0"],
        "leave out --validation 0, or monitor one of: cost, metric",
    ),
    (["--plateau", "0"], "Invalid value for '--plateau'"),
    (["--plateau", "2", "--validation", "0"], "--plateau watches the validation cost; leave out"),
    (["--plateau-factor", "0.5"], "--plateau-factor is for --plateau; add --plateau EPOCHS"),
    (["--plateau", "2", "--plateau-factor", "1"], "--plateau-factor must be less than 1"),
    (["--plateau", "2", "--plateau-factor", "0"], "--plateau-factor must be finite and more than"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), WRONG, ids=lambda p: "" if isinstance(p, str) else " ".join(p)
)
def test_invalid_options_print_one_line_and_write_nothing(arguments, message, flowers, tmp_path):
    assert message in refused("train", flowers, *FLOWERS, "--out", tmp_path / "o", *arguments)
    assert not (tmp_path / "o").exists()


def test_invalid_options_are_reported_before_the_data_is_read(tmp_path):
    for arguments, message in WRONG:
        if arguments != ["--metric", "roc_auc"]:  # valid for other data
            none = tmp_path / "none.csv"
            assert message in refused("train", none, "--batch-size", 32, *arguments)


@pytest.mark.parametrize("models", [[], ["--models", 2]])
def test_scores_of_numbers_are_in_the_targets_unit(models, tmp_path):
    """The targets of the networks are standardised; the score is that of `evaluate`."""
    a = np.random.default_rng(0).normal(size=60)
    rows = [f"{x},{1000 * np.exp(x)}" for x in a]
    (tmp_path / "t.csv").write_text("\n".join(["a,y", *rows]))
    options = ["--target", "y", "--validation", 0, "--hidden", 8, "--epochs", 3, "--json", *models]
    names = "neg_mean_absolute_error,auto,r2"
    trained = run("train", tmp_path / "t.csv", *options, "--metric", names, "--out", tmp_path / "o")
    found = json.loads(trained.stdout)["result"]
    evaluated = run("evaluate", tmp_path / "o/model.safetensors", tmp_path / "t.csv", "--json")
    want = json.loads(evaluated.stdout)["result"]
    assert found["neg_mean_absolute_error"] == pytest.approx(-want["mae"], rel=1e-5)
    assert want["mae"] > 100
    for name in ("r2", "metric"):
        assert found[name] == pytest.approx(want["r2"], rel=1e-4)
