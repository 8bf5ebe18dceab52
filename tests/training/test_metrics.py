"""The metrics against scikit-learn's and against numbers calculated by hand."""

from __future__ import annotations

import numpy as np
import pytest

import gpumlp
from gpumlp.loader.examples import Examples
from gpumlp.training import metrics
from gpumlp.training.metrics import Evaluation, accuracy, binary_accuracy, r2

RNG = np.random.default_rng(3)
P = np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3]])


def test_accuracy_of_labels_and_of_rows_of_probabilities():
    assert accuracy(np.array([0, 2, 1, 2]), P) == 0.75
    assert accuracy(np.eye(3)[[0, 2, 1, 2]], P) == 0.75
    assert accuracy(np.array([0, 2, 1, 2]), P, np.array([1, 1, 0, 2])) == 0.5


def test_binary_accuracy_counts_entries():
    y = np.array([[1, 0], [1, 1], [0, 0]])
    p = np.array([[0.9, 0.5], [0.4, 0.6], [0.1, 0.49]])
    assert binary_accuracy(y, p) == pytest.approx(4 / 6)
    assert binary_accuracy(y, p, np.array([0, 1, 1])) == 0.75


@pytest.mark.parametrize("weighted", [False, True])
def test_r2_equals_scikit_learn(weighted):
    score = pytest.importorskip("sklearn.metrics").r2_score
    y = RNG.standard_normal((40, 3)) + np.array([0, 100, -5])
    p = y + RNG.standard_normal((40, 3)) * [0.1, 1, 3]
    weights = RNG.random(40) if weighted else None
    assert r2(y, p, weights) == pytest.approx(score(y, p, sample_weight=weights), rel=1e-12)


def test_r2_of_a_constant_column():
    y, p = np.ones((5, 2)), np.ones((5, 2))
    assert r2(y, p) == 1.0
    p[0, 0] = 2
    assert r2(y, p) == 0.5


@pytest.mark.parametrize(
    ("loss", "usual"),
    [("softmax_cross_entropy", accuracy), ("negative_log_likelihood", accuracy),
     ("binary_cross_entropy", binary_accuracy), ("squared_error", r2), ("poisson", r2)],
)  # fmt: skip
def test_the_usual_metric_of_a_loss(loss, usual):
    assert metrics.usual_metric(gpumlp.LOSSES[loss]) is usual


@pytest.mark.parametrize("chunk", [1, 7, 20, 4096])
@pytest.mark.parametrize("weights", [None, RNG.random(20)])
def test_evaluation_in_chunks_equals_the_cost_of_the_network(monkeypatch, chunk, weights):
    monkeypatch.setattr(metrics, "CHUNK", chunk)
    net = gpumlp.MLP([4, 5, 2], loss="binary_cross_entropy", precision="float64",
                     regularizer=gpumlp.L1(0.01), backend="numpy")  # fmt: skip
    x, y = RNG.standard_normal((20, 4)), RNG.random((20, 2))
    data = Examples.checked(net, x, y, weights)
    evaluation = Evaluation(net, data, lambda y, p: float((y * p).sum()), "training")
    for _ in range(2):  # again, in the same buffers
        measured = evaluation.measure(ValueError)
        assert measured["cost"] == pytest.approx(net.cost(x, y, weights), rel=1e-12)
        assert measured["metric"] == pytest.approx((y * net.predict(x)).sum(), rel=1e-12)
    assert Evaluation(net, data, None, "training").measure(ValueError) == {"cost": measured["cost"]}


@pytest.mark.parametrize("value", ["0.5?", None, np.ones(2), [1.0]])
def test_a_metric_that_returns_no_number_raises(value):
    x, y = RNG.normal(size=(6, 4)), RNG.integers(0, 2, 6)
    trainer = gpumlp.Trainer(gpumlp.MLP([4, 2], backend="numpy"))
    with pytest.raises(TypeError, match="metric must return a number, got"):
        trainer.fit(x, y, 1, validation=(x, y), metric={"own": lambda y, p: value})


def overwrites(y, p, **named):
    y[...] = p[...] = 0
    return 0.5


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "squared_error"])
@pytest.mark.parametrize("scorer", [False, True])
def test_a_metric_that_writes_to_its_arguments_changes_no_data(backend, loss, scorer):
    """It changed the labels of the training, and an array of targets of the caller's."""
    metric = overwrites
    if scorer:
        metric = pytest.importorskip("sklearn.metrics").make_scorer(overwrites)
    x = RNG.standard_normal((40, 4)).astype(np.float32)
    y = RNG.integers(0, 3, 40) if "cross" in loss else x[:, :3].copy()
    histories, kept = [], y.copy()
    for measured in (metric, "auto"):
        net = gpumlp.MLP([4, 3], loss=loss, backend=backend)
        metrics = {"own": measured, "usual": "auto"}
        data = {"validation": (x, y), "train_metric": True, "progress": False}
        histories.append(gpumlp.Trainer(net).fit(x, y, 3, metric=metrics, **data))
    for name in ("cost", "val_cost", "usual", "val_usual"):
        assert histories[0][name] == histories[1][name]
    np.testing.assert_array_equal(y, kept)
