"""Estimators in scikit-learn: copies, searches, pipelines, metadata routing, callbacks."""

from __future__ import annotations

import copy
import doctest
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import load_iris
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multioutput import ClassifierChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import gpumlp
from gpumlp.estimators import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)
FAST = {"hidden_layer_sizes": (16,), "max_iter": 40, "learning_rate_init": 0.02, "random_state": 0}
FAST |= {"backend": "numpy"}


# ---- copies --------------------------------------------------------------------------------------


def test_parameters_are_stored_unchanged():
    settings = {
        "activation": [gpumlp.ACTIVATIONS["elu"].set(alpha=2.0)],
        "loss": gpumlp.LOSSES["softmax_cross_entropy"].set(smoothing=0.1),
        "regularizer": gpumlp.ElasticNet(l1=1e-5), "class_weight": {0: 2.0},
    }  # fmt: skip
    e = MLPClassifier(**settings)
    assert {name: e.get_params()[name] for name in settings} == settings
    copied = clone(e)
    assert copied.get_params() == e.get_params()
    assert clone(e.set_params(**FAST)).fit(X, Y).score(X, Y) > 0.9
    assert "Activation('elu', alpha=2.0)" in repr(e)


def test_positional_parameters_keep_their_order():
    e = MLPClassifier((3, 4), "tanh")
    assert (e.hidden_layer_sizes, e.activation) == ((3, 4), "tanh")
    r = MLPRegressor("huber", (3,), "gelu")
    assert (r.loss, r.hidden_layer_sizes, r.activation) == ("huber", (3,), "gelu")
    for kind, positional in ((MLPClassifier, 2), (MLPRegressor, 3)):
        with pytest.raises(TypeError, match=f"{positional + 1} positional arguments"):
            kind(*[None] * (positional + 1))


@pytest.mark.parametrize("method", ["pickle", "deepcopy"])
@pytest.mark.parametrize("stopping", [False, True])
def test_copy_continues_partial_fit_bit_for_bit(method, stopping):
    e = MLPClassifier(**FAST, early_stopping=stopping)
    for _ in range(3):
        e.partial_fit(X, Y, classes=[0, 1, 2])
    copied = pickle.loads(pickle.dumps(e)) if method == "pickle" else copy.deepcopy(e)
    for _ in range(3):
        e.partial_fit(X, Y)
    assert copied.t_ < e.t_
    for _ in range(3):
        copied.partial_fit(X, Y)
    np.testing.assert_array_equal(copied.predict_proba(X), e.predict_proba(X))
    assert copied.loss_curve_ == e.loss_curve_


def test_pickle_is_not_much_larger_than_the_parameters():
    e = MLPClassifier((300, 300), max_iter=2, backend="numpy", early_stopping=False).fit(X, Y)
    count = sum(p.size for p in [*e.coefs_, *e.intercepts_])
    assert len(pickle.dumps(e)) < 8 * count + 20_000


# ---- searches and pipelines ----------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [None, 2])
def test_grid_search(jobs):
    grid = {
        "mlpclassifier__activation": ["tanh", gpumlp.ACTIVATIONS["leaky_relu"].set(slope=0.2)],
        "mlpclassifier__alpha": [1e-4, 1e3],
    }
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(**FAST))
    search = GridSearchCV(pipeline, grid, n_jobs=jobs, cv=3).fit(X, Y)
    assert search.best_params_["mlpclassifier__alpha"] == 1e-4
    assert search.best_score_ > 0.9


def test_cross_validation_and_meta_estimators():
    e = make_pipeline(StandardScaler(), MLPClassifier(**FAST))
    assert cross_val_score(e, X, Y, cv=3).mean() > 0.9
    bag = BaggingClassifier(MLPClassifier(**FAST), n_estimators=3, random_state=0).fit(X, Y)
    assert bag.score(X, Y) > 0.9
    chain = ClassifierChain(MLPClassifier(**FAST)).fit(X, np.eye(3, dtype=int)[Y])
    assert chain.predict(X).shape == (150, 3)
    scaled = TransformedTargetRegressor(MLPRegressor(**FAST), transformer=StandardScaler())
    assert scaled.fit(X, 1e4 * X[:, 0] ** 2).score(X, 1e4 * X[:, 0] ** 2) > 0.8


def test_column_transformer_passes_frames():
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    frame["kind"] = np.where(X[:, 0] > 0, "long", "short")
    columns = ColumnTransformer(
        [
            ("z", StandardScaler(), list("abcd")),
            ("one", OneHotEncoder(sparse_output=False), ["kind"]),
        ]
    )
    e = make_pipeline(columns, MLPClassifier(**FAST)).set_output(transform="pandas").fit(frame, Y)
    assert list(e[-1].feature_names_in_[-2:]) == ["one__kind_long", "one__kind_short"]
    assert e.score(frame, Y) > 0.9


def test_metadata_is_routed():
    weights = np.where(Y == 2, 0.0, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        e = MLPClassifier(**FAST).set_fit_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, e).fit(X, Y, sample_weight=weights)
    scaled = StandardScaler().fit_transform(X)
    plain = MLPClassifier(**FAST).fit(scaled, Y, weights)
    np.testing.assert_array_equal(pipeline.predict_proba(X), plain.predict_proba(scaled))
    assert not (pipeline.predict(X) == 2).any()


# ---- scikit-learn's callbacks --------------------------------------------------------------------


class Recorder:
    """A callback of scikit-learn that stops the fit after some epochs."""

    def __init__(self, after):
        self.after, self.log = after, []

    def setup(self, estimator, context):
        self.log.append("setup")

    def teardown(self, estimator, context):
        self.log.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.log.append(f"begin {context.task_name} {context.task_id}")

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        self.log.append(f"end {context.task_name} {context.task_id}")
        self.score = fitted_estimator.score(X, y)
        return context.task_name == "epoch" and context.task_id + 1 == self.after


def test_scikit_learn_callback_sees_every_epoch_and_can_stop():
    pytest.importorskip("sklearn.callback")
    recorder = Recorder(after=2)
    e = MLPClassifier(**FAST).set_callbacks(recorder).fit(X, Y)
    assert recorder.log == [
        "setup", "begin fit 0", "begin epoch 0", "end epoch 0", "begin epoch 1", "end epoch 1",
        "end fit 0", "teardown",
    ]  # fmt: skip
    assert (e.n_iter_, e.stopped_) == (2, "early")
    assert recorder.score == e.score(X, Y)


def test_scoring_monitor_of_scikit_learn():
    callback = pytest.importorskip("sklearn.callback")
    frame = pd.DataFrame(X, columns=list("abcd"))
    monitor = callback.ScoringMonitor(scoring="accuracy")
    e = MLPClassifier(**{**FAST, "max_iter": 3}).set_callbacks(monitor).fit(frame, Y)
    log = monitor.get_logs()
    rows = (log[0] if isinstance(log, list) else log).data
    scores = [row["accuracy"] for row in rows if row["task_name"] == "epoch"]
    assert len(scores) == 3
    assert scores[-1] == e.score(frame, Y)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.filterwarnings("ignore:Training ended")
def test_docstring_examples(kind):
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    found = [
        example for example in finder.find(kind, globs={kind.__name__: kind}) if example.examples
    ]
    assert found
    assert all(runner.run(example).failed == 0 for example in found)


# ---- imports -------------------------------------------------------------------------------------


def test_missing_scikit_learn_raises_with_the_extra():
    code = "import sys; sys.modules['sklearn'] = None; import gpumlp; import gpumlp.estimators"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'pip install "gpumlp[sklearn]"' in run.stderr.splitlines()[-1]
