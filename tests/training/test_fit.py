"""Steps, order and weights of the training package against a loop in plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import gpumlp
from tests.support.training_cases import LABELS, WEIGHTS, Hook, X, Y, classifier, regression, theta

# ---- the reference: one hidden layer of tanh, squared error, sgd, in plain NumPy ---------------


def reference(
    net, x, y, *, weights=None, batch_size, epochs, lr, seed=0, clip=None, lam=0.0, shuffle=True
):  # fmt: skip
    """θ after the last step of sgd, by name, and the cost of each epoch."""
    W1, b1, W2, b2 = (net.tensors()[name] for name in ("0.weight", "0.bias", "2.weight", "2.bias"))
    weights = np.ones(len(x)) if weights is None else weights
    costs = []
    for epoch in range(epochs):
        order = np.random.default_rng([seed, epoch]).permutation(len(x))
        order = order if shuffle else np.arange(len(x))
        values = []
        for start in range(0, len(x), batch_size):
            rows = order[start : start + batch_size]
            share = weights[rows] / max(weights[rows].sum(), 1e-300)
            h = np.tanh(x[rows] @ W1.T + b1)
            error = h @ W2.T + b2 - y[rows]
            values.append((weights[rows] * (error**2).mean(axis=1)).sum())
            g2 = 2 * error / y.shape[1] * share[:, None]
            g1 = (g2 @ W2) * (1 - h**2)
            gradients = [
                g1.T @ x[rows] + lam * W1, g1.sum(0) + lam * b1,
                g2.T @ h + lam * W2, g2.sum(0) + lam * b2,
            ]  # fmt: skip
            norm = np.sqrt(sum((g**2).sum() for g in gradients))
            scale = 1.0 if clip is None or norm <= clip else clip / norm
            W1, b1, W2, b2 = (
                p - lr * scale * g for p, g in zip((W1, b1, W2, b2), gradients, strict=True)
            )
        omega = sum((p**2).sum() for p in (W1, b1, W2, b2))
        costs.append(sum(values) / weights.sum() + 0.5 * lam * omega)
    return {"0.weight": W1, "0.bias": b1, "2.weight": W2, "2.bias": b2}, costs


@pytest.mark.parametrize("batch_size", [50, 16, 7, 1, 1000])  # 16 leaves 2 examples, 7 leaves 1
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("clip", "lam"), [(None, 0.0), (0.3, 0.05)])
def test_sgd_equals_a_plain_loop(batch_size, weighted, clip, lam):
    net = regression(regularizer=gpumlp.L2(lam) if lam else None)
    weights = WEIGHTS if weighted else None
    expected, costs = reference(
        net, X, Y, weights=weights, batch_size=batch_size, epochs=3, lr=0.1, seed=5, clip=clip,
        lam=lam,
    )  # fmt: skip
    trainer = gpumlp.Trainer(net, "sgd", 0.1, batch_size, clip_norm=clip, seed=5)
    history = trainer.fit(X, Y, 3, sample_weight=weights)
    for name, tensor in net.tensors().items():
        np.testing.assert_allclose(tensor, expected[name], rtol=1e-12, atol=1e-14, err_msg=name)
    np.testing.assert_allclose(history["cost"], costs, rtol=1e-12)
    assert trainer.steps == 3 * -(-50 // min(batch_size, 50))


def test_clipping_bounds_the_step():
    net = regression()
    before = net.theta.flat.copy()
    gpumlp.Trainer(net, "sgd", 0.5, 50, clip_norm=1e-3).fit(X, Y, 1)
    assert np.linalg.norm(net.theta.flat - before) == pytest.approx(0.5e-3, rel=1e-12)


@pytest.mark.parametrize("name", gpumlp.OPTIMIZERS)
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_every_optimizer_learns(name, precision):
    net = gpumlp.MLP([4, 16, 3], precision=precision, backend="numpy")
    lr = {"lion": 8e-3, "sgd": 0.5, "momentum": 0.1, "nesterov": 0.1, "muon": 0.07}.get(name, 0.02)
    history = gpumlp.Trainer(net, name, lr, batch_size=16).fit(X, LABELS, 40, train_metric=True)
    assert history["cost"][-1] < 0.25 * history["cost"][0]
    assert history["metric"][-1] > 0.95


# ---- weights -----------------------------------------------------------------------------------


def test_sample_weight_equals_repeated_rows():
    counts = WEIGHTS.astype(int)
    weighted, repeated = regression(), regression()
    gpumlp.Trainer(weighted, "adam", batch_size=50).fit(X, Y, 20, sample_weight=counts)
    rows = np.repeat(np.arange(50), counts)
    gpumlp.Trainer(repeated, "adam", batch_size=len(rows)).fit(X[rows], Y[rows], 20)
    np.testing.assert_allclose(weighted.theta.flat, repeated.theta.flat, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("class_weight", [[1, 2, 0.5], {1: 2.0, 2: 0.5}, "balanced"])
def test_class_weight_equals_sample_weight(class_weight):
    nets = [classifier(), classifier()]
    per_class = np.array([1, 2, 0.5])
    if class_weight == "balanced":
        per_class = 50 / (3 * np.bincount(LABELS, minlength=3))
    kept = {"class_weight": class_weight}, {"sample_weight": per_class[LABELS]}
    for net, arguments in zip(nets, kept, strict=True):
        gpumlp.Trainer(net, "momentum", 0.05, batch_size=16).fit(X, LABELS, 3, **arguments)
    assert theta(nets[0]) == theta(nets[1]) != theta(classifier())


def test_a_minibatch_of_weight_zero_changes_nothing():
    net = regression()
    order = np.random.default_rng([0, 0]).permutation(50)
    weights = np.ones(50)
    weights[order[25:]] = 0
    first = regression()
    gpumlp.Trainer(net, "sgd", 0.1, 25).fit(X, Y, 1, sample_weight=weights)
    gpumlp.Trainer(first, "sgd", 0.1, 25).fit(X[order[:25]], Y[order[:25]], 1)
    np.testing.assert_allclose(net.theta.flat, first.theta.flat, rtol=1e-12, atol=1e-14)


# ---- order, continuation, schedules ------------------------------------------------------------


def test_a_seed_gives_the_same_bytes_and_another_seed_others():
    runs = []
    for seed in (1, 1, 2):
        net = regression(precision="float32")
        gpumlp.Trainer(net, batch_size=16, seed=seed).fit(X, Y, 4)
        runs.append(theta(net))
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("batch_size", [16, 1000])
def test_without_shuffle_every_epoch_has_the_datas_order(batch_size):
    net = regression()
    settings = {"batch_size": batch_size, "shuffle": False}
    expected, costs = reference(net, X, Y, epochs=3, lr=0.1, **settings)
    history = gpumlp.Trainer(net, "sgd", 0.1, **settings).fit(X, Y, 3)
    for name, tensor in net.tensors().items():
        np.testing.assert_allclose(tensor, expected[name], rtol=1e-12, atol=1e-14, err_msg=name)
    np.testing.assert_allclose(history["cost"], costs, rtol=1e-12)


def test_a_second_fit_goes_on_with_the_optimizers_state():
    once, twice = regression(), regression()
    gpumlp.Trainer(once, "adam", batch_size=16).fit(X, Y, 6)
    trainer = gpumlp.Trainer(twice, "adam", batch_size=16)
    trainer.fit(X, Y, 2)
    trainer.fit(X, Y, 4)
    assert theta(once) == theta(twice)
    assert (trainer.epochs, trainer.steps) == (6, 24)


@pytest.mark.parametrize("name", gpumlp.SCHEDULES)
def test_the_schedule_spans_the_fit(name):
    net = regression()
    seen = []

    def step(trainer):  # plain sgd moves θ by lr · ∇L, so that lr can be read off
        _, gradients = net.cost_and_gradients(X, Y, intermediate=False)
        seen.append((net.layers[0].W.copy(), gradients.W[0].copy()))

    trainer = gpumlp.Trainer(net, "sgd", 0.1, batch_size=50, schedule=name)
    history = trainer.fit(X, Y, 8, callbacks=[Hook(step)])
    expected = [gpumlp.SCHEDULES[name].lr(0.1, t, 8) for t in range(8)]
    assert history["lr"] == expected
    for t in range(1, 8):
        moved = seen[t - 1][0] - seen[t][0]
        np.testing.assert_allclose(moved, expected[t] * seen[t - 1][1], rtol=1e-9, atol=1e-15)
