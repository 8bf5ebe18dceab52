"""Initial weights: their distribution, and that seeds and precisions repeat them."""

import math
import tracemalloc

import numpy as np
import pytest

import gpumlp
from gpumlp import INITIALIZERS

N_OUT, N_IN = 300, 400


def draw(name, n_out=N_OUT, n_in=N_IN, seed=0, **params):
    return INITIALIZERS[name].set(**params).weights(np.random.default_rng(seed), n_out, n_in)


@pytest.mark.parametrize(
    ("name", "variance", "kurtosis"),
    [
        ("glorot", 2 / (N_IN + N_OUT), 1.8),  # of a uniform distribution
        ("he", 2 / N_IN, 3.0),  # of a normal one
        ("lecun", 1 / N_IN, 3.0),
        ("fan_in", 1 / (3 * N_IN), 1.8),
        ("orthogonal", 1 / N_IN, 3.0),
        ("isometric", 1 / N_IN, 3.0),
    ],
)
def test_moments(name, variance, kurtosis):
    W = draw(name)
    n = W.size
    assert W.shape == (N_OUT, N_IN)
    assert abs(W.mean()) < 4 * math.sqrt(variance / n)
    assert W.var() == pytest.approx(variance, rel=4 * math.sqrt(2 / n))
    assert (W**4).mean() / variance**2 == pytest.approx(kurtosis, rel=0.05)


def test_glorot_bound():
    W = draw("glorot")
    bound = math.sqrt(6 / (N_IN + N_OUT))
    assert 0.999 * bound < np.abs(W).max() <= bound


@pytest.mark.parametrize(
    "shape", [(7, 7), (3, 13), (13, 3), (1, 5), (5, 1), (1, 1), (2, 2), (300, 20), (600, 513)]
)
def test_orthogonal(shape):
    W = draw("orthogonal", *shape, gain=1.5)
    small = W @ W.T if shape[0] <= shape[1] else W.T @ W
    np.testing.assert_allclose(small, 1.5**2 * np.eye(min(shape)), atol=1e-13)
    assert W.flags.c_contiguous


@pytest.mark.parametrize("shape", [(7, 7), (5, 6), (6, 5), (1, 4), (4, 1), (2, 300), (300, 2)])
def test_orthogonal_is_a_part_of_the_product_of_its_factors(shape):
    n, rng = max(shape), np.random.default_rng(0)
    U, V = (np.eye(n) - 2 * np.outer(u, u) / (u @ u) for u in rng.standard_normal((2, n)))
    order, signs = rng.permutation(n), rng.choice([-1.0, 1.0], n)
    angles = 2 * np.pi / n * (np.outer(np.arange(n), np.arange(n)) % n)
    H = (np.cos(angles) + np.sin(angles)) / math.sqrt(n)
    Q = U @ H @ (np.eye(n)[:, order] * signs) @ H @ V
    np.testing.assert_allclose(draw("orthogonal", *shape), Q[: shape[0], : shape[1]], atol=1e-13)


@pytest.mark.parametrize("shape", [(100_003, 2), (2, 100_003), (1500, 1400)])
def test_draws_need_time_and_memory_for_the_weights_alone(shape):
    """A square matrix of 100,003 rows would take 80 GB, its rows one after the other minutes."""
    tracemalloc.start()
    try:
        W = draw("isometric", *shape)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * W.nbytes + 64 * max(shape) + 8e6


@pytest.mark.parametrize("shape", [(64, 2), (100, 30), (30, 100), (7, 7)])
def test_isometric_is_orthogonal_and_keeps_the_mean_square(shape):
    """The entries of z = x Wᵀ are on average as large as those of x."""
    W = draw("isometric", *shape)
    small = W @ W.T if shape[0] <= shape[1] else W.T @ W
    expected = max(1, shape[0] / shape[1]) * np.eye(min(shape))
    np.testing.assert_allclose(small, expected, atol=1e-12)
    assert (W**2).sum() == pytest.approx(shape[0])


@pytest.mark.parametrize("n", [3, 30])
def test_orthogonal_draws_of_all_orthogonal_matrices(n):
    """Of a uniform draw the mean is 0, that of the squares 1/n in each entry, and that of fourth
    powers 3 / (n (n + 2)).
    """
    rng = np.random.default_rng(0)
    draws = np.array([INITIALIZERS["orthogonal"].weights(rng, n, n) for _ in range(4000)])
    assert np.abs(draws.mean(axis=0)).max() < 4 * math.sqrt(1 / n / 4000)
    np.testing.assert_allclose((draws**2).mean(axis=0), 1 / n, rtol=0.1)
    assert (draws**4).mean() == pytest.approx(3 / (n * (n + 2)), rel=0.05)


def test_zeros():
    assert not draw("zeros").any()


@pytest.mark.parametrize("name", [name for name in INITIALIZERS if name != "zeros"])
def test_draws_depend_on_the_seed(name):
    np.testing.assert_array_equal(draw(name, 5, 4, seed=1), draw(name, 5, 4, seed=1))
    assert not np.isclose(draw(name, 5, 4, seed=1), draw(name, 5, 4, seed=2)).any()


def first(activation="relu", precision="float64", **settings):
    settings = {"backend": "numpy", "seed": 5} | settings
    return gpumlp.MLP([40, 60, 50, 3], activation, precision=precision, **settings)


@pytest.mark.parametrize(
    ("activation", "variances"),
    [
        ("relu", [1 / 40, 1 / 60, 2 / (50 + 3)]),  # the last layer is the identity, with Glorot's
        ("gelu", [1 / 40, 1 / 60, 2 / (50 + 3)]),
        ("tanh", [1 / 40, 1 / 60, 2 / (50 + 3)]),
        ("selu", [1 / 40, 1 / 60, 2 / (50 + 3)]),
        ("sigmoid", [2 / (40 + 60), 2 / (60 + 50), 2 / (50 + 3)]),
    ],
)
def test_the_default_initializer_depends_on_the_activation(activation, variances):
    for layer, variance in zip(first(activation).layers, variances, strict=True):
        assert layer.W.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / layer.W.size))
        assert not layer.b.any()


def test_a_named_initializer_is_used_for_every_layer():
    for layer in first(initializer="zeros").layers:
        assert not layer.W.any()
    gain = INITIALIZERS["orthogonal"].set(gain=2.0)
    W = first(initializer=gain).layers[1].W
    np.testing.assert_allclose(W @ W.T, 4 * np.eye(50), atol=1e-13)


def test_precisions_start_from_the_same_numbers():
    for one, other in zip(first().layers, first(precision="float32").layers, strict=True):
        np.testing.assert_array_equal(one.W.astype("float32"), other.W)


@pytest.mark.parametrize("activation", ["gelu", "tanh"])
def test_the_default_learns_from_a_single_input(activation):
    """Glorot's weights of 1-128 are so small that the layer is nearly linear for some epochs."""
    x = np.random.default_rng(0).normal(size=(1500, 1))
    costs = {}
    for name in (None, "glorot"):
        net = gpumlp.MLP(
            [1, 128, 128, 1], activation, loss="squared_error", precision="float64",
            initializer=name, backend="numpy",
        )  # fmt: skip
        history = gpumlp.Trainer(net, batch_size=64).fit(x, np.sin(3 * x), 5, progress=False)
        costs[name] = history["cost"][-1]
    assert costs[None] < 0.5 * costs["glorot"]
