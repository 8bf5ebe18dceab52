"""Losses of extreme and infinite outputs, on both backends: NumPy, and the kernels on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpumlp import MLP
from gpumlp.backends.cuda.source import KernelSource
from gpumlp.backends.numpy.backend import NumpyBackend
from gpumlp.functions import LOSSES, Loss
from gpumlp.functions.activations import identity, softmax
from gpumlp.step.chunked import UNSCALED
from tests.kernels.test_loss import launch
from tests.support.cuda_networks import on_cuda_backend, on_host
from tests.support.harness.comparing import NUMPY_TYPE, real_of
from tests.support.harness.memory import aligned

INF = np.inf
BACKENDS = ("numpy", "cuda")
ENTROPY = LOSSES["softmax_cross_entropy"]


def computed(
    backend: str, loss: Loss | str, y_hat: Any, y: Any, weights: Any = None, dtype: str = "float32"
) -> tuple[float, Any]:
    """J = Σ weights L(ŷ, y) and ∇_ŷ J of `output_gradient`; `loss` gives the same J.

    y_hat (m, n); y: labels (m,) of whole numbers, or (m, n).
    """
    loss = LOSSES[loss] if isinstance(loss, str) else loss
    y_hat, y, real = np.asarray(y_hat, float), np.asarray(y), real_of(dtype)
    labels = y.ndim == 1
    y = aligned(y, np.int32 if labels else real)
    weights = aligned(np.ones(len(y)) if weights is None else weights, real)
    if backend == "cuda":
        source = KernelSource(loss.cuda_file, dtype, loss.cuda(), labels)
        gh, J, _ = launch(loss, source, aligned(y_hat, NUMPY_TYPE[dtype]), y, weights, 1)
        return float(J[0]) - 0.5, gh.astype(float)
    z = aligned(y_hat, real)
    gh, db, J, alone = np.empty_like(z), np.empty_like(z[0]), np.zeros(1), np.zeros(1)
    numpy = NumpyBackend(np.dtype(real).name)
    numpy.output_gradient(loss, identity, z, z, y, weights, UNSCALED, gh, gh, db, J)
    numpy.loss(loss, z, y, weights, alone)
    np.testing.assert_array_equal(J, alone)
    return float(J[0]), gh


def reference(y_hat: Any, y: Any, smoothing: float = 0.0) -> tuple[float, Any]:
    """Σ cross-entropy and its gradient in float64, of any finite logits; y are labels."""
    z = np.asarray(y_hat, float)
    t = np.eye(z.shape[1])[y] * (1 - smoothing) + smoothing / z.shape[1]
    log_p = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
    return -(t * log_p).sum(), np.exp(log_p) - t


# ---- cross-entropy: the offset of the logits ----------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize(
    ("dtype", "offset"),
    [("float64", 1e15), ("float32", 1e6), ("float32", 1e8), ("bfloat16", 256), ("float16", 4096)],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_logits_cost_the_logarithm_of_their_number(
    backend: str, dtype: str, offset: float, rows: bool, sign: int
) -> None:
    """The cases of optax's _classification_stability_test."""
    y = np.array([0, 2])
    J, gh = computed(
        backend, ENTROPY, np.full((2, 3), sign * offset), np.eye(3)[y] if rows else y, dtype=dtype
    )
    eps = float(np.finfo(real_of(dtype)).eps)
    assert pytest.approx(2 * np.log(3), rel=4 * eps) == J
    small = {"float16": 5e-4, "bfloat16": 4e-3}.get(dtype, 4 * eps)
    want = reference(np.zeros((2, 3)), y)[1]
    np.testing.assert_allclose(gh, want, rtol=0, atol=small)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_offset_changes_neither_loss_nor_gradient(backend: str, smoothing: float) -> None:
    rng = np.random.default_rng(0)
    y_hat, y = rng.integers(-40, 40, (7, 37)) / 8, rng.integers(0, 37, 7)  # exact also after 1e6
    loss = ENTROPY.set(smoothing=smoothing)
    J, gh = computed(backend, loss, y_hat + 1e6, y)
    assert (J, gh.tolist()) == (lambda a, b: (a, b.tolist()))(*computed(backend, loss, y_hat, y))
    want, slope = reference(y_hat, y, smoothing)
    assert pytest.approx(want, rel=1e-6) == J
    np.testing.assert_allclose(gh, slope, rtol=0, atol=1e-7)


# ---- cross-entropy: logits of −inf -------------------------------------------------------------

OPTAX = [  # ŷ, y and the loss: vectors of optax's SafeSoftmaxCrossEntropyTest
    ([10.0, 1.0, -2.0], [0.0, 1.0, 0.0], 9.00013),
    ([1.0, 4.0, 0.2], [1.0, 0.0, 0.0], 3.0696733),
    ([-INF, 0.0, 0.0], [0.0, 0.5, 0.5], 0.693147),
    ([-INF, 0.0, 0.0], [0.4, 0.3, 0.3], INF),
    ([-INF, 0.0, -INF], [0.0, 1.0, 0.0], 0.0),
]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize(("y_hat", "y", "want"), OPTAX)
@pytest.mark.parametrize("backend", BACKENDS)
def test_cross_entropy_gives_the_values_of_optax(
    backend: str, y_hat: Any, y: Any, want: float, dtype: str
) -> None:
    J, gh = computed(backend, ENTROPY, [y_hat], [y], dtype=dtype)
    narrow = backend == "cuda" and dtype.endswith("16")
    assert pytest.approx(want, rel=1e-3 if narrow else 1e-5) == J
    np.testing.assert_allclose(gh, softmax.f(np.array([y_hat])) - y, rtol=0, atol=4e-3)
    assert (gh[np.isinf([y_hat])] == -np.array(y)[np.isinf(y_hat)]).all() or dtype != "float64"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_masked_classes_do_not_count(backend: str, rows: bool, dtype: str) -> None:
    """A logit of −inf has probability 0: J and ∇J are those without its column."""
    rng = np.random.default_rng(1)
    y_hat, y = rng.normal(size=(6, 40)), rng.integers(0, 30, 6)
    y_hat[:, 30:] = -INF  # the last lanes of a warp see nothing else
    target = np.eye(40)[y] if rows else y
    J, gh = computed(backend, ENTROPY, y_hat, target, dtype=dtype)
    want, slope = reference(y_hat[:, :30], y)
    eps = float(np.finfo(dtype).eps)
    assert pytest.approx(want, rel=8 * eps) == J
    np.testing.assert_allclose(gh[:, :30], slope, rtol=0, atol=8 * eps)
    assert not gh[:, 30:].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_loss_of_a_masked_target_is_infinite(backend: str) -> None:
    J, gh = computed(backend, ENTROPY, [[0.0, -INF, 0.0]], [1])
    assert J == INF
    np.testing.assert_array_equal(gh, [[0.5, -1, 0.5]])
    assert computed(backend, ENTROPY.set(smoothing=0.1), [[0.0, -INF, 0.0]], [0])[0] == INF


@pytest.mark.parametrize("y_hat", [[-INF] * 3, [INF, 0.0, 0.0], [np.nan, 0.0, 0.0]])
@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_without_a_distribution_are_nan(backend: str, y_hat: Any) -> None:
    """All classes masked, a logit of +inf, or NaN: as in torch, and never a number."""
    with np.errstate(invalid="ignore"):
        for y in ([1], [[0.0, 1.0, 0.0]]):
            J, gh = computed(backend, ENTROPY, [y_hat], y)
            assert np.isnan(J)
            assert np.isnan(gh).any()


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "huber", "binary_cross_entropy"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_example_of_weight_0_does_not_count(backend: str, name: str) -> None:
    y_hat, y = np.array([[1.0, 2.0], [np.nan, INF], [0.5, 0.0]]), np.eye(2)[[0, 1, 1]]
    with np.errstate(invalid="ignore"):
        J, gh = computed(backend, name, y_hat, y, [1.0, 0.0, 2.0])
    kept = [0, 2]
    want, slope = computed(backend, name, y_hat[kept], y[kept], [1.0, 2.0])
    assert pytest.approx(want, rel=1e-6) == J
    np.testing.assert_array_equal(gh[kept], slope)
    assert not gh[1].any()


# ---- elementwise losses -------------------------------------------------------------------------

SIGMOID = [  # ŷ, y and the mean: vectors of optax's SigmoidCrossEntropyTest
    ([-1e9, -1e-9], [1.0, 0.0], 5e8),
    ([-1e9, -1e-9], [0.0, 1.0], 0.3465736),
    ([1e9, 1e-9], [1.0, 0.0], 0.3465736),
    ([1e9, 1e-9], [0.0, 1.0], 5e8),
    ([1e9, -1e-9], [1.0, 0.0], 0.3465736),
    ([0.0, 0.0], [1.0, 0.0], 0.6931472),
]
REGRESSION = [  # loss, ŷ, y and the values: vectors of optax's _regression_test
    (
        "huber",
        [-2.0, 0.5, 0.0, 0.5, 2.0, 4.0, 132.0],
        [0.0, -0.5, 0.0, 1.0, 1.0, 2.0, 0.3],
        [1.5, 0.5, 0.0, 0.125, 0.5, 1.5, 131.2],
    ),
    (
        "log_cosh",
        [500, -2.0, -1.0, 0.5, 1.0],
        [-200, -1.5, 0.0, -1, 1.0],
        [699.3068, 0.12011451, 0.4337809, 0.85544014, 0.0],
    ),
    ("squared_error", [-2.0, -1.0, 0.5, 1.0], [-1.5, 0.0, -1, 1.0], [0.25, 1.0, 2.25, 0.0]),
]
EXTREMES = [  # loss, ŷ, y, L, ∂L/∂ŷ
    ("binary_cross_entropy", INF, 1, 0, 0),
    ("binary_cross_entropy", -INF, 0, 0, 0),
    ("binary_cross_entropy", INF, 0, INF, 1),
    ("binary_cross_entropy", -INF, 1, INF, -1),
    ("binary_cross_entropy", INF, 0.5, INF, 0.5),
    ("binary_cross_entropy", 1e30, 1, 0, 0),
    ("binary_cross_entropy", -1e30, 1, 1e30, -1),
    ("binary_cross_entropy", -80, 0, np.exp(-80), np.exp(-80)),
    # log(1 + eᶻ) − z y with y = 1 − 2⁻²⁰: max(z, 0) − z y would cancel
    ("binary_cross_entropy", 3e8, 1 - 2.0**-20, 3e8 * 2.0**-20, 2.0**-20),
    ("poisson", -INF, 0, 0, 0),
    ("poisson", -INF, 2, INF, -2),
    ("poisson", 1e3, 0, INF, INF),
    ("poisson", 80, 1, np.exp(80), np.exp(80)),
    ("log_cosh", 1e30, 0, 1e30, 1),
    ("log_cosh", -INF, 0, INF, -1),
    ("log_cosh", 2e-4, 0, 2e-8, 2e-4),
    ("log_cosh", 1e-18, 0, 5e-37, 1e-18),
    ("huber", 1e30, 0, 1e30, 1),
    ("huber", -INF, 0, INF, -1),
    ("quantile", INF, 0, INF, 0.5),
    ("quantile", -INF, 0, INF, -0.5),
    ("absolute_error", -INF, 0, INF, -1),
    ("negative_log_likelihood", 0, 0, 0, 0),
    ("negative_log_likelihood", 0, 1, -np.log(np.finfo(np.float32).tiny), None),
]


@pytest.mark.parametrize(("y_hat", "y", "mean"), SIGMOID)
@pytest.mark.parametrize("backend", BACKENDS)
def test_binary_cross_entropy_gives_the_values_of_optax(
    backend: str, y_hat: Any, y: Any, mean: float
) -> None:
    assert computed(backend, "binary_cross_entropy", [y_hat], [y])[0] == pytest.approx(mean, 1e-6)


@pytest.mark.parametrize(("name", "y_hat", "y", "values"), REGRESSION)
@pytest.mark.parametrize("backend", BACKENDS)
def test_losses_of_regression_give_the_values_of_optax(
    backend: str, name: str, y_hat: Any, y: Any, values: Any
) -> None:
    for a, b, want in zip(y_hat, y, values, strict=True):
        assert computed(backend, name, [[a]], [[b]])[0] == pytest.approx(want, rel=2e-6, abs=1e-7)


@pytest.mark.parametrize(("name", "y_hat", "y", "value", "slope"), EXTREMES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_extreme_outputs(
    backend: str, name: str, y_hat: float, y: float, value: float, slope: float | None
) -> None:
    with np.errstate(over="ignore"):
        J, gh = computed(backend, name, [[y_hat]], [[y]])
    assert pytest.approx(value, rel=1e-5, abs=1e-15 * (backend == "cuda")) == J  # J − 1/2
    if slope is not None:
        assert gh[0, 0] == pytest.approx(slope, rel=1e-5, abs=0)
    assert np.isfinite(gh).all() or slope == INF


@pytest.mark.parametrize("backend", BACKENDS)
def test_log_cosh_is_accurate_on_both_sides_of_1(backend: str) -> None:
    for d in (1e-3, 0.02, 0.1):
        want = d**2 / 2 - d**4 / 12 + d**6 / 45
        assert computed(backend, "log_cosh", [[d]], [[0.0]])[0] == pytest.approx(want, rel=2e-6)
    for d in (-0.7, 0.99, -1.0, 1.01, 3.0):
        want = np.logaddexp(d, -d) - np.log(2)
        assert computed(backend, "log_cosh", [[d]], [[0.0]])[0] == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("q", [0.99, 0.9999, 1 - 1e-6, 1 - 1e-9])
@pytest.mark.parametrize("backend", ["numpy", "cpu", "cuda"])
def test_quantiles_near_1_are_accurate(backend: str, q: float) -> None:
    """In float32 1 − q would have an error of 1 % for q = 1 − 1e-6, and be 0 for 1 − 1e-9."""
    loss = LOSSES["quantile"].set(q=q)
    net = MLP([1, 1], loss=loss, backend="numpy" if backend == "cuda" else backend)
    net = on_cuda_backend(net) if backend == "cuda" else net
    net.layers[0].W[...] = 1
    for y, slope in ((-2.0, 1 - q), (2.0, -q)):
        J, gradients = net.cost_and_gradients([[0.0]], [y])
        assert pytest.approx(abs(slope * y), rel=1e-6) == J
        assert on_host(gradients.b[0])[0] == pytest.approx(slope, rel=1e-6)
