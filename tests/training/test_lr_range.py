"""The learning-rate range test against a plain loop, and its figure."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gpumlp
from gpumlp.training import lr_range
from gpumlp.training.lr_range import LRCurve
from tests.support.cuda_networks import device, on_cuda_backend
from tests.support.training_cases import LABELS, WEIGHTS, X, Y, classifier, regression, theta


def linear(**settings):
    settings = {"loss": "squared_error", "precision": "float64", "backend": "numpy"} | settings
    return gpumlp.MLP([4, 2], **settings)


def loop(net, x, y, rates, batch_size, seed):
    """L before each step of sgd on W x + b, in plain NumPy."""
    W, b = net.tensors()["0.weight"], net.tensors()["0.bias"]
    steps, losses = -(-len(x) // batch_size), []
    for i, rate in enumerate(rates):
        epoch, at = divmod(i, steps)
        order = np.random.default_rng([seed, epoch]).permutation(len(x))
        rows = order[at * batch_size : (at + 1) * batch_size]
        error = x[rows] @ W.T + b - y[rows]
        losses.append(np.square(error).mean())
        g = 2 * error / error.size
        W, b = W - rate * g.T @ x[rows], b - rate * g.sum(axis=0)
    return losses


@pytest.mark.parametrize("batch_size", [7, 16, 50])  # 7 leaves one example, 16 two
def test_costs_equal_a_plain_loop(batch_size):
    net = linear()
    trainer = gpumlp.Trainer(net, "sgd", 5.0, batch_size, schedule="one_cycle", seed=3)
    found = trainer.find_lr(X, Y, start=1e-4, end=0.3, steps=40)
    rates = np.geomspace(1e-4, 0.3, 40)
    np.testing.assert_array_equal(found.lr, rates)
    np.testing.assert_allclose(found.loss, loop(net, X, Y, rates, batch_size, 3), rtol=1e-12)
    assert not found.exploded


def state(trainer):
    numbers = (trainer.steps, trainer.epochs, trainer.lr, trainer.lr_factor, trainer.history)
    return theta(trainer.net), trainer.slots.tobytes(), trainer.scaling.tobytes(), *numbers


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "momentum"])  # the last two are folded
def test_trainer_does_not_change(optimizer):
    trainers = [gpumlp.Trainer(regression(), optimizer, 0.01, 16) for _ in range(2)]
    for trainer in trainers:
        trainer.fit(X, Y, 2)
    before = state(trainers[0])
    trainers[0].find_lr(X, Y, end=1e3)
    assert state(trainers[0]) == before
    for trainer in trainers:
        trainer.fit(X, Y, 2)
    assert theta(trainers[0].net) == theta(trainers[1].net)


@pytest.mark.parametrize("settings", [{}, {"ema": 0.9}, {"accumulate": 4}])
def test_range_test_begins_with_the_optimizers_state(settings):
    trainer = gpumlp.Trainer(regression(), "adam", 0.01, 50, **settings)
    trainer.fit(X, Y, 5)
    found = trainer.find_lr(X, Y, start=0.009999, end=0.01, steps=10)
    same = trainer.fit(X, Y, 10)
    np.testing.assert_allclose(found.loss, same["cost"], rtol=1e-3)
    assert found.loss[0] == pytest.approx(same["cost"][0], rel=1e-12)


def test_range_test_stops_when_the_cost_explodes():
    trainer = gpumlp.Trainer(linear(), "sgd", batch_size=16)
    found = trainer.find_lr(X, Y, end=1e6, steps=300)
    assert found.exploded
    assert len(found.loss) < 300
    assert np.isfinite(found.loss).all()
    # gradient descent on a quadratic diverges from 2 over the largest curvature on
    A = np.hstack([X, np.ones((50, 1))])
    limit = 2 / np.linalg.eigvalsh(A.T @ A / 50).max()
    assert limit < found.lr[-1] < 30 * limit
    assert 1e-4 < found.suggestion < found.minimum < 3 * limit
    net = linear()
    floor = np.square(A @ np.linalg.lstsq(A, Y)[0] - Y).mean()
    above = net.cost(X, Y) - floor
    gpumlp.Trainer(net, "sgd", found.suggestion, 16).fit(X, Y, 20)
    assert net.cost(X, Y) - floor < 0.25 * above


@pytest.mark.parametrize("arguments", [{"sample_weight": WEIGHTS}, {"class_weight": "balanced"}])
def test_weights_count_as_in_a_fit(arguments):
    trainer = gpumlp.Trainer(classifier(), "sgd", batch_size=50)
    found = trainer.find_lr(X, LABELS, start=1e-9, end=1e-8, steps=10, **arguments)
    expected = trainer.net.cost(X, LABELS, **arguments)
    np.testing.assert_allclose(found.loss, expected, rtol=1e-6)


# ---- the curve ---------------------------------------------------------------------------------


def falling(lr, noise=0.0):
    """A cost that falls round 10⁻³ from 2 to 1, and rises from 0.1 on."""
    wave = noise * np.sin(1e3 * np.arange(len(lr)))
    return 1 + 1 / (1 + (lr / 1e-3) ** 2) + (lr / 0.3) ** 3 + wave


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_suggestion_is_where_the_cost_falls_most(noise):
    lr = np.geomspace(1e-7, 1, 200)
    found = lr_range._curve(lr, falling(lr, noise), True)
    assert abs(math.log10(found.suggestion / 1e-3)) < 0.15
    assert -2.5 < math.log10(found.minimum) < -0.8
    if not noise:
        np.testing.assert_allclose(found.smoothed[:60], 2, rtol=1e-3)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_a_short_curve(n):
    lr = np.geomspace(1e-3, 1, n)
    found = lr_range._curve(lr, np.linspace(1, 2, n), True)
    assert found.suggestion is None
    assert found.minimum == lr[0]
    assert "the cost never falls" in repr(found)
    found.plot()


# ---- the picture -------------------------------------------------------------------------------


def test_figure_shows_the_curve(tmp_path):
    trainer = gpumlp.Trainer(classifier(), batch_size=16)
    found = trainer.find_lr(X, LABELS)
    axes = found.plot(tmp_path / "lr.png").axes[0]
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    np.testing.assert_array_equal(lines["minibatch"], np.stack([found.lr, found.loss], axis=1))
    np.testing.assert_array_equal(lines["smoothed"], np.stack([found.lr, found.smoothed], axis=1))
    (at,) = lines[f"steepest descent: {found.suggestion:.2g}"]
    i = int(np.argmin(abs(found.lr - found.suggestion)))
    np.testing.assert_allclose(at, [found.suggestion, found.smoothed[i]], rtol=1e-12)
    assert axes.get_xscale() == "log"
    assert axes.get_ylim()[1] < 2 * found.smoothed[0]


# ---- the CUDA backend, and streamed data ---------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_cuda_backend_finds_the_same(optimizer):
    net = classifier()
    gpu = on_cuda_backend(net)
    curves: list[LRCurve] = []
    for each in (net, gpu):
        trainer = gpumlp.Trainer(each, optimizer, batch_size=16)
        before = theta(each)
        curves.append(trainer.find_lr(X, LABELS, start=1e-4, end=0.5, steps=30))
        assert theta(each) == before
        assert trainer.steps == 0
    want, got = curves
    np.testing.assert_allclose(got.loss, want.loss, rtol=1e-10)
    assert got.suggestion == want.suggestion


@pytest.mark.parametrize("backend", ["numpy", "gpu"])
def test_streamed_data_finds_the_same_bits(backend):
    net = classifier(precision="float32")
    if backend == "gpu":
        net = on_cuda_backend(net)
    x = (10 * X).astype(np.int8)
    trainer = gpumlp.Trainer(net, batch_size=16)
    found = [trainer.find_lr(x, LABELS, steps=20, data=data) for data in ("device", "stream")]
    np.testing.assert_array_equal(found[0].loss, found[1].loss)


@pytest.mark.parametrize(
    ("precision", "slots"), [("float32", "bfloat16"), ("bfloat16", None), ("float16", None)]
)
def test_in_16_bits_it_goes_on_from_there_and_nothing_changes(precision, slots):
    gpu = on_cuda_backend(classifier(precision="float32"), precision=precision)
    trainer = gpumlp.Trainer(gpu, batch_size=50, slot_precision=slots)
    trainer.fit(X, LABELS, 2)
    kept = theta(gpu), trainer.slots.values.tobytes(), trainer.scaling.values.tobytes()
    found = trainer.find_lr(X, LABELS, steps=10)
    assert found.loss[0] == pytest.approx(gpu.cost(X, LABELS), rel=1e-5)
    assert kept == (theta(gpu), trainer.slots.values.tobytes(), trainer.scaling.values.tobytes())


def test_out_of_memory_changes_nothing():
    gpu = on_cuda_backend(classifier())
    trainer = gpumlp.Trainer(gpu, batch_size=16)
    before, slots = theta(gpu), trainer.slots.values.tobytes()
    device(gpu).empties_left = 12
    with pytest.raises(gpumlp.DeviceError, match="find_lr trains a copy.*smaller batch_size"):
        trainer.find_lr(X, LABELS)
    device(gpu).empties_left = None
    assert (theta(gpu), trainer.slots.values.tobytes()) == (before, slots)
    assert trainer.find_lr(X, LABELS, steps=10, end=1e-3).loss.size == 10


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"start": 0}, ValueError, "start must be finite and more than 0"),
        ({"end": 1e-9}, ValueError, "end must be more than start = 1e-07, got 1e-09"),
        ({"steps": 3}, ValueError, "steps must be at least 10"),
        ({"steps": 10**30}, ValueError, "steps must be at most 1,000,000"),
        ({"x": X[:, :3]}, ValueError, "x has 3 columns"),
        ({"data": "disk"}, ValueError, 'data must be "auto"'),
        ({"end": "high"}, TypeError, "end must be a number"),
        ({"start": 1e200, "end": 1e210}, FloatingPointError, "not finite after a step with lr 1e"),
    ],
)
def test_invalid_argument_raises(arguments, error, message):
    trainer = gpumlp.Trainer(regression(), "sgd")
    before = state(trainer)
    with pytest.raises(error, match=message):
        trainer.find_lr(**{"x": X, "y": Y, **arguments})
    assert state(trainer) == before
