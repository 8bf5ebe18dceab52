"""Validation, metrics, the history and early stopping."""

from __future__ import annotations

import json

import numpy as np
import pytest

import gpumlp
from gpumlp.training import Histories, History
from tests.support.training_cases import LABELS, WEIGHTS, Hook, X, Y, classifier, regression, theta

# ---- validation, metrics, history --------------------------------------------------------------


def test_history_has_only_computed_columns():
    net = classifier()
    fit = gpumlp.Trainer(net, batch_size=16).fit
    assert list(fit(X, LABELS, 2)) == ["cost", "lr", "seconds"]
    history = fit(X, LABELS, 2, validation=(X[:9], LABELS[:9]), metric=None)
    assert list(history) == ["cost", "val_cost", "lr", "seconds"]
    history = fit(X, LABELS, 3, validation=(X[:9], LABELS[:9]), train_metric=True)
    assert list(history) == ["cost", "metric", "val_cost", "val_metric", "lr", "seconds"]
    assert {len(column) for column in history.values()} == {3}
    assert all(s > 0 for s in history["seconds"])
    assert (history.stopped, history.best_epoch, history.epochs) == ("finished", None, 3)
    assert "3 epochs, finished" in repr(history)


def test_validation_equals_cost_and_metric_of_the_network():
    net = classifier(regularizer=gpumlp.L2(1e-2))
    weights = WEIGHTS[:30]
    history = gpumlp.Trainer(net, batch_size=16).fit(
        X, LABELS, 2, validation=(X[:30], LABELS[:30], weights), train_metric=True
    )
    assert history["val_cost"][-1] == pytest.approx(
        net.cost(X[:30], LABELS[:30], sample_weight=weights), rel=1e-12
    )
    right = net.predict(X).argmax(axis=1) == LABELS
    assert history["metric"][-1] == pytest.approx(right.mean(), rel=1e-12)
    assert history["val_metric"][-1] == pytest.approx(
        (weights * right[:30]).sum() / weights.sum(), rel=1e-12
    )


def test_custom_metric():
    net = regression()
    history = gpumlp.Trainer(net, batch_size=16).fit(
        X, Y, 2, validation=(X, Y), metric=lambda y, p: np.abs(y - p).max()
    )
    assert history["val_metric"][-1] == pytest.approx(np.abs(net.predict(X) - Y).max(), rel=1e-12)


def test_history_survives_json():
    history = gpumlp.Trainer(regression()).fit(
        X, Y, 2, metric=lambda y, p: np.nan, train_metric=True
    )
    copy = gpumlp.History.from_dict(history.to_dict())
    assert (copy["cost"], copy.stopped) == (history["cost"], "finished")
    assert json.loads(history.to_json())["columns"]["metric"] == [None, None]
    assert json.loads(history.to_json())["columns"]["cost"] == history["cost"]


# ---- early stopping ----------------------------------------------------------------------------


def overfitting(**early):
    """A fit whose validation data has other targets, and θ and cost after each of its epochs."""
    net, after = regression(), []
    hook = Hook(epoch=lambda trainer, row: after.append(theta(net)))
    history = gpumlp.Trainer(net, "adam", 0.05, batch_size=16).fit(
        X[:30], Y[:30], 60, validation=(X[30:], -Y[30:]), callbacks=[hook],
        early_stopping=gpumlp.EarlyStopping(**early),
    )  # fmt: skip
    return net, history, after


def test_early_stopping_restores_the_best_exactly():
    net, history, after = overfitting(patience=4)
    best = int(np.argmin(history["val_cost"]))
    assert history.stopped == "early"
    assert history.epochs == best + 5 < 60
    assert history.best_epoch == best
    assert theta(net) == after[best] != after[-1]


def test_early_stopping_without_restoring_leaves_the_last():
    net, history, after = overfitting(patience=4, restore_best=False)
    assert history.best_epoch == int(np.argmin(history["val_cost"]))
    assert theta(net) == after[-1]


def test_the_best_is_restored_at_the_epochs_end_too():
    net, history, after = overfitting(patience=100)
    best = int(np.argmin(history["val_cost"]))
    assert (history.stopped, history.epochs) == ("finished", 60)
    assert theta(net) == after[best] != after[-1]


def test_early_stopping_with_rising_metric_and_min_delta():
    net, history, after = overfitting(patience=3, monitor="val_metric")
    best = int(np.argmax(history["val_metric"]))
    assert history.epochs == best + 4
    assert theta(net) == after[best]
    net, history, after = overfitting(patience=3, min_delta=1e9)
    assert (history.epochs, history.best_epoch) == (4, 0)
    assert theta(net) == after[0]


def test_early_stopping_by_patience_alone():
    history = gpumlp.Trainer(regression(), "sgd", 0.1, batch_size=50).fit(
        X, Y, 20, validation=(X, -Y), early_stopping=2, metric=None
    )  # what fits Y better fits −Y worse, from the start
    assert (history.stopped, history.best_epoch, history.epochs) == ("early", 0, 3)


@pytest.mark.parametrize(
    ("values", "best", "epochs"),
    [
        ([1, 1, 2, 2, 1.5, 2, 9], 2, 6),  # as good is no improvement
        ([np.nan, 1, np.nan, np.nan, np.nan, 9], 1, 5),  # nor is what is no number
        ([1, 0, 0, 2, 3, 4, 5], 6, 7),
        ([-np.inf, 1, np.inf, np.inf, np.inf, np.inf], 2, 6),
    ],
)
def test_what_counts_as_an_improvement(values, best, epochs):
    script, after, net = iter(values), [], regression()
    history = gpumlp.Trainer(net).fit(
        X, Y, 7, validation=(X, Y), metric=lambda y, p: next(script),
        callbacks=[Hook(epoch=lambda trainer, row: after.append(theta(net)))],
        early_stopping=gpumlp.EarlyStopping(patience=3, monitor="val_metric"),
    )  # fmt: skip
    assert (history.best_epoch, history.epochs) == (best, epochs)
    assert theta(net) == after[-1 if best is None else best]


def test_the_mean_of_histories_is_that_of_the_members_that_are_left():
    each = [History(("cost", "lr")) for _ in range(4)]
    for history, costs in zip(each, ([4.0, 2.0, 1.0], [8.0, 6.0], [1e9], []), strict=True):
        for cost in costs:
            history.append({"cost": cost, "lr": 0.1})
    found = Histories(each, {2: "the cost is nan"})
    assert found.trained == each[:2]
    assert found.mean()["cost"] == [6.0, 4.0, 1.0]
    assert Histories(each[3:], {}).mean().epochs == 0
    written = json.loads(found.to_json())
    assert written["diverged"] == {"2": "the cost is nan"}
    assert [one["columns"]["cost"] for one in written["members"]][1:3] == [[8.0, 6.0], [1e9]]
