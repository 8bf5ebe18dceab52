"""Estimators with norms, gates, dropout and skips: against networks that are trained alone."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

import gpumlp
from gpumlp.estimators import MLPClassifier, MLPRegressor
from tests.support.blocks import MANY
from tests.support.refusal import refusal

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
RNG = np.random.default_rng(2)
X = RNG.normal(size=(90, 6))
LABELS = X[:, :3].argmax(axis=1)
FIT: dict[str, Any] = {
    "hidden_layer_sizes": (8, 8, 11), "activation": "gelu", "max_iter": 4, "random_state": 3,
    "backend": "numpy", "precision": "float64", "batch_size": 32, "alpha": 0.0,
}  # fmt: skip


def in_numpy(e: Any, x: Any) -> Any:
    """The logits of MANY, from coefs_, intercepts_ and what else the network has."""
    p = e.net_.tensors()
    f = gpumlp.ACTIVATIONS["gelu"]

    def affine(h: Any, k: int) -> Any:
        return h @ e.coefs_[k] + e.intercepts_[k]

    h1 = f.f(affine(x, 0), **f.params)
    centred = h1 - h1.mean(1, keepdims=True)
    n = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
    n = n * p["2.norm.weight"] + p["2.norm.bias"]
    a, b = np.split(affine(n, 1), 2, axis=1)
    h2 = h1 + a * b / (1 + np.exp(-b))
    n = h2 / np.sqrt((h2**2).mean(1, keepdims=True) + 1e-5) * p["4.norm.weight"]
    h3 = f.f(affine(n, 2), **f.params) + h2 @ p["4.skip.weight"].T + p["4.skip.bias"]
    centred = h3 - h3.mean(1, keepdims=True)
    n = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
    return affine(n * p["6.norm.weight"] + p["6.norm.bias"], 3)


def test_coefs_are_the_weights_of_the_layers() -> None:
    e = MLPClassifier(**FIT, **MANY).fit(X, LABELS)
    logits = in_numpy(e, X)
    p = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(e.predict_proba(X), p / p.sum(1, keepdims=True), rtol=1e-10)
    assert [W.shape for W in e.coefs_] == [(6, 8), (8, 16), (8, 11), (11, 3)]
    before = e.net_.tensors()
    e.coefs_[1] = e.coefs_[1] * 2
    np.testing.assert_array_equal(e.net_.tensors()["2.weight"], 2 * before["2.weight"])
    np.testing.assert_array_equal(e.net_.tensors()["4.skip.weight"], before["4.skip.weight"])


def test_batch_norm_with_all_that_an_estimator_does() -> None:
    """Early stopping restores the statistics of the best epoch; copies and searches have them."""
    many: dict[str, Any] = {**FIT, "norm": "batch", "max_iter": 30, "solver": "adamw"}
    e = MLPClassifier(**many, early_stopping=True, n_iter_no_change=2, learning_rate_init=0.05)
    e.fit(X, LABELS)
    e.fit(X, LABELS, X_val=X[:40], y_val=LABELS[:40])
    assert e.score(X[:40], LABELS[:40]) == e.best_validation_score_
    for other in (copy.deepcopy(e), pickle.loads(pickle.dumps(e))):
        np.testing.assert_array_equal(other.predict_proba(X), e.predict_proba(X))
    found = GridSearchCV(
        MLPClassifier(**many | {"max_iter": 2}), {"norm": ["batch", "layer", None]}, cv=2
    ).fit(X, LABELS)
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()
    several = MLPClassifier(**many | {"max_iter": 3}, n_models=2).fit(X, LABELS)
    assert several.predict_proba(X).shape == (90, 3)
    partial = MLPClassifier(**many).partial_fit(X, LABELS, classes=[0, 1, 2])
    assert "2.norm.running_var" in partial.net_.tensors()
    with pytest.raises(ValueError, match="two examples or more"):
        partial.partial_fit(X[:1], LABELS[:1])


@pytest.mark.parametrize("norm", [MANY["norm"], ["batch", "batch", "layer"]], ids=str)
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_a_fit_is_that_of_the_network(kind: Any, norm: Any) -> None:
    """`Trainer` with the same first parameters: the same masks, steps and results."""
    y = LABELS if kind is MLPClassifier else X[:, 0] ** 2
    many = MANY | {"norm": norm}
    e = kind(**FIT, **many, solver="adamw").fit(X, y)
    start = kind(**FIT | {"max_iter": 1}, **many, solver="adamw")
    start.learning_rate_init = 1e-300  # only its first parameters are used
    net = copy.deepcopy(start.fit(X, y).net_)
    first = gpumlp.MLP(net.widths, norm=norm, backend="numpy").tensors()  # without its step
    states = {name: a for name, a in first.items() if "running" in name}
    net.assign(net.tensors() | states)
    unit = 1.0 if kind is MLPClassifier else 0.5  # of scikit-learn's squared error
    rule = gpumlp.OPTIMIZERS["adamw"].set(eps=max(1e-8 / unit, 1e-37))
    trainer = gpumlp.Trainer(net, rule, 1e-3, 32, seed=e._seed)
    history = trainer.fit(X, y, 4, progress=False)
    for name, tensor in e.net_.tensors().items():
        np.testing.assert_allclose(net.tensors()[name], tensor, 1e-9, 1e-11, err_msg=name)
    np.testing.assert_allclose(e.loss_curve_, unit * np.array(history["cost"]), rtol=1e-9)


def test_dropout_changes_a_training_and_no_prediction() -> None:
    dropping = MLPClassifier(**FIT, dropout=0.5).fit(X, LABELS)
    without = MLPClassifier(**FIT).fit(X, LABELS)
    assert not np.allclose(dropping.coefs_[0], without.coefs_[0])
    dropping.coefs_, dropping.intercepts_ = without.coefs_, without.intercepts_
    assert np.array_equal(dropping.predict_proba(X), without.predict_proba(X))


def test_copies_and_parameters() -> None:
    e = MLPClassifier(**FIT, **MANY).fit(X, LABELS)
    for other in (pickle.loads(pickle.dumps(e)), copy.deepcopy(e), clone(e).fit(X, LABELS)):
        assert np.array_equal(other.predict_proba(X), e.predict_proba(X))
        assert other.net_.blocks == e.net_.blocks
        assert {k: other.get_params()[k] for k in MANY} == MANY
    e.set_params(residual=2, gated=None, norm="rms", dropout=0.0).fit(X, LABELS)
    assert [block.skip for block in e.net_.blocks] == [0, 0, 2, 0]
    assert [block.norm and block.norm.name for block in e.net_.blocks] == [None, *["rms"] * 3]


def test_several_models_are_those_of_estimators_alone() -> None:
    e = MLPClassifier(**FIT, **MANY, n_models=3).fit(X, LABELS)
    each = [clone(model).fit(X, LABELS).predict_proba(X) for model in e.models_]
    assert len(np.unique(each, axis=0)) == 3
    np.testing.assert_allclose(e.predict_proba(X), np.mean(each, axis=0), rtol=1e-12)


def test_a_warm_start_continues_with_the_same_blocks() -> None:
    e = MLPClassifier(**FIT, **MANY, warm_start=True).fit(X, LABELS)
    before = e.loss_
    assert e.set_params(max_iter=20).fit(X, LABELS).loss_ < before
    kept = e.net_.tensors()
    others = {"norm": "rms", "dropout": 0.1, "residual": False, "gated": "silu"}
    for name, value in others.items():
        changed = copy.deepcopy(e).set_params(**{name: value})
        refusal(
            ValueError, lambda e=changed: e.fit(X, LABELS), f"{name} was changed since",
            "warm_start=False",
        )  # fmt: skip
    same = {"norm": tuple(MANY["norm"]), "dropout": np.array(MANY["dropout"])}
    e.set_params(**same, max_iter=1).fit(X, LABELS)
    assert e.net_.tensors().keys() == kept.keys()


def test_a_search_passes_numbers_of_numpy() -> None:
    grid = {
        "dropout": np.array([0.0, 0.9], np.float32), "residual": np.array([True, False]),
        "norm": np.array(["layer", "rms"]),
    }  # fmt: skip
    found = GridSearchCV(MLPClassifier(**FIT | {"max_iter": 30}), grid, cv=2).fit(X, LABELS)
    assert found.best_params_["dropout"] == 0
    best = found.best_estimator_
    assert best.net_.blocks[1].norm.name == found.best_params_["norm"]


def test_invalid_parameters_raise_before_a_training() -> None:
    def wrong(*said: str, **blocks: Any) -> None:
        e = MLPClassifier(**FIT, **blocks)
        refusal(ValueError, lambda: e.fit(X, LABELS), *said)
        assert not hasattr(e, "net_")

    wrong("unknown norm 'group'", "known: layer, rms, batch", norm="group")
    wrong("dropout must be a number from 0 to below 1, as 0.1; got 1", dropout=1)
    wrong("dropout has 2 entries but there are 3 hidden layers", dropout=[0.1, 0.2])
    wrong("residual must be True, False, a number of layers", residual="yes")
    wrong("unknown gated 'swiglu'", gated="swiglu")
    e = MLPClassifier(**FIT | {"warm_start": True}).fit(X, LABELS)
    refusal(ValueError, lambda: e.set_params(dropout=-1.0).fit(X, LABELS), "dropout must be")
