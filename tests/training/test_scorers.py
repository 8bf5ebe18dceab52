"""Metrics by the names of scikit-learn's scorers, against its functions; several metrics."""

from __future__ import annotations

import functools
import math
import sys
import threading
import time
import warnings

import numpy as np
import pytest
import scipy.special
import sklearn.metrics as sk

import gpumlp
from gpumlp.training.scorers import Scorer
from tests.support.training_cases import LABELS, WEIGHTS, X, Y, classifier, regression, theta

RNG = np.random.default_rng(5)
BITS = RNG.integers(0, 2, (50, 3))
MACRO = {"average": "macro", "zero_division": 0}


def labels(p):
    return p.argmax(axis=1)


def binary(n):
    return gpumlp.MLP([4, 6, n], loss="binary_cross_entropy", precision="float64", backend="numpy")


def two(n=2):
    return gpumlp.MLP([4, 6, n], precision="float64", backend="numpy")


def minus(score):
    return lambda *a, **k: -score(*a, **k)


# name, network, y, the predictions that scikit-learn's function takes, the function
CASES = [
    ("f1_macro", classifier, LABELS, labels, functools.partial(sk.f1_score, **MACRO)),
    ("balanced_accuracy", classifier, LABELS, labels, sk.balanced_accuracy_score),
    ("neg_log_loss", classifier, LABELS, lambda p: p, minus(sk.log_loss)),
    ("top_k_accuracy", classifier, LABELS, lambda p: p, sk.top_k_accuracy_score),
    ("roc_auc_ovr", classifier, LABELS, lambda p: p,
     functools.partial(sk.roc_auc_score, multi_class="ovr")),
    ("roc_auc", two, BITS[:, 0], lambda p: p[:, 1], sk.roc_auc_score),
    ("average_precision", two, BITS[:, 0], lambda p: p[:, 1], sk.average_precision_score),
    ("roc_auc", lambda: binary(1), BITS[:, :1], lambda p: p[:, 0], sk.roc_auc_score),
    ("neg_brier_score", lambda: binary(1), BITS[:, 0], lambda p: p[:, 0],
     minus(sk.brier_score_loss)),
    ("recall", lambda: binary(1), BITS[:, 0], lambda p: p[:, 0] >= 0.5, sk.recall_score),
    ("roc_auc", lambda: binary(3), BITS, lambda p: p, sk.roc_auc_score),
    ("roc_auc", lambda: binary(2), BITS[:, :2], lambda p: p, sk.roc_auc_score),
    ("accuracy", lambda: binary(3), BITS, lambda p: p >= 0.5, sk.accuracy_score),
    ("f1_samples", lambda: binary(3), BITS, lambda p: p >= 0.5,
     functools.partial(sk.f1_score, average="samples", zero_division=0)),
    ("neg_mean_absolute_error", regression, Y, lambda p: p, minus(sk.mean_absolute_error)),
    ("r2", regression, Y, lambda p: p, sk.r2_score),
    ("neg_root_mean_squared_error", regression, Y, lambda p: p, minus(sk.root_mean_squared_error)),
]  # fmt: skip


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "build", "y", "of", "score"), CASES)
def test_scorer_name_equals_scikit_learn_function(name, build, y, of, score, weighted):
    net, weights = build(), (WEIGHTS,) if weighted else ()
    history = gpumlp.Trainer(net, batch_size=16).fit(
        X, y, 2, validation=(X, y, *weights), metric=name
    )
    named = {"sample_weight": WEIGHTS} if weighted else {}
    expected = score(y, of(net.predict(X)), **named)
    assert history["val_metric"][-1] == pytest.approx(expected, rel=1e-12)


def test_probability_targets_count_as_the_likeliest_class():
    y = np.random.default_rng(0).dirichlet([1, 1, 1], 50)
    net = classifier()
    history = gpumlp.Trainer(net).fit(X, y, 1, validation=(X, y), metric="f1_macro")
    expected = sk.f1_score(labels(y), labels(net.predict(X)), **MACRO)
    assert history["val_metric"] == pytest.approx([expected], rel=1e-12)


def test_scorer_without_weights_ignores_them():
    net = gpumlp.MLP([4, 1], loss="squared_error", backend="numpy")
    history = gpumlp.Trainer(net).fit(
        X, Y[:, 0], 1, validation=(X, Y[:, 0], WEIGHTS), metric="neg_max_error"
    )
    expected = -sk.max_error(Y[:, 0], net.predict(X)[:, 0])
    assert history["val_metric"] == pytest.approx([expected], rel=1e-6)


@pytest.mark.parametrize("metric", ["roc_auc_ovr", "neg_log_loss"])
def test_probabilities_of_float32_networks_do_not_saturate(metric):
    """In float32, a p behind 17 in logits was 1, and its log loss at most 16."""
    net = gpumlp.MLP([3, 3], backend="numpy")
    net.layers[0].W[...] = np.eye(3)
    x = np.random.default_rng(1).normal(size=(200, 3)) * 12
    y = (x + np.random.default_rng(2).normal(size=x.shape) * 12).argmax(axis=1)
    trainer = gpumlp.Trainer(net, "sgd", lr=1e-30, batch_size=200)
    history = trainer.fit(x, y, 1, validation=(x, y), metric=metric, progress=False)
    p = scipy.special.softmax(x, axis=1)
    score = {
        "roc_auc_ovr": lambda: sk.roc_auc_score(y, p, multi_class="ovr"),
        "neg_log_loss": lambda: -sk.log_loss(y, p),
    }
    assert history["val_metric"] == pytest.approx([score[metric]()], rel=1e-5)


# ---- several metrics ---------------------------------------------------------------------------


def test_list_of_metrics_has_a_column_for_each():
    def worst(y, p):
        return float(p[np.arange(len(y)), y].min())

    net = classifier()
    metric = ["auto", "neg_log_loss", worst]
    history = gpumlp.Trainer(net).fit(
        X, LABELS, 2, validation=(X, LABELS), metric=metric, train_metric=True
    )
    names = ["metric", "neg_log_loss", "worst"]
    assert list(history) == [
        "cost", *names, "val_cost", *(f"val_{name}" for name in names), "lr", "seconds",
    ]  # fmt: skip
    p = net.predict(X)
    expected = [(labels(p) == LABELS).mean(), -sk.log_loss(LABELS, p), worst(LABELS, p)]
    for name, value in zip(names, expected, strict=True):
        assert history[name][-1] == history[f"val_{name}"][-1] == pytest.approx(value, rel=1e-12)


def test_dict_of_metrics_names_columns_and_accepts_scorers():
    f2 = sk.make_scorer(sk.fbeta_score, beta=2, **MACRO)
    net = classifier()
    history = gpumlp.Trainer(net).fit(
        X, LABELS, 1, validation=(X, LABELS), metric={"F2": f2, "share": lambda y, p: y.mean()}
    )
    expected = sk.fbeta_score(LABELS, labels(net.predict(X)), beta=2, **MACRO)
    assert history["val_F2"] == pytest.approx([expected], rel=1e-12)
    assert history["val_share"] == [LABELS.mean()]


@pytest.mark.parametrize(("mode", "pick"), [("auto", np.argmax), ("min", np.argmin)])
def test_early_stopping_monitors_a_named_metric(mode, pick):
    net, after = regression(), []

    class SaveTheta(gpumlp.Callback):
        def on_epoch_end(self, trainer, row):
            after.append(theta(net))

    history = gpumlp.Trainer(net, "adam", 0.05, batch_size=16).fit(
        X[:30], Y[:30], 30, validation=(X[30:], -Y[30:]), metric=["neg_mean_absolute_error"],
        early_stopping=gpumlp.EarlyStopping(4, monitor="val_neg_mean_absolute_error", mode=mode),
        callbacks=[SaveTheta()],
    )  # fmt: skip
    best = pick(history["val_neg_mean_absolute_error"])
    assert history.best_epoch == best
    assert theta(net) == after[best]


def test_memory_plan_accepts_scorer_names():
    trainer = gpumlp.Trainer(two(), batch_size=16)
    rule = gpumlp.EarlyStopping(monitor="val_roc_auc")
    plans = [
        trainer.memory(100, validation=20, metric=metric, early_stopping=rule)
        for metric in (["roc_auc"], {"roc_auc": "auto"})
    ]
    assert plans[0] == plans[1]
    with pytest.raises(ValueError, match="watches 'val_roc_auc'"):
        trainer.memory(100, validation=20, early_stopping=rule)


# ---- invalid metrics raise before training -----------------------------------------------------

ONE_CLASS = (X[:5], np.ones(5, int))
INVALID = [
    ({"metric": "roc_acu"}, ValueError, "unknown metric 'roc_acu'; did you mean 'roc_auc'"),
    ({"metric": "f1"}, ValueError, "'f1' does not go with softmax.*pass 'f1_macro' or 'f1_micro'"),
    ({"metric": "roc_auc"}, ValueError, "multi_class must be.*pass 'roc_auc_ovo' or"),
    ({"metric": "f1", "validation": None, "train_metric": True}, ValueError, "the training data"),
    ({"metric": ["roc_auc_ovr"], "validation": ONE_CLASS}, ValueError, "the validation data"),
    ({"metric": ["r2", "r2"]}, ValueError, "has 'r2' twice"),
    ({"metric": [lambda y, p: 0]}, ValueError, "without a name; pass a dict"),
    ({"metric": {"val_a": "r2"}}, ValueError, "'val_a'; pass a string that does not begin"),
    ({"metric": {"cost": "r2"}}, ValueError, "'cost', which another column has"),
    ({"metric": {3: "r2"}}, ValueError, "has the name 3"),
    ({"metric": {"a": 3}}, ValueError, "metric must be.*got 3"),
    ({"metric": [], "train_metric": True}, ValueError, "train_metric needs a metric"),
    ({"metric": ["r2"], "early_stopping": gpumlp.EarlyStopping(monitor="val_metric")}, ValueError,
     "early_stopping watches 'val_metric'.*monitor one of: cost, val_cost, val_r2"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), INVALID)
def test_invalid_metric_raises(arguments, error, message):
    net = classifier()
    before = theta(net)
    arguments = {"validation": (X, LABELS), **arguments}
    with pytest.raises(error, match=message):
        gpumlp.Trainer(net).fit(X, LABELS, 1, **arguments)
    assert theta(net) == before


def test_regression_with_a_probability_scorer_raises():
    with pytest.raises(ValueError, match=r"squared_error.*it needs the probabilities of classes"):
        gpumlp.Trainer(regression()).fit(X, Y, 1, validation=(X, Y), metric="neg_log_loss")


def test_score_that_fails_during_training_is_nan():
    y = np.full(50, 0.01)
    net = gpumlp.MLP([4, 1], loss="squared_error", seed=1, backend="numpy")
    name = "neg_mean_poisson_deviance"
    with pytest.warns(RuntimeWarning, match=f"{name}' is NaN: Mean Tweedie"):
        history = gpumlp.Trainer(net).fit(X, y, 2, validation=(X, y), metric=name)
    assert (net.predict(X) < 0).any()
    assert math.isnan(history["val_metric"][-1])
    assert history.epochs == 2


def test_scorer_name_without_scikit_learn_raises(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    fit = gpumlp.Trainer(classifier()).fit
    assert fit(X, LABELS, 1, validation=(X, LABELS)).epochs == 1
    with pytest.raises(ImportError, match=r"metric='f1_macro': pip install .gpumlp\[sklearn\]"):
        fit(X, LABELS, 1, validation=(X, LABELS), metric="f1_macro")


def test_scores_in_several_threads_leave_the_filters_of_warnings():
    """The one that begins first ends first, as the fits of an ensemble may."""
    begun = threading.Event()

    def slow(y, p):
        begun.set()
        time.sleep(0.1)
        return 0.0

    score = Scorer("slow", gpumlp.LOSSES["squared_error"], sk.make_scorer(slow))
    before = list(warnings.filters)
    y = np.zeros((3, 1))
    first, second = (threading.Thread(target=score, args=(y, y, None)) for _ in range(2))
    first.start()
    begun.wait()
    time.sleep(0.05)
    second.start()
    first.join()
    second.join()
    assert warnings.filters == before
