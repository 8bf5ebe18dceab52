"""L-BFGS against scikit-learn and SciPy: the minimum, and the iterations on the way."""

from __future__ import annotations

import builtins
import math
import signal
import warnings

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor

import gpumlp
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.step.chunked import Chunked
from gpumlp.training import lbfgs
from tests.support.harness.host_device import HostDevice
from tests.support.refusal import refusal
from tests.support.training_cases import LABELS, WEIGHTS, X, Y, classifier, regression

fit = gpumlp.fit_lbfgs


class Note(gpumlp.Callback):
    """Records what the hooks see; `at` is called with the number of each step."""

    def __init__(self, at=lambda step: None):
        self.at, self.seen = at, []

    def on_fit_begin(self, trainer):
        self.seen.append("begin")

    def on_step_end(self, trainer):
        self.at(trainer.steps)

    def on_epoch_end(self, trainer, row):
        self.seen.append((trainer.steps, trainer.epochs, row["cost"], trainer.net.cost(X, Y)))

    def on_fit_end(self, trainer):
        self.seen.append("end")


# ---- against scikit-learn and SciPy --------------------------------------------------------------


def sklearns(kind, net, y, iterations, **settings):
    """W and b of scikit-learn's MLP after these iterations from the same θ."""
    settings = {"activation": "tanh", "solver": "lbfgs", "warm_start": True, **settings}
    theirs = kind(hidden_layer_sizes=(6,), max_iter=1, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs.fit(X, y)
        theirs.coefs_ = [layer.W.T.copy() for layer in net.layers]
        theirs.intercepts_ = [layer.b.copy() for layer in net.layers]
        theirs.set_params(max_iter=iterations).fit(X, y)
    return theirs


@pytest.mark.parametrize("iterations", [1, 2, 5, 15, 40])
def test_iterations_equal_scikit_learns(iterations):
    alpha = 0.01
    net = classifier(regularizer=gpumlp.L2(alpha / len(X), biases=False))
    theirs = sklearns(MLPClassifier, net, LABELS, iterations, alpha=alpha)
    history = fit(net, X, LABELS, max_iter=iterations)
    assert history.epochs == theirs.n_iter_ == iterations
    assert history["cost"][-1] == pytest.approx(theirs.loss_, rel=1e-9)
    for layer, W, b in zip(net.layers, theirs.coefs_, theirs.intercepts_, strict=True):
        np.testing.assert_allclose(layer.W, W.T, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(layer.b, b, rtol=1e-6, atol=1e-7)


def test_iterations_of_a_regression_equal_scikit_learns():
    """scikit-learn's loss is half of ours, with the gradient of one output."""
    alpha, y = 0.1, Y[:, 0]
    penalty = gpumlp.L2(2 * alpha / len(X), biases=False)
    settings = {"loss": "squared_error", "precision": "float64", "backend": "numpy"}
    net = gpumlp.MLP([4, 6, 1], "tanh", regularizer=penalty, **settings)
    theirs = sklearns(MLPRegressor, net, y, 30, alpha=alpha)
    history = fit(net, X, y, max_iter=30)
    np.testing.assert_allclose(net.predict(X)[:, 0], theirs.predict(X), rtol=1e-6, atol=1e-7)
    assert history["cost"][-1] == pytest.approx(2 * theirs.loss_, rel=1e-8)


def test_softmax_regression_is_logistic_regression():
    net = gpumlp.MLP([4, 3], precision="float64", backend="numpy")
    C = 0.7
    net.regularizer = gpumlp.L2(1 / (C * WEIGHTS.sum()), biases=False)
    history = fit(net, X, LABELS, tol=1e-9, sample_weight=WEIGHTS)
    theirs = LogisticRegression(C=C, tol=1e-9, max_iter=1000).fit(X, LABELS, WEIGHTS)
    assert history.stopped in ("converged", "finished")
    np.testing.assert_allclose(net.predict(X), theirs.predict_proba(X), atol=1e-7)
    np.testing.assert_allclose(net.layers[0].W, theirs.coef_, atol=1e-6)


def test_linear_least_squares_is_ridge_regression():
    lam = 0.3
    settings = {"loss": "squared_error", "precision": "float64", "backend": "numpy"}
    net = gpumlp.MLP([4, 2], regularizer=gpumlp.L2(lam, biases=False), **settings)
    fit(net, X, Y, tol=1e-10)
    theirs = Ridge(alpha=lam * len(X)).fit(X, Y)  # 2 outputs, of which J takes the mean
    np.testing.assert_allclose(net.layers[0].W, theirs.coef_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(net.layers[0].b, theirs.intercept_, rtol=1e-4, atol=1e-5)


def test_result_equals_scipys_on_theta_without_padding():
    net, second = regression(), regression()

    def packed(arrays):
        return np.concatenate([a.ravel() for a in arrays])

    def objective(theta):
        names, start = second.tensors(), 0
        for name, tensor in names.items():
            names[name] = theta[start : start + tensor.size].reshape(tensor.shape)
            start += tensor.size
        second.assign(names)
        J, d = second.cost_and_gradients(X, Y, WEIGHTS)
        return J, packed(a for pair in zip(d.W, d.b, strict=True) for a in pair)

    expected = minimize(
        objective, packed(net.tensors().values()), jac=True, method="L-BFGS-B",
        options={"maxiter": 30, "gtol": 1e-4},
    )  # fmt: skip
    history = fit(net, X, Y, max_iter=30, sample_weight=WEIGHTS)
    assert history.epochs == expected.nit
    np.testing.assert_allclose(packed(net.tensors().values()), expected.x, rtol=1e-6, atol=1e-8)


# ---- backends, chunks, precisions ----------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 7, 25, 49])
def test_memory_is_bounded_by_chunks(monkeypatch, rows):
    nets = [classifier(regularizer=gpumlp.L2(1e-3)) for _ in range(2)]
    kept = {"max_iter": 12, "class_weight": "balanced", "validation": (X[:20], LABELS[:20])}
    expected = fit(nets[0], X, LABELS, **kept)
    monkeypatch.setattr(lbfgs, "CHUNK", rows)
    taken = []
    monkeypatch.setattr(
        lbfgs, "Chunked", lambda net, m, *rest: taken.append(m) or Chunked(net, m, *rest)
    )
    history = fit(nets[1], X, LABELS, **kept)
    assert taken == [rows]
    for column in ("cost", "val_cost", "val_metric"):
        np.testing.assert_allclose(history[column], expected[column], rtol=1e-9)
    np.testing.assert_allclose(nets[1].theta.flat, nets[0].theta.flat, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("precision", "rtol"), [("float64", 1e-8), ("float32", 1e-3)])
def test_cuda_backend_does_the_same_iterations(precision, rtol):
    kept = {"max_iter": 10, "validation": (X[:20], LABELS[:20]), "sample_weight": WEIGHTS}
    ours = classifier(backend=CudaBackend(HostDevice(), precision), regularizer=gpumlp.L2(0.01))
    host = classifier(precision=precision, regularizer=gpumlp.L2(0.01))
    found, expected = fit(ours, X, LABELS, **kept), fit(host, X, LABELS, **kept)
    assert found.epochs == 10
    np.testing.assert_allclose(found["cost"], expected["cost"], rtol=rtol)
    np.testing.assert_allclose(found["val_cost"], expected["val_cost"], rtol=rtol)
    # the network is left with the θ of the last row, and its padding is zero
    assert ours.cost(X, LABELS, WEIGHTS) == pytest.approx(found["cost"][-1], rel=1e-6)
    kept = sum(np.abs(t).sum() for t in ours.tensors().values())
    assert np.abs(ours.theta.flat.values).sum() == pytest.approx(kept, rel=1e-6)


def test_mapped_data_gives_the_same_result(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 4)).astype(np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    nets = [classifier(), classifier()]
    for net, x in zip(nets, (pixels, mapped), strict=True):
        fit(net, x, LABELS, max_iter=5)
    assert nets[0].theta.flat.tobytes() == nets[1].theta.flat.tobytes()


def test_float32_ends_at_its_precision():
    net = regression(precision="float32")
    # how many iterations that takes is a matter of each processor's rounding: up to 4,000
    history = fit(net, X, Y, max_iter=20_000, max_fun=100_000, tol=0)
    assert history.epochs < 20_000
    assert net.cost(X, Y) == pytest.approx(min(history["cost"]), rel=1e-6)
    assert history["cost"][-1] < 0.05 * history["cost"][0]


# ---- hooks, history, what ends it ----------------------------------------------------------------


def test_hooks_and_history_have_each_iteration():
    net, note = regression(), Note()
    history = fit(net, X, Y, max_iter=7, validation=(X[:9], Y[:9]), callbacks=[note])
    assert list(history) == ["cost", "val_cost", "val_metric", "seconds"]
    assert (note.seen.pop(0), note.seen.pop()) == ("begin", "end")
    assert [row[:2] for row in note.seen] == [(i, i) for i in range(1, 8)]
    assert [row[2] for row in note.seen] == history["cost"]
    np.testing.assert_allclose([row[3] for row in note.seen], history["cost"], rtol=1e-12)
    assert history["val_cost"][-1] == pytest.approx(net.cost(X[:9], Y[:9]), rel=1e-12)
    assert all(0 < second < 60 for second in history["seconds"])
    assert history.stopped == "finished"


def test_max_fun_ends_the_minimisation():
    assert fit(regression(), X, Y, max_fun=5).epochs < 6


def test_a_network_at_its_minimum_has_converged():
    net = regression()
    fit(net, X, Y, tol=1e-2)
    before = net.theta.flat.copy()
    history = fit(net, X, Y, tol=1e-2)
    assert (history.epochs, history.stopped) == (0, "converged")
    np.testing.assert_array_equal(net.theta.flat, before)


def test_ctrl_c_leaves_the_last_iterations_network():
    whole, net = regression(), regression()
    expected = fit(whole, X, Y, max_iter=4)
    note = Note(lambda step: step == 4 and signal.raise_signal(signal.SIGINT))
    history = fit(net, X, Y, callbacks=[note])
    assert (history.stopped, note.seen[-1]) == ("interrupted", "end")
    assert history["cost"] == expected["cost"]
    np.testing.assert_array_equal(net.theta.flat, whole.theta.flat)


class Stop(gpumlp.Callback):
    def on_epoch_end(self, trainer, row):
        return trainer.epochs == 4


def test_callback_or_its_error_ends_with_the_best_theta():
    whole, net, failed = regression(), regression(), regression()
    fit(whole, X, Y, max_iter=4)
    assert fit(net, X, Y, callbacks=[Stop()]).stopped == "early"
    np.testing.assert_array_equal(net.theta.flat, whole.theta.flat)
    with pytest.raises(ZeroDivisionError):
        fit(failed, X, Y, callbacks=[Note(lambda step: 1 / (4 - step))])
    np.testing.assert_array_equal(failed.theta.flat, whole.theta.flat)


# ---- numbers that are not finite, bad arguments --------------------------------------------------


def test_line_search_avoids_costs_that_are_not_finite(monkeypatch):
    """J = 50 ‖θ − 3‖², and infinite above 3.5, where the first step, of length 1, leads."""
    net = gpumlp.MLP([1, 1], loss="squared_error", precision="float64", backend="numpy")
    net.assign({"0.weight": [[2.9]], "0.bias": [2.9]})
    beyond = []

    def objective(self):
        away = np.zeros(net.theta.layout.size)
        for start in net.theta.layout.starts[:-1]:
            away[start] = net.theta.flat[start] - 3
        beyond.append(bool(away.max() > 0.5))
        return math.nan if beyond[-1] else 50 * float(away @ away), 100 * away

    monkeypatch.setattr(lbfgs.Lbfgs, "_objective", objective)
    history = fit(net, [[1.0]], [1.0], tol=1e-8)
    assert beyond[:2] == [False, True]
    assert history.stopped == "converged"
    np.testing.assert_allclose([layer.W for layer in net.layers], [[[3]]], atol=1e-9)
    assert history["cost"][-1] < 1e-15


def test_start_that_is_not_finite_raises():
    net = gpumlp.MLP([4, 2], loss="poisson", precision="float32", backend="numpy")
    net.layers[0].b[...] = 1e6
    before = net.theta.flat.copy()
    with pytest.raises(FloatingPointError, match="not finite where L-BFGS is to start"):
        fit(net, X, np.abs(Y))
    np.testing.assert_array_equal(net.theta.flat, before)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"max_iter": 0}, ValueError, "max_iter must be at least 1, got 0"),
        ({"max_fun": 2.5}, TypeError, "max_fun must be a whole number"),
        ({"tol": -1}, ValueError, "tol must be finite and 0 or more"),
        ({"callbacks": [3]}, TypeError, "callbacks must be Callback objects"),
        ({"metric": "r2?"}, ValueError, "did you mean 'r2'?"),
        ({"validation": (X,)}, ValueError, "validation must be (x_val, y_val)"),
        ({"sample_weight": -WEIGHTS}, ValueError, "sample_weight has values that are negative"),
        ({"net": 3}, TypeError, "net must be a gpumlp.MLP, got int"),
        ({"x": X[:, :3]}, ValueError, "x has 3 columns but the first layer has 4 inputs"),
    ],
)
def test_invalid_argument_raises(change, error, said):
    net = regression()
    before = net.theta.flat.copy()
    refusal(error, lambda: fit(**{"net": net, "x": X, "y": Y, **change}), said)
    np.testing.assert_array_equal(net.theta.flat, before)


def test_low_precision_raises():
    for precision in ("tf32", "bfloat16", "float16"):
        net = classifier(backend=CudaBackend(HostDevice(), precision))
        refusal(ValueError, lambda net=net: fit(net, X, LABELS), precision, 'precision="float32"')


def test_without_scipy_the_error_names_the_extra(monkeypatch):
    plain = builtins.__import__

    def without(name, *arguments, **named):
        if name.startswith("scipy"):
            raise ImportError(name)
        return plain(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    refusal(ImportError, lambda: fit(regression(), X, Y), 'pip install "gpumlp[sklearn]"')
