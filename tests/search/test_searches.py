"""Searches: the results are those of scikit-learn's searches and of single fits."""

from __future__ import annotations

import doctest
import pickle
import signal
import threading
import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    RandomizedSearchCV,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import gpumlp.search
from gpumlp.callbacks import ReduceOnPlateau
from gpumlp.estimators import MLPClassifier, MLPRegressor
from gpumlp.io.threads import at_most
from gpumlp.search import GridSearch, RandomSearch
from gpumlp.training import Callback, members
from gpumlp.training.stepping import Stepping
from tests.support import ctrl_c
from tests.support.compiled import needs_library
from tests.support.refusal import refusal

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
BACKENDS = ["numpy", pytest.param("cpu", marks=needs_library)]
RNG = np.random.default_rng(1)
X = RNG.normal(size=(120, 5))
LABELS = np.array(["low", "middle", "high"])[np.digitize(X[:, 0] + X[:, 1] ** 2, [0, 1.5])]
VALUES = X @ [1.0, -1.0, 0.5, 0.0, 2.0] + 0.1 * RNG.normal(size=120)
GROUPS = np.arange(120) % 7
SHORT: dict[str, Any] = {
    "hidden_layer_sizes": (8,), "max_iter": 6, "random_state": 5, "precision": "float64",
    "batch_size": 32, "learning_rate_init": 0.02,
}  # fmt: skip
GRID = {"alpha": [1e-4, 0.1], "activation": ["relu", "tanh"], "hidden_layer_sizes": [(8,), (4, 4)]}
OF_FITS = ("fit_time", "score_time")


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "blas_threads", lambda: 3)


def classifier(backend: str = "cpu", **settings: Any) -> MLPClassifier:
    return MLPClassifier(**SHORT | {"backend": backend} | settings)


def same_results(found: Any, want: Any) -> None:
    """The same tables, but for times, to 1e-6, and the same refitted network."""
    ours, theirs = found.cv_results_, want.cv_results_
    assert list(ours) == list(theirs)
    for key, values in theirs.items():
        if key == "params":
            assert ours[key] == values
        elif key.startswith("param_"):
            assert ours[key].tolist() == values.tolist()
        elif not key.endswith(OF_FITS):
            np.testing.assert_allclose(ours[key], values, rtol=0, atol=1e-6, err_msg=key)
    for name in ("best_index_", "best_params_", "n_splits_", "multimetric_", "n_features_in_"):
        assert getattr(found, name) == getattr(want, name), name
    assert np.array_equal(found.predict(X), want.predict(X))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_grid_search_is_that_of_scikit_learn(backend: str) -> None:
    e = classifier(backend)
    how: dict[str, Any] = {"cv": 3, "return_train_score": True}
    found = GridSearch(e, GRID, **how).fit(X, LABELS)
    want = GridSearchCV(e, GRID, n_jobs=2, **how).fit(X, LABELS)
    same_results(found, want)
    np.testing.assert_array_equal(found.predict_proba(X), want.predict_proba(X))
    assert found.score(X, LABELS) == want.score(X, LABELS)
    assert found.best_score_ == want.best_score_
    assert list(found.classes_) == ["high", "low", "middle"]
    assert (found.cv_results_["mean_fit_time"] > 0).all()
    assert found.refit_time_ > 0


def test_a_score_is_that_of_a_single_fit() -> None:
    e, folds = classifier(), KFold(4)
    found = GridSearch(e, GRID, cv=folds).fit(X, LABELS).cv_results_
    assert len(np.unique(found["mean_test_score"])) > 1
    for i, params in enumerate(found["params"]):
        for j, (train, test) in enumerate(folds.split(X)):
            single = clone(e).set_params(**params).fit(X[train], LABELS[train])
            assert found[f"split{j}_test_score"][i] == single.score(X[test], LABELS[test])


def test_the_fits_run_at_the_same_time_each_on_one_thread() -> None:
    meeting, numbers = threading.Barrier(3, timeout=60), []

    class Meet(Callback):
        def on_fit_begin(self, trainer: Any) -> None:
            numbers.append(at_most(8))
            meeting.wait()

        def __deepcopy__(self, memo: Any) -> Meet:
            return self

    e = classifier(callbacks=[Meet()])
    if members.count(MLPClassifier().fit(X, LABELS).net_.backend) < 2:
        pytest.skip("the library is not compiled here")
    GridSearch(e, {"alpha": [1, 2, 3]}, cv=2, refit=False).fit(X, LABELS)
    assert numbers == [1] * 6


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_random_search_is_that_of_scikit_learn(backend: str) -> None:
    e = MLPRegressor(**SHORT, backend=backend)
    drawn = {"alpha": loguniform(1e-5, 1), "learning_rate_init": [0.01, 0.03]}
    how: dict[str, Any] = {"random_state": 3, "cv": 3, "scoring": "neg_mean_absolute_error"}
    found = RandomSearch(e, drawn, 5, **how).fit(X, VALUES)
    same_results(found, RandomizedSearchCV(e, drawn, n_iter=5, **how).fit(X, VALUES))
    assert len(found.cv_results_["params"]) == 5


def test_weights_groups_and_splitters_go_where_they_belong() -> None:
    weights = np.random.default_rng(0).uniform(size=120)
    e, how = classifier(), {"cv": GroupKFold(3), "refit": False}
    given = {"sample_weight": weights, "groups": GROUPS}
    found = GridSearch(e, {"alpha": [0.1, 1]}, **how).fit(X, LABELS, **given).cv_results_
    want = GridSearchCV(e, {"alpha": [0.1, 1]}, **how).fit(X, LABELS, **given).cv_results_
    plain = GridSearch(e, {"alpha": [0.1, 1]}, **how).fit(X, LABELS, groups=GROUPS).cv_results_
    scores = [[r[f"split{i}_test_score"] for i in range(3)] for r in (found, want, plain)]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def test_several_metrics_and_a_function_that_chooses() -> None:
    e, metrics = classifier(), {"a": make_scorer(accuracy_score), "loss": "neg_log_loss"}
    how: dict[str, Any] = {"scoring": metrics, "cv": 3}
    found = GridSearch(e, GRID, refit="loss", **how).fit(X, LABELS)
    want = GridSearchCV(e, GRID, refit="loss", **how).fit(X, LABELS)
    same_results(found, want)
    assert found.score(X, LABELS) == want.score(X, LABELS)
    last = GridSearch(e, GRID, refit=lambda results: len(results["params"]) - 1, **how)
    assert last.fit(X, LABELS).best_params_ == want.cv_results_["params"][-1]


def test_pipelines_and_transformed_targets() -> None:
    e = make_pipeline(StandardScaler(), classifier())
    grid = {"mlpclassifier__alpha": [0.01, 1], "standardscaler__with_mean": [True, False]}
    same_results(
        GridSearch(e, grid, cv=3).fit(100 + 5 * X, LABELS),
        GridSearchCV(e, grid, cv=3).fit(100 + 5 * X, LABELS),
    )
    r = TransformedTargetRegressor(MLPRegressor(**SHORT), transformer=StandardScaler())
    grid = {"regressor__alpha": [0.01, 1], "regressor__solver": ["lbfgs", "adam"]}
    same_results(
        GridSearch(r, grid, cv=3).fit(X, VALUES), GridSearchCV(r, grid, cv=3).fit(X, VALUES)
    )


def test_early_stopping_callbacks_and_several_models() -> None:
    e = classifier(early_stopping=True, callbacks=[ReduceOnPlateau(patience=1)])
    grid = {"n_iter_no_change": [1, 3], "learning_rate": ["adaptive", "one_cycle"]}
    same_results(
        GridSearch(e, grid, cv=3).fit(X, LABELS), GridSearchCV(e, grid, cv=3).fit(X, LABELS)
    )
    e = classifier(n_models=2)
    same_results(
        GridSearch(e, {"alpha": [0, 1]}, cv=3).fit(X, LABELS),
        GridSearchCV(e, {"alpha": [0, 1]}, cv=3).fit(X, LABELS),
    )


def test_candidates_are_single_models_and_the_best_parameters_are_those_of_an_ensemble() -> None:
    e, grid = classifier(early_stopping=True), {"alpha": [0.01, 10], "solver": ["adam", "sgd"]}
    for refit in (True, lambda results: int(results["rank_test_score"].argmax())):
        found = GridSearch(e, grid, cv=3, refit=refit, n_models=3).fit(X, LABELS)
        single = GridSearchCV(e, grid, cv=3, refit=refit).fit(X, LABELS)
        want = clone(e).set_params(**single.best_params_, n_models=3).fit(X, LABELS)
        assert len(found.best_estimator_.models_) == 3
        np.testing.assert_array_equal(found.predict_proba(X), want.predict_proba(X))
        single.best_estimator_ = want
        same_results(found, single)
        assert found.estimator is e
        assert clone(found).n_models == 3
    pipeline = make_pipeline(StandardScaler(), classifier())
    drawn = {"mlpclassifier__alpha": [0.01, 0.1, 1]}
    found = RandomSearch(pipeline, drawn, n_iter=2, cv=3, random_state=0, n_models=2)
    assert len(found.fit(X, LABELS).best_estimator_[-1].models_) == 2
    assert [*found.cv_results_["params"][0]] == ["mlpclassifier__alpha"]


# ---- failures and signals ------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_candidate_that_diverges_is_named_and_harms_no_other(backend: str) -> None:
    e = MLPRegressor(**SHORT, backend=backend, solver="sgd", momentum=0)
    rates = {"learning_rate_init": [0.01, 1e9, 0.02]}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = GridSearch(e, rates, cv=3, error_score=-7.0).fit(X, VALUES)
    ours = [str(w.message) for w in caught if "candidates failed" in str(w.message)]
    assert len(ours) == 1
    assert "1 of 3 candidates failed" in ours[0]
    assert "{'learning_rate_init': 1000000000.0} in 3 of 3 splits" in ours[0]
    assert "training diverged" in ours[0]
    assert found.cv_results_["mean_test_score"][1] == -7
    kept = GridSearchCV(e, {"learning_rate_init": [0.01, 0.02]}, cv=3).fit(X, VALUES)
    np.testing.assert_allclose(
        found.cv_results_["mean_test_score"][[0, 2]], kept.cv_results_["mean_test_score"]
    )
    assert np.array_equal(found.predict(X), kept.predict(X))
    with pytest.raises(FloatingPointError, match="training diverged"):
        GridSearch(e, rates, cv=3, error_score="raise").fit(X, VALUES)
    with pytest.raises(ValueError, match="All the 3 fits failed"):
        GridSearch(e, {"learning_rate_init": [1e9]}, cv=3).fit(X, VALUES)


def test_the_filters_of_warnings_are_as_before() -> None:
    e = MLPRegressor(**SHORT, solver="sgd", momentum=0)
    rates = {"learning_rate_init": [1e9, *np.linspace(0.001, 0.01, 8)]}
    before = list(warnings.filters)
    for _ in range(3):
        with pytest.warns(FitFailedWarning):
            GridSearch(e, rates, cv=3, error_score=-9).fit(X, VALUES)
        assert warnings.filters == before


class Interrupting(Callback):
    """Ctrl-C in the third epoch of a fit; later fits have no epoch any more."""

    epochs = 0

    def on_epoch_end(self, trainer: Any, row: Any) -> None:
        type(self).epochs += 1
        if type(self).epochs == 3:
            ctrl_c.press()
        elif type(self).epochs > 3:
            ctrl_c.wait()


@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_ends_fits_of_several_models(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a fit their models share a signal of their own, also in threads."""
    steps, original = [], Stepping.step

    def step(self: Any, *arguments: Any) -> None:
        steps.append(None)
        if len(steps) == 20:
            ctrl_c.press()
        elif len(steps) > 20:
            ctrl_c.wait()
        original(self, *arguments)

    monkeypatch.setattr(Stepping, "step", step)
    search = GridSearch(classifier(backend, n_models=2, max_iter=1000), {"alpha": [1, 2, 3]})
    with pytest.raises(KeyboardInterrupt):
        search.fit(X, LABELS)
    assert len(steps) < 2000


@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_ends_all_fits(backend: str) -> None:
    Interrupting.epochs = 0
    e = classifier(backend, max_iter=1000, callbacks=[Interrupting()])
    handler = signal.getsignal(signal.SIGINT)
    search = GridSearch(e, {"alpha": [1, 2, 3, 4, 5]})
    with pytest.raises(KeyboardInterrupt):  # and no warning, which would be an error here
        search.fit(X, LABELS)
    assert Interrupting.epochs < 200
    assert not hasattr(search, "cv_results_")
    assert signal.getsignal(signal.SIGINT) is handler
    again = classifier(backend, max_iter=5, callbacks=[Interrupting()]).fit(X, LABELS)
    assert again.stopped_ == "finished"


# ---- scikit-learn's conventions ------------------------------------------------------------------

CHECKED = {"cv": 2, "error_score": "raise"}
FAST: dict[str, Any] = {"max_iter": 30, "solver": "lbfgs", "precision": "auto", "random_state": 0}
SMALL, OTHER = MLPClassifier((8,), **FAST), MLPRegressor(hidden_layer_sizes=(8,), **FAST)


# of scikit-learn's own `type_of_target`, for y that is not finite
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
@parametrize_with_checks(
    [
        GridSearch(SMALL, {"alpha": [0.1, 1]}, **CHECKED),
        GridSearch(OTHER, {"alpha": [0.1, 1]}, **CHECKED),
        RandomSearch(SMALL, {"alpha": [0.1, 1]}, 2, random_state=0, **CHECKED),
    ]
)
def test_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def test_copies_and_nested_searches() -> None:
    search = GridSearch(classifier(), {"alpha": [0.01, 1]}, cv=3, scoring="accuracy")
    copied = clone(search)
    assert copied.get_params(deep=False).keys() == search.get_params(deep=False).keys()
    assert "n_jobs" not in search.get_params()
    assert copied.set_params(estimator__alpha=3.0, cv=2).estimator.alpha == 3
    assert repr(search).startswith("GridSearch(")
    fitted = pickle.loads(pickle.dumps(search.fit(X, LABELS)))
    assert np.array_equal(fitted.predict_proba(X), search.predict_proba(X))
    ours = cross_val_score(search, X, LABELS, cv=2)
    theirs = GridSearchCV(classifier(), {"alpha": [0.01, 1]}, cv=3, scoring="accuracy")
    np.testing.assert_array_equal(ours, cross_val_score(theirs, X, LABELS, cv=2))
    outer = GridSearch(search, {"estimator__activation": ["relu", "tanh"]}, cv=2)
    assert outer.fit(X, LABELS).best_estimator_.best_params_["alpha"] in (0.01, 1)


def test_wrong_input_is_refused() -> None:
    refusal(
        TypeError, lambda: GridSearch(LogisticRegression(), {"C": [1]}).fit(X, LABELS),
        "MLPClassifier", "LogisticRegression", "GridSearchCV",
    )  # fmt: skip
    for n_models in (None, 2):
        search = GridSearch(MLPClassifier, {"alpha": [1]}, n_models=n_models)
        with pytest.raises(TypeError, match=r"got the class .*; pass an object, MLPClassifier\(\)"):
            search.fit(X, LABELS)
    with pytest.raises(ValueError, match="Invalid parameter 'alhpa'"):
        GridSearch(classifier(), {"alhpa": [1]}).fit(X, LABELS)
    with pytest.raises(ValueError, match="backend"):
        GridSearch(classifier("gpu"), {"alpha": [1]}).fit(X, LABELS)
    with pytest.raises(ValueError, match="inconsistent"):
        GridSearch(classifier(), {"alpha": [1]}).fit(X, LABELS[:-1])
    for n_models, grid in ((0, {"alpha": [1]}), (2, {"n_models": [1, 2]})):
        search = GridSearch(classifier(), grid, n_models=n_models)
        with pytest.raises(ValueError, match=f"n_models.*{n_models}"):
            search.fit(X, LABELS)
    search.set_params(n_models=None).fit(X, LABELS)  # one of the two left out
    with pytest.raises(ValueError, match="refit"):
        GridSearch(classifier(), {"alpha": [1]}, scoring=["accuracy", "f1"]).fit(X, LABELS)


def test_the_example_of_the_docstring() -> None:
    found = doctest.testmod(gpumlp.search.searches)
    assert (found.attempted, found.failed) == (6, 0)
