"""Parameters with scikit-learn's names change θ as in scikit-learn's own estimators."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import neural_network as theirs
from sklearn.datasets import make_multilabel_classification

from gpumlp import estimators as ours

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(3)
X = RNG.normal(size=(60, 5))
TARGETS = {
    "two classes": (X[:, 0] > 0).astype(int),
    "three classes": np.digitize(X[:, 0], [-0.5, 0.5]),
    "labels": make_multilabel_classification(60, n_classes=4, random_state=0)[1],
    "a value": X[:, 0] * X[:, 1] + RNG.normal(size=60),
    "three values": X[:, :3] * X[:, 1:4],
}
SOLVERS = {
    "adam": {"solver": "adam", "beta_1": 0.8, "beta_2": 0.99},
    "nesterov": {"solver": "sgd", "momentum": 0.7},
    "momentum": {"solver": "sgd", "momentum": 0.7, "nesterovs_momentum": False},
    "sgd": {"solver": "sgd", "momentum": 0.0},
}


def both(target, **settings):
    """Our estimator and scikit-learn's, with the same θ after an epoch."""
    settings = {
        "hidden_layer_sizes": (7, 6),
        "activation": "logistic",
        "alpha": 0.3,
        "batch_size": 20,
        "learning_rate_init": 0.02,
        "random_state": 0,
        "shuffle": False,
        "epsilon": 1e-3,
        **settings,
    }
    kind = "Regressor" if "value" in target else "Classifier"
    pair = [
        getattr(ours, f"MLP{kind}")(**settings, precision="float64"),
        getattr(theirs, f"MLP{kind}")(**settings),
    ]
    for e in pair:
        e.set_params(warm_start=True, max_iter=1).fit(X, TARGETS[target])
    for mine, its in zip(parameters(pair[0]), parameters(pair[1]), strict=True):
        its[...] = mine
    return pair


def parameters(e):
    return [*e.coefs_, *e.intercepts_]


def agree(pair, rtol=1e-9):
    for mine, its in zip(*map(parameters, pair), strict=True):
        np.testing.assert_allclose(mine, its, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_changes_parameters_as_scikit_learn(target, solver):
    pair = both(target, **SOLVERS[solver])
    start = [p.copy() for p in parameters(pair[1])]
    for e in pair:
        e.set_params(max_iter=6).fit(X, TARGETS[target])
    agree(pair)
    # by far more than the tolerance
    assert max(abs(p - q).max() for p, q in zip(parameters(pair[1]), start, strict=True)) > 0.01
    assert pair[0].n_outputs_ == pair[1].n_outputs_
    assert pair[0].out_activation_ == pair[1].out_activation_
    assert (pair[0].t_, pair[0].n_layers_) == (pair[1].t_, pair[1].n_layers_)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("target", TARGETS)
def test_loss_is_that_of_scikit_learn(target, weighted):
    weights = RNG.integers(0, 4, 60).astype(float) if weighted else None
    pair = both(target, alpha=0.0, batch_size=60)
    for e in pair:
        e.set_params(max_iter=6).fit(X, TARGETS[target], sample_weight=weights)
    np.testing.assert_allclose(pair[0].loss_curve_[1:], pair[1].loss_curve_[1:], rtol=1e-9)
    assert pair[0].loss_ == pair[0].loss_curve_[-1]
    assert pair[0].best_loss_ == min(pair[0].loss_curve_)


@pytest.mark.parametrize("target", TARGETS)
def test_penalty_is_in_the_unit_of_the_loss(target):
    pair = both(target, alpha=2.0, batch_size=60, solver="sgd", learning_rate_init=1e-13)
    for e in pair:
        e.set_params(max_iter=2).fit(X, TARGETS[target])
    assert pair[0].loss_ == pytest.approx(pair[1].loss_, rel=1e-10)
    validated = pair[0].fit(X, TARGETS[target], X_val=X, y_val=TARGETS[target])
    assert validated.validation_loss_curve_[-1] == pytest.approx(pair[1].loss_, rel=1e-10)


def test_losses_that_scikit_learn_lacks_show_the_mean_of_the_values():
    e = ours.MLPRegressor("absolute_error", max_iter=1, solver="sgd", learning_rate_init=1e-12)
    y = TARGETS["three values"]
    e.set_params(precision="float64", alpha=0.0).fit(X, y)
    assert e.loss_ == pytest.approx(np.abs(e.predict(X) - y).mean(), rel=1e-9)


@pytest.mark.parametrize("outputs", [1, 2])
def test_poisson_loss_is_that_of_scikit_learn(outputs):
    y = RNG.poisson(np.exp(X[:, 0] if outputs == 1 else X[:, :2]))
    settings = {"loss": "poisson", "shuffle": False, "random_state": 0, "warm_start": True}
    settings |= {"solver": "sgd", "learning_rate_init": 0.01}
    pair = [
        ours.MLPRegressor(max_iter=1, **settings, precision="float64").fit(X, y),
        theirs.MLPRegressor(max_iter=1, **settings).fit(X, y),
    ]
    for mine, its in zip(*map(parameters, pair), strict=True):
        its[...] = mine
    for e in pair:
        e.set_params(max_iter=20).fit(X, y)
    agree(pair)
    np.testing.assert_allclose(pair[0].predict(X), pair[1].predict(X), rtol=1e-9)
    assert pair[0].out_activation_ == "exp"
    np.testing.assert_allclose(pair[0].loss_curve_[1:], pair[1].loss_curve_[1:], rtol=1e-4)
    pair[0].set_params(max_iter=1, learning_rate_init=1e-14).fit(X, y, X_val=X, y_val=y)
    loss = pair[0].loss_
    assert pair[0].validation_loss_curve_ == pytest.approx([loss])
    assert min(pair[0].loss_curve_) > 0
    pair[1].set_params(max_iter=1, learning_rate_init=1e-14).fit(X, y)
    assert loss == pytest.approx(pair[1].loss_, rel=1e-10)


@pytest.mark.parametrize("epsilon", [1e-300, 0.1])
def test_epsilon_of_any_size(epsilon):
    """In float32, too, whose smallest number is larger than the first of them."""
    pair = both("a value", epsilon=epsilon)
    single = ours.MLPRegressor(**pair[0].get_params()).set_params(precision="float32")
    single.set_params(max_iter=7, activation="relu").fit(X, TARGETS["a value"])
    for e in pair:
        e.set_params(max_iter=6).fit(X, TARGETS["a value"])
    agree(pair)
    assert np.isfinite(single.loss_)


@pytest.mark.parametrize("target", ["three classes", "labels", "three values"])
def test_sample_weights_act_as_in_scikit_learn(target):
    weights = RNG.integers(0, 4, 60).astype(float)
    pair = both(target, batch_size=60, solver="sgd")
    for e in pair:
        e.set_params(max_iter=9).fit(X, TARGETS[target], sample_weight=weights)
    agree(pair)


def test_invscaling_learning_rate_falls_with_examples_seen():
    pair = both("a value", solver="sgd", momentum=0.0, learning_rate="invscaling", power_t=0.3)
    for e in pair:
        for _ in range(6):
            e.partial_fit(X, TARGETS["a value"])
    agree(pair)
    assert pair[0].t_ == pair[1].t_ == 7 * 60
    whole = ours.MLPRegressor(**{**pair[0].get_params(), "warm_start": False, "max_iter": 7})
    whole.fit(X, TARGETS["a value"])
    for mine, its in zip(*map(parameters, (whole, pair[0])), strict=True):
        np.testing.assert_array_equal(mine, its)


@pytest.mark.parametrize("epochs", [12, 100])
def test_adaptive_learning_rate_falls_without_improvement_and_ends(epochs):
    never = {"tol": 1e6, "n_iter_no_change": 1}  # no epoch improves by that much
    pair = both("a value", solver="sgd", momentum=0.0, learning_rate="adaptive", **never)
    for e in pair:
        e.set_params(max_iter=epochs).fit(X, TARGETS["a value"])
    agree(pair)
    assert pair[0].n_iter_ == pair[1].n_iter_ == min(epochs, 16)
    assert pair[0].stopped_ == ("finished" if epochs == 12 else "early")


@pytest.mark.parametrize("patience", [1, 4])
@pytest.mark.parametrize("tol", [1e-4, 1e-2, 3e-2])
def test_training_stops_after_the_same_epoch(tol, patience):
    pair = both("three classes", tol=tol, n_iter_no_change=patience, alpha=0.0)
    for e in pair:
        e.best_loss_ = np.inf  # that of the first epoch is of other weights
        e.set_params(max_iter=400).fit(X, TARGETS["three classes"])
    assert pair[0].n_iter_ == pair[1].n_iter_
    assert pair[0].stopped_ == ("early" if pair[0].n_iter_ < 400 else "finished")


@pytest.mark.parametrize("target", TARGETS)
def test_lbfgs_minimum_is_as_low(target):
    y, alpha = TARGETS[target], 3.0
    pair = both(target, solver="lbfgs", activation="tanh", alpha=alpha, tol=1e-7)
    for e in pair:
        e.set_params(max_iter=5000).fit(X, y)

    def cost(e, shown=False):
        if "value" in target:
            L = 0.5 * np.square(e.predict(X) - y).reshape(60, -1).sum(axis=1).mean()
            if shown and y.ndim == 2:
                L /= 3
        else:
            p = e.predict_proba(X)
            right = np.where(y == 1, p, 1 - p) if y.ndim == 2 else p[np.arange(60), y]
            L = -np.log(right).reshape(60, -1).sum(axis=1).mean()
        return L + 0.5 * alpha * sum((W**2).sum() for W in e.coefs_) / 60

    # for several values, scikit-learn's gradient is not that of its loss
    lower = target == "three values" and cost(pair[0]) < cost(pair[1])
    assert lower or cost(pair[0]) == pytest.approx(cost(pair[1]), rel=1e-6)
    assert pair[0].loss_ == pytest.approx(cost(pair[0], shown=True), rel=1e-12)
    assert pair[0].stopped_ == "converged"
