"""The commands, run as a user runs them; numbers against the Python API and NumPy."""

import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("typer")

import gpumlp
from gpumlp.data import load, split
from gpumlp.training import Trainer
from tests.support.cli_cases import (
    FLOWERS,
    LABELS,
    NAMES,
    RNG,
    SMALL,
    X,
    fit_flowers,
    rows_of,
    run,
)  # fmt: skip


class TestTrain:
    def test_matches_the_python_api(self, flowers, model):
        net, history, _ = fit_flowers(flowers)
        written = json.loads((model.parent / "history.json").read_text())["columns"]
        assert set(written) == {"cost", "metric", "val_cost", "val_metric", "lr", "seconds"}
        for name in set(written) - {"seconds"}:
            np.testing.assert_allclose(written[name], history[name], rtol=1e-6)
        loaded = gpumlp.MLP.load(model, "numpy")
        np.testing.assert_array_equal(loaded.theta.flat, net.theta.flat)

    def test_features_are_standardized(self, flowers, model):
        net, _, (mean, std) = fit_flowers(flowers)
        rows = rows_of(run("predict", model, flowers).stdout)
        columns = [f"probability_{name}" for name in sorted(set(NAMES))]
        assert list(rows[0]) == ["prediction", *columns]
        p = np.array([[float(row[name]) for name in columns] for row in rows])
        np.testing.assert_allclose(p, net.predict((X - mean) / std), rtol=1e-6)
        names = np.array(sorted(set(NAMES)))[p.argmax(1)]
        assert [row["prediction"] for row in rows] == names.tolist()

    def test_no_standardize(self, flowers, tmp_path):
        run("train", flowers, "--target", "species", "--out", tmp_path, "--no-standardize", *SMALL)
        run("predict", tmp_path / "model.safetensors", flowers, "--out", tmp_path / "p.npy")
        net = gpumlp.MLP.load(tmp_path / "model.safetensors", "numpy")
        # float32 has no numbers below 1e-45
        np.testing.assert_allclose(np.load(tmp_path / "p.npy"), net.predict(X), 1e-5, 1e-37)

    def test_prints_the_backend_the_progress_and_a_table(self, flowers, tmp_path):
        result = run(
            "train", flowers, "--out", tmp_path / "o", *FLOWERS[:-1],
            "--patience", 2,
        )  # fmt: skip
        assert (
            "150 examples, 3 features, classification, 3 classes; 120 for training" in result.stdout
        )
        assert "MLP(3-16-3, relu" in result.stdout
        assert f"NumPy {np.__version__} on the CPU" in result.stdout
        history = json.loads((tmp_path / "o" / "history.json").read_text())
        final = history["columns"]["val_metric"][history["best_epoch"]]
        assert f"validation accuracy {final:.4f}" in result.stdout
        assert f"{history['columns']['val_cost'][0]:.4g}" in result.stdout
        assert re.search("epoch[ =]5", result.stderr)  # the last epoch in the progress

    def test_says_that_it_replaces_an_earlier_run(self, flowers, tmp_path):
        options = [*FLOWERS, "--out", tmp_path / "o"]
        assert run("train", flowers, *options).stderr == ""
        for name in ("model.safetensors", "checkpoint.safetensors", "history.json"):
            (tmp_path / "o" / name).unlink()
        replaced = f"replacing the files of an earlier run in {tmp_path / 'o'}\n"
        assert run("train", flowers, *options).stderr == replaced  # history.png was left
        assert run("train", flowers, *options, "--resume").stderr == ""

    def test_prints_every_file_that_it_wrote(self, flowers, tmp_path):
        printed = run(
            "train", flowers, "--target", "species", "--out", tmp_path / "o", *SMALL
        ).stdout
        files = printed.splitlines()[-1].removeprefix(f"wrote {tmp_path / 'o'}/").split(", ")
        assert sorted(files) == sorted(path.name for path in (tmp_path / "o").iterdir())

    def test_quiet(self, flowers, tmp_path):
        result = run("train", flowers, *FLOWERS, "--out", tmp_path / "o")
        assert result.stderr == ""
        assert len(result.stdout.splitlines()) == 2

    def test_resume_without_a_checkpoint(self, flowers, tmp_path):
        options = ["--target", "species", "--out", tmp_path / "o", "--resume", *SMALL]
        assert "starting from the beginning" in run("train", flowers, *options).stderr
        assert run("train", flowers, *options).stderr == ""

    def test_default_options_learn(self, tmp_path):
        run("train", "--epochs", 5, "--out", tmp_path, "--quiet", "--backend", "numpy")
        history = json.loads((tmp_path / "history.json").read_text())["columns"]
        assert history["val_metric"][-1] > 0.92
        assert gpumlp.MLP.load(tmp_path / "model.safetensors").widths == (784, 256, 256, 10)
        assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")

    def test_options_reach_the_network_and_the_trainer(self, flowers, tmp_path):
        arguments = [
            "--hidden", "8,4", "--activation", "tanh", "--l1", "0.01", "--l2", "0.1",
            "--precision", "float64", "--optimizer", "lion", "--weight-decay", "0.2",
            "--lr", "0.002", "--schedule", "constant", "--clip-norm", "0.5", "--epochs", "3",
            "--validation", "50", "--batch-size", "25", "--label-smoothing", "0", "--seed", "7",
            "--backend", "numpy",
        ]  # fmt: skip
        run("train", flowers, "--target", "species", "--out", tmp_path, "-q", *arguments)
        train, _ = split(load(flowers, "species"), 50, 7)
        mean, std = train.x.mean(0), train.x.std(0)
        net = gpumlp.MLP(
            [3, 8, 4, 3], "tanh", regularizer=gpumlp.ElasticNet(0.01, 0.1), precision="float64",
            seed=7, backend="numpy",
        )  # fmt: skip
        rule = gpumlp.OPTIMIZERS["lion"].set(weight_decay=0.2)
        trainer = Trainer(net, rule, 0.002, 25, "constant", clip_norm=0.5, seed=7)
        trainer.fit((train.x - mean) / std, train.y, 3, progress=False)
        loaded = gpumlp.MLP.load(tmp_path / "model.safetensors", "numpy")
        np.testing.assert_array_equal(loaded.theta.flat, net.theta.flat)
        assert loaded.config() == net.config()

    def test_plan_prints_the_memory_and_does_not_train(self, flowers, tmp_path):
        options = ["--hidden", "16,16,16", "--batch-size", "32", "--backend", "numpy", "--quiet"]
        arguments = [flowers, "--target", "species", "--out", tmp_path / "o", "--patience", "3"]
        printed = []
        for memory in ("normal", "low"):
            more = ["--activation", "silu", "--memory", memory, "--plan"]
            printed.append(run("train", *arguments, *options, *more).stdout)
            net = gpumlp.MLP([3, 16, 16, 16, 3], "silu", backend="numpy")
            trainer = Trainer(net, batch_size=32, memory=memory)
            planned = trainer.memory(120, validation=30, early_stopping=3, train_metric=True)
            assert printed[-1] == f"{planned}\n\n{trainer.explain(120)}\n"
        assert printed[0] != printed[1]
        assert not (tmp_path / "o").exists()

    def test_a_plan_for_a_gpu_has_the_memory_of_that_gpu(self, flowers):
        """Also with options that this machine lacks."""
        given = ["--target", "species", "--hidden", "16", "--plan", "--device", "h100", "--json"]
        of_gpu = ["--precision", "bfloat16", "--slot-precision", "bfloat16", "--remainder"]
        found = json.loads(run("train", flowers, *given, *of_gpu).stdout)
        assert found["network"]["backend"] == "NVIDIA H100 SXM, bfloat16"
        memory, p = found["memory"], found["memory"]["theta"] // 4
        assert (memory["rounded"], memory["remainder"], memory["slots"]) == (2 * p, 2 * p, 4 * p)
        assert memory["held"] == 0
        several = json.loads(run("train", flowers, *given, *of_gpu, "--models", 3).stdout)
        assert several["memory"]["rounded"] == 3 * memory["rounded"]

    def test_low_memory_gives_the_same_parameters(self, flowers, model, tmp_path):
        more = ["--memory", "low", "--activation", "gelu", "--hidden", "16,8,8"]
        for name, options in (("low", more), ("normal", more[2:])):
            out = ["--out", tmp_path / name]
            run("train", flowers, "--target", "species", *out, *SMALL, *options)
        low, normal = (
            gpumlp.MLP.load(tmp_path / name / "model.safetensors", backend="numpy").tensors()
            for name in ("low", "normal")
        )
        assert all((low[name] == tensor).all() for name, tensor in normal.items())


class TestEvaluate:
    def test_accuracy_matches_the_predictions(self, flowers, model):
        printed = dict(
            line.split() for line in run("evaluate", model, flowers).stdout.splitlines()[2:]
        )
        predicted = [row["prediction"] for row in rows_of(run("predict", model, flowers).stdout)]
        assert float(printed["accuracy"]) == pytest.approx(np.mean(predicted == NAMES), abs=1e-6)
        net, _, (mean, std) = fit_flowers(flowers)
        labels = load(flowers, "species").y
        assert float(printed["cost"]) == pytest.approx(net.cost((X - mean) / std, labels), rel=1e-5)

    def test_regression_metrics_are_in_the_targets_unit(self, tmp_path):
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        y = 1000 + 50 * (X - X.mean(0)) @ (1 / X.std(0))
        columns = {"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "y": y}
        pq.write_table(pa.table(columns), tmp_path / "t.parquet")
        run(
            "train", tmp_path / "t.parquet", "--target", "y", "--out", tmp_path, "-q",
            "--hidden", "none", "--epochs", 60, "--batch-size", 16, "--lr", 0.05,
        )  # fmt: skip
        model = tmp_path / "model.safetensors"
        lines = run("evaluate", model, tmp_path / "t.parquet").stdout.splitlines()[2:]
        printed = {name: float(value) for name, value in (line.rsplit(None, 1) for line in lines)}
        rows = rows_of(run("predict", model, tmp_path / "t.parquet").stdout)
        p = np.array([float(row["prediction"]) for row in rows])
        assert printed["RMSE"] == pytest.approx(np.sqrt(np.mean((p - y) ** 2)), rel=1e-5)
        assert printed["MAE"] == pytest.approx(np.mean(abs(p - y)), rel=1e-5)
        assert printed["R²"] == pytest.approx(1 - np.mean((p - y) ** 2) / y.var(), rel=1e-5)
        assert printed["R²"] > 0.999  # the target is linear, and so is the model
        train, _ = split(load(tmp_path / "t.parquet", "y"))
        cost = np.mean(((p - y) / train.y.std()) ** 2)
        assert printed["cost (of the standardised target)"] == pytest.approx(cost, rel=1e-4)


class TestLosses:
    def test_binary_cross_entropy_gives_two_probabilities(self, tmp_path):
        np.savez(tmp_path / "t.npz", x=X, y=np.where(LABELS == 1, "yes", "no"))
        run(
            "train", tmp_path / "t.npz", "--loss", "binary_cross_entropy", "--out", tmp_path, *SMALL
        )
        rows = rows_of(run("predict", tmp_path / "model.safetensors", tmp_path / "t.npz").stdout)
        yes = np.array([float(row["probability_yes"]) for row in rows])
        no = np.array([float(row["probability_no"]) for row in rows])
        np.testing.assert_allclose(yes + no, 1, rtol=1e-6)
        assert [row["prediction"] for row in rows] == np.where(yes > 0.5, "yes", "no").tolist()
        train, _ = split(load(tmp_path / "t.npz"))
        net = gpumlp.MLP.load(tmp_path / "model.safetensors", "numpy")
        seen = (X - train.x.mean(0)) / train.x.std(0)
        np.testing.assert_allclose(yes, net.predict(seen)[:, 0], rtol=1e-6)

    def test_counts_stay_counts(self, tmp_path):
        np.savez(tmp_path / "t.npz", x=X, y=RNG.poisson(np.exp((X[:, 0] - 5) / 2)).astype(float))
        run("train", tmp_path / "t.npz", "--loss", "poisson", "--out", tmp_path, *SMALL)
        model = tmp_path / "model.safetensors"
        run("predict", model, tmp_path / "t.npz", "--out", tmp_path / "p.npy")
        train, _ = split(load(tmp_path / "t.npz", task="regression"))
        seen = (X - train.x.mean(0)) / train.x.std(0)
        rate = np.exp(gpumlp.MLP.load(model, "numpy").forward(seen))
        np.testing.assert_allclose(np.load(tmp_path / "p.npy"), rate, rtol=1e-5)

    def test_probabilities_by_a_softmax_layer(self, flowers, tmp_path):
        loss = "negative_log_likelihood"
        run("train", flowers, "--target", "species", "--loss", loss, "--out", tmp_path, *SMALL)
        net = gpumlp.MLP.load(tmp_path / "model.safetensors", "numpy")
        np.testing.assert_allclose(net.predict(X[:9]).sum(1), 1, rtol=1e-5)


def test_predictions_in_a_file_are_those_on_stdout(flowers, model, tmp_path):
    shown = run("predict", model, flowers).stdout
    run("predict", model, flowers, "--out", tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text() == shown


# a command that waits, once there is a checkpoint, until its stdin is closed
WAITING = """
import os, sys
from pathlib import Path
from gpumlp.cli import main
from gpumlp.training.stepping import Stepping

step = Stepping.step

def waiting(*arguments):
    if Path(sys.argv[-1], "checkpoint.safetensors").exists():
        os.read(0, 1)
    step(*arguments)

Stepping.step = waiting
main()
"""


def test_resume_after_ctrl_c_gives_the_result_of_an_unbroken_run(flowers, tmp_path):
    train = [
        "train", flowers, "--target", "species", "--epochs", "20", "--hidden", "64",
        "--batch-size", "8", "--quiet", "--backend", "numpy", "--out",
    ]  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", WAITING, *train, tmp_path / "cut"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while not (tmp_path / "cut" / "checkpoint.safetensors").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        printed, error = process.communicate(timeout=300)
    assert (process.returncode, error) == (130, "")
    assert "interrupted after " in printed
    assert "--resume continues" in printed
    history = json.loads((tmp_path / "cut" / "history.json").read_text())
    assert history["stopped"] == "interrupted"
    assert len(history["columns"]["cost"]) == 1
    assert run("evaluate", tmp_path / "cut" / "model.safetensors", flowers).stderr == ""

    run(*train, tmp_path / "cut", "--resume")
    run(*train, tmp_path / "whole")
    cut, whole = (
        (
            gpumlp.MLP.load(tmp_path / folder / "model.safetensors", "numpy").theta.flat.tobytes(),
            json.loads((tmp_path / folder / "history.json").read_text()),
        )
        for folder in ("cut", "whole")
    )
    del cut[1]["columns"]["seconds"], whole[1]["columns"]["seconds"]
    assert cut == whole
