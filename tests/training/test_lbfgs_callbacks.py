"""The callbacks of `gpumlp.callbacks` in `fit_lbfgs`, which has no learning rate."""

from __future__ import annotations

import csv
from typing import Any

import pytest

import gpumlp
from gpumlp import callbacks as ready
from gpumlp.estimators import MLPRegressor
from tests.support.refusal import refusal
from tests.support.tracking_files import mlflow_run, scalars
from tests.support.training_cases import LABELS, Hook, X, Y, classifier, regression, theta


def fitted(hook: Any) -> tuple[gpumlp.MLP, gpumlp.History]:
    net = regression()
    kept = {"validation": (X[:20], Y[:20]), "callbacks": [hook]}
    return net, gpumlp.fit_lbfgs(net, X, Y, max_iter=6, **kept)


@pytest.mark.parametrize(
    ("hook", "name"),
    [
        (ready.ReduceOnPlateau(patience=1), "ReduceOnPlateau"),
        (ready.LearningRateLogger(), "LearningRateLogger"),
        (ready.TensorBoard("unused", lr_every=1), "TensorBoard(lr_every=…)"),
    ],
)
def test_callback_that_needs_a_learning_rate_raises(hook: Any, name: str) -> None:
    said = f"{name} needs a learning rate, which L-BFGS does not have; leave it out, or train by"
    net = regression()
    before = theta(net)
    refusal(ValueError, lambda: gpumlp.fit_lbfgs(net, X, Y, callbacks=[hook]), said)
    assert theta(net) == before
    e = MLPRegressor(hidden_layer_sizes=(5,), solver="lbfgs", callbacks=[hook])
    refusal(ValueError, lambda: e.fit(X, Y), said, "another solver")


def test_tensorboard_gets_history_and_settings(tmp_path: Any) -> None:
    _, history = fitted(ready.TensorBoard(tmp_path, histograms=2))
    found = scalars(tmp_path)
    assert set(found) == {"cost/training", "cost/validation", "metric/validation", "seconds"}
    assert found["cost/training"] == pytest.approx(
        {i + 1: J for i, J in enumerate(history["cost"])}, rel=1e-6
    )
    final = scalars(tmp_path / "hparams")
    assert final["final/val_cost"][6] == pytest.approx(history["val_cost"][-1])


def test_mlflow_gets_history_and_settings(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    hook = ready.MLflow(uri=tmp_path / "runs", model=True)
    _, history = fitted(hook)
    _, made, metrics = mlflow_run(hook)
    assert made.info.status == "FINISHED"
    known = {"optimizer": "lbfgs", "max_iter": "6", "tol": "0.0001", "widths": "4-6-2"}
    assert known.items() <= made.data.params.items()
    assert metrics["cost"] == {i + 1: J for i, J in enumerate(history["cost"])}


def test_files_are_written_as_in_a_fit_by_minibatches(tmp_path: Any) -> None:
    best = ready.ModelCheckpoint(tmp_path / "best.safetensors", "val_cost")
    net, log = regression(), ready.CSVLogger(tmp_path / "log.csv")
    history = gpumlp.fit_lbfgs(
        net, X, Y, max_iter=6, validation=(X[:20], Y[:20]), callbacks=[log, best]
    )
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [float(row["cost"]) for row in rows] == history["cost"]
    loaded = gpumlp.MLP.load(tmp_path / "best.safetensors", backend="numpy")
    assert loaded.cost(X[:20], Y[:20]) == pytest.approx(min(history["val_cost"]), rel=1e-12)


def test_every_callback_ends_even_if_one_fails() -> None:
    ended = []

    class End(gpumlp.Callback):
        def __init__(self, name: str, fails: bool = False) -> None:
            self.name, self.fails = name, fails

        def on_fit_end(self, trainer: Any) -> None:
            ended.append(self.name)
            if self.fails:
                raise OSError("disk full")

    hooks = [End("first"), End("second", fails=True), Hook()]
    with pytest.raises(OSError, match="disk full"):
        gpumlp.fit_lbfgs(regression(), X, Y, max_iter=2, callbacks=hooks)
    assert sorted(ended) == ["first", "second"]


def test_undefined_scorer_raises_before_the_start() -> None:
    net = classifier()
    before = theta(net)
    refusal(
        ValueError,
        lambda: gpumlp.fit_lbfgs(net, X, LABELS, validation=(X, LABELS), metric="roc_auc"),
        "metric 'roc_auc' does not go with softmax_cross_entropy and the validation data",
        "roc_auc_ovr",
    )  # fmt: skip
    assert theta(net) == before
    several = gpumlp.fit_lbfgs(
        net, X, LABELS, max_iter=3, validation=(X, LABELS), metric=["auto", "roc_auc_ovr"]
    )
    assert set(several) >= {"val_metric", "val_roc_auc_ovr"}
