"""λΩ over all of θ and its gradient; weights and biases have different strengths."""

import numpy as np
import pytest

import gpumlp
from gpumlp import L1, L2, REGULARIZERS, ElasticNet
from gpumlp.backends.numpy.backend import NumpyBackend

# each with the book's λΩ as a function of all weights w and all biases b
CASES = [
    ("none", lambda w, b: 0.0),
    (L1(0.3), lambda w, b: 0.3 * (np.abs(w).sum() + np.abs(b).sum())),
    (L1(0.3, biases=False), lambda w, b: 0.3 * np.abs(w).sum()),
    (L2(0.7), lambda w, b: 0.7 / 2 * ((w**2).sum() + (b**2).sum())),
    (L2(0.7, biases=0.25), lambda w, b: 0.7 / 2 * ((w**2).sum() + 0.25 * (b**2).sum())),
    (
        ElasticNet(l1=0.3, l2=0.7, biases=2.0),
        lambda w, b: (
            0.3 * (np.abs(w).sum() + 2 * np.abs(b).sum())
            + 0.7 / 2 * ((w**2).sum() + 2 * (b**2).sum())
        ),
    ),
]


def network(regularizer, widths=(3, 7, 5, 2), **settings):
    settings = {"loss": "squared_error", "precision": "float64", "backend": "numpy"} | settings
    net = gpumlp.MLP(widths, "tanh", regularizer=regularizer, **settings)
    rng = np.random.default_rng(3)
    for layer in net.layers:
        layer.b[...] = rng.normal(size=layer.b.shape)
    return net


def flat(arrays):
    return np.concatenate([a.ravel() for a in arrays])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr("gpumlp.io.threads.BLOCK_BYTES", 100)


@pytest.mark.parametrize(("regularizer", "omega"), CASES)
def test_the_penalty_matches_the_book(regularizer, omega):
    net = network(regularizer)
    w, b = flat(layer.W for layer in net.layers), flat(layer.b for layer in net.layers)
    assert net.penalty() == pytest.approx(omega(w, b), rel=1e-13)


@pytest.mark.parametrize(("regularizer", "omega"), CASES)
def test_its_gradient_matches_difference_quotients_and_is_added_to_dtheta(regularizer, omega, rng):
    net = network(regularizer)
    w, b = flat(layer.W for layer in net.layers), flat(layer.b for layer in net.layers)
    slope, step = [], 1e-6
    for i in range(len(w) + len(b)):
        shift = np.zeros(len(w) + len(b))
        shift[i] = step
        above = omega(w + shift[: len(w)], b + shift[len(w) :])
        below = omega(w - shift[: len(w)], b - shift[len(w) :])
        slope.append((above - below) / (2 * step))
    d = gpumlp.parameters.Parameters.zeros(net.backend, net.theta.layout)
    before = rng.normal(size=d.flat.shape)
    d.flat[...] = before
    J = np.array([10.0])
    net.backend.penalty(net.regularizer, net.theta.flat, d.layout.split, J, d.flat)
    added = gpumlp.parameters.Parameters(d.layout, d.flat - before)
    np.testing.assert_allclose(flat([*added.W[1:], *added.b[1:]]), slope, rtol=1e-7, atol=1e-8)
    assert J[0] == pytest.approx(10 + omega(w, b), rel=1e-13)


@pytest.mark.parametrize(("regularizer", "omega"), CASES)
def test_it_is_added_once_to_cost_and_gradients(regularizer, omega, rng):
    net, free = network(regularizer), network("none")
    w, b = flat(layer.W for layer in net.layers), flat(layer.b for layer in net.layers)
    x, y = rng.normal(size=(9, 3)), rng.normal(size=(9, 2))
    weights = rng.random(9)
    J, gradients = net.cost_and_gradients(x, y, sample_weight=weights)
    J_free, gradients_free = free.cost_and_gradients(x, y, sample_weight=weights)
    assert pytest.approx(J_free + omega(w, b), rel=1e-13) == J
    assert net.cost(x, y, sample_weight=weights) == pytest.approx(J, rel=1e-13)
    assert net.cost(x[:1], y[:1]) - free.cost(x[:1], y[:1]) == pytest.approx(omega(w, b))
    # Ω adds its own gradient to that of θ, and to no other
    d = gpumlp.parameters.Parameters.zeros(net.backend, net.theta.layout)
    net.backend.penalty(
        net.regularizer, net.theta.flat, net.theta.layout.split, np.zeros(1), d.flat
    )
    for k in (0, 1, 2):
        added = gradients.W[k] - gradients_free.W[k]
        np.testing.assert_allclose(added, d.W[k + 1], rtol=1e-12, atol=1e-14)
        added = gradients.b[k] - gradients_free.b[k]
        np.testing.assert_allclose(added, d.b[k + 1], rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(gradients.x, gradients_free.x)


@pytest.mark.parametrize("entry", REGULARIZERS.values(), ids=REGULARIZERS)
def test_penalty_and_gradient_of_zero_are_zero(entry):
    zero = np.zeros(3, "float32")
    np.testing.assert_array_equal(entry.omega(zero, **entry.arguments()), zero)
    np.testing.assert_array_equal(entry.gradient(zero, **entry.arguments()), zero)


def test_l1_and_l2_are_special_cases_of_elastic_net():
    theta = np.linspace(-2, 2, 9)
    for one, other in (
        (L1(0.3), ElasticNet(l1=0.3, l2=0.0)),
        (L2(0.7), ElasticNet(l1=0.0, l2=0.7)),
    ):
        for call in ("omega", "gradient"):
            a = getattr(one, call)(theta, **one.arguments())
            np.testing.assert_allclose(a, getattr(other, call)(theta, **other.arguments()))
    assert L1(biases=True).strengths() == (1.0, 1.0)
    assert L2(biases=False).strengths() == L2(biases=np.False_).strengths() == (1.0, 0.0)
    assert ElasticNet(biases=0.5).strengths() == (1.0, 0.5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float32_stays_float32_and_omega_adds_up_in_float64(dtype):
    backend, split = NumpyBackend(dtype), 60_000
    theta = np.full(100_000, 0.1, dtype)
    J, d = np.zeros(1), np.zeros_like(theta)
    backend.penalty(L1(1.0, biases=0.5), theta, split, J, d)
    expected = float(theta[0]) * (60_000 + 0.5 * 40_000)
    assert J[0] == pytest.approx(expected, rel=1e-12)
    assert set(d[:split]) == {1.0}
    assert set(d[split:]) == {0.5}
