"""Several models in one estimator: each is that of an estimator of its own."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from gpumlp import Ensemble
from gpumlp.callbacks import ReduceOnPlateau
from gpumlp.estimators import MLPClassifier, MLPRegressor
from gpumlp.training import members
from tests.support.compiled import needs_library
from tests.support.refusal import refusal

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
BACKENDS = ["numpy", pytest.param("cpu", marks=needs_library)]
RNG = np.random.default_rng(1)
X = RNG.normal(size=(120, 5))
LABELS = np.array(["low", "middle", "high"])[np.digitize(X[:, 0] + X[:, 1] ** 2, [0, 1.5])]
VALUES = X @ [1.0, -1.0, 0.5, 0.0, 2.0] + 0.1 * RNG.normal(size=120)
FIT: dict[str, Any] = {"hidden_layer_sizes": (8,), "max_iter": 12, "n_models": 3, "random_state": 5}


@pytest.fixture(params=[1, 3], ids="threads={}".format)
def threads(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "blas_threads", lambda: request.param)


@pytest.mark.parametrize("precision", ["float32", "float64", "auto"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_classifier_is_the_mean_of_its_models(
    backend: str, precision: str, threads: None
) -> None:
    """Each of which is an estimator of its own, to the bit."""
    settings = FIT | {"backend": backend, "precision": precision, "early_stopping": True}
    weights = np.random.default_rng(0).uniform(size=120)
    e = MLPClassifier(**settings, n_iter_no_change=1, tol=1e-2).fit(X, LABELS, weights)
    each = []
    for model in e.models_:
        single = clone(model).fit(X, LABELS, weights)
        each.append(single.predict_proba(X))
        assert np.array_equal(each[-1], model.predict_proba(X))
        assert (single.n_iter_, single.loss_) == (model.n_iter_, model.loss_)
    assert len(np.unique(each, axis=0)) == 3
    p = e.predict_proba(X)
    np.testing.assert_allclose(p, np.mean(each, axis=0), rtol=1e-12)
    np.testing.assert_allclose(np.exp(e.predict_log_proba(X)), p, rtol=1e-12)
    assert np.array_equal(e.predict(X), e.classes_[p.argmax(axis=1)])
    assert e.n_iter_ == max(model.n_iter_ for model in e.models_)
    assert isinstance(e.ensemble_, Ensemble)
    np.testing.assert_allclose(e.ensemble_.predict(X), p, atol=1e-5)
    precisions = {"float32": "float32", "float64": "float64", "auto": "float64"}
    assert e.ensemble_.backend.precision == precisions[precision]


@pytest.mark.parametrize("columns", [1, 2])
def test_a_regressor_has_the_mean_and_the_spread(columns: int, threads: None) -> None:
    y = VALUES if columns == 1 else np.stack([VALUES, -X[:, 0]], axis=1)
    e = MLPRegressor(**FIT, solver="lbfgs").fit(X, y)
    each = [clone(model).fit(X, y).predict(X) for model in e.models_]
    mean, spread = e.set_params(n_models=1).predict(X, return_std=True)  # as they were fitted
    near = np.finfo("f4").eps * np.abs(each).max()  # predictions of either sign have a mean near 0
    np.testing.assert_allclose(mean, np.mean(each, axis=0, dtype=float), rtol=1e-6, atol=near)
    np.testing.assert_allclose(spread, np.std(each, axis=0, dtype=float), rtol=1e-5, atol=1e-7)
    assert mean.shape == spread.shape == y.shape
    assert np.array_equal(e.predict(X), mean)


def test_two_classes_and_labels_and_sparse_data() -> None:
    binary = LABELS == "low"
    several = np.stack([binary, X[:, 2] > 0], axis=1).astype(int)
    for y, data in ((binary, X), (several, X), (binary, sp.csr_matrix(X))):
        e = MLPClassifier(**FIT).fit(data, y)
        each = [model.predict_proba(data) for model in e.models_]
        np.testing.assert_allclose(e.predict_proba(data), np.mean(each, axis=0), rtol=1e-12)
        assert e.predict(data).shape == y.shape
        single = clone(e.models_[1]).fit(data, y)
        assert np.array_equal(single.predict_proba(data), each[1])


def test_partial_fit_and_warm_start_go_on_in_each_model(threads: None) -> None:
    e = MLPClassifier(**FIT)
    for _ in range(3):
        e.partial_fit(X, LABELS, classes=["high", "low", "middle"])
    single = clone(e.models_[2])
    for _ in range(3):
        single.partial_fit(X, LABELS, classes=["high", "low", "middle"])
    assert np.array_equal(e.models_[2].predict_proba(X), single.predict_proba(X))
    warm = MLPRegressor(**FIT, warm_start=True).fit(X, VALUES)
    models = [id(model) for model in warm.models_]
    warm.set_params(alpha=0.01).fit(X, VALUES)
    assert [id(model) for model in warm.models_] == models
    one = clone(warm.models_[0]).set_params(alpha=1e-4).fit(X, VALUES)
    one.set_params(alpha=0.01).fit(X, VALUES)
    assert np.array_equal(one.predict(X), warm.models_[0].predict(X))
    refusal(ValueError, lambda: warm.set_params(n_models=4).fit(X, VALUES), "n_models was 3")
    refusal(ValueError, lambda: warm.set_params(n_models=1).fit(X, VALUES), "n_models was 3")
    for begin in ("fit", "partial_fit"):
        alone = getattr(MLPRegressor(**FIT | {"n_models": 1}), begin)(X, VALUES)
        kept = alone.predict(X)
        alone.set_params(n_models=2)
        refusal(
            ValueError, lambda e=alone: e.partial_fit(X, VALUES), "n_models was 1", "set it back"
        )
        assert np.array_equal(alone.predict(X), kept)
        assert len(alone.fit(X, VALUES).models_) == 2


def test_several_models_have_no_coefs_of_one() -> None:
    e = MLPRegressor(**FIT)
    refusal(NotFittedError, lambda: e.coefs_, "not fitted yet")
    e.fit(X, VALUES)
    refusal(AttributeError, lambda: e.intercepts_, "intercepts_ are", "ensemble_.nets")
    refusal(AttributeError, lambda: setattr(e, "coefs_", []), "coefs_ are", "ensemble_.nets")
    assert not hasattr(e, "coefs_")


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copies_predict_the_same(duplicate: Any) -> None:
    e = MLPRegressor(**FIT).fit(X, VALUES)
    other = duplicate(e)
    assert np.array_equal(other.predict(X), e.predict(X))
    for net, model in zip(other.ensemble_, other.models_, strict=True):
        assert net is model.net_
        assert np.shares_memory(other.ensemble_.theta, net.theta.flat)
        assert not np.shares_memory(e.ensemble_.theta, net.theta.flat)


def test_models_that_diverge_are_left_out() -> None:
    huge = MLPRegressor(**FIT, solver="sgd", learning_rate_init=1e9, backend="numpy")
    with pytest.raises(FloatingPointError, match="learning_rate_init"):
        huge.fit(X, VALUES)
    assert not hasattr(huge, "models_")
    calls = []

    def scorer(e: Any, X: Any, y: Any) -> float:
        """θ of the second model becomes useless after its first epoch."""
        calls.append(e.net_)
        if e.random_state == seeds[1]:
            e.net_.layers[0].W[...] = np.nan
        return 0.0

    seeds = [m.random_state for m in MLPRegressor(**FIT | {"max_iter": 1}).fit(X, VALUES).models_]
    e = MLPRegressor(**FIT, scoring=scorer, early_stopping=True, backend="numpy")
    with pytest.warns(RuntimeWarning, match="1 of 3 models diverged and are left out"):
        e.fit(X, VALUES)
    assert [model.random_state for model in e.models_] == [seeds[0], seeds[2]]
    each = [model.predict(X) for model in e.models_]
    np.testing.assert_allclose(e.predict(X), np.mean(each, axis=0), rtol=1e-6)


def test_the_ensemble_of_an_estimator_is_exported_as_it_predicts() -> None:
    torch = pytest.importorskip("torch")
    onnxruntime = pytest.importorskip("onnxruntime")
    from gpumlp.interop.onnx import export_onnx
    from gpumlp.interop.torch import to_torch

    e = MLPClassifier(**FIT).fit(X, LABELS)
    x = X.astype(np.float32)
    session = onnxruntime.InferenceSession(export_onnx(e.ensemble_).SerializeToString())
    [p] = session.run(None, {"x": x})
    np.testing.assert_allclose(p, e.predict_proba(X), rtol=1e-5)
    module = to_torch(e.ensemble_)
    found = module(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(found, e.predict_proba(X), rtol=1e-5)


def test_one_model_after_several_and_several_after_one() -> None:
    e = MLPRegressor(**FIT).fit(X, VALUES)
    e.set_params(n_models=1).fit(X, VALUES)
    single = MLPRegressor(**FIT | {"n_models": 1}).fit(X, VALUES)
    assert np.array_equal(e.predict(X), single.predict(X))
    e.set_params(n_models=2).fit(X, VALUES)
    assert len(e.models_) == 2
    assert not hasattr(e, "net_")


def test_x_of_the_models_type_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpumlp.estimators import several

    x32 = X.astype(np.float32)
    e = MLPRegressor(**FIT)
    assert several._placed(e, x32) is x32
    assert several._placed(e, X).dtype == np.float32


def test_invalid_settings_raise() -> None:
    def fit(**settings: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return MLPRegressor(**FIT | settings).fit(X, VALUES)

    refusal(ValueError, lambda: fit(n_models=0), "n_models must be at least 1")
    refusal(ValueError, lambda: fit(n_models=10**30), "n_models must be at most 1,000,000")
    refusal(TypeError, lambda: fit(n_models=2.5), "n_models must be a whole number")
    refusal(ValueError, lambda: fit(callbacks=[ReduceOnPlateau("cost")]), "pass n_models=1")
    one = fit(n_models=1)
    refusal(ValueError, lambda: one.predict(X, return_std=True), "pass n_models=8")
    one.set_params(n_models=3)  # of the next fit
    refusal(ValueError, lambda: one.predict(X, return_std=True), "pass n_models=8")
    refusal(TypeError, lambda: one.predict(X, return_std="yes"), "return_std must be True or False")
