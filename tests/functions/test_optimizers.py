"""Update rules by the operation `update`, in blocks and threads, against plain NumPy."""

import numpy as np
import pytest

import gpumlp
from gpumlp import L1, L2, OPTIMIZERS, REGULARIZERS, ElasticNet
from gpumlp.backends.numpy.backend import NumpyBackend
from gpumlp.io.threads import Threads
from gpumlp.parameters import Layout, Parameters
from gpumlp.step.chunked import UNSCALED

NONE = REGULARIZERS["none"]
WIDTHS = (3, 13, 7, 5)


# The rules of the papers: the new θ from θ, g, the step t = 1, 2, … and a dict of slots.
def sgd(theta, g, lr, t, s):
    return theta - lr * g


def momentum(theta, g, lr, t, s, mu=0.9):
    s["v"] = mu * s["v"] + g
    return theta - lr * s["v"]


def nesterov(theta, g, lr, t, s, mu=0.9):
    s["v"] = mu * s["v"] + g
    return theta - lr * (g + mu * s["v"])


def rmsprop(theta, g, lr, t, s, rho=0.99, eps=1e-8):
    s["s"] = rho * s["s"] + (1 - rho) * g**2
    return theta - lr * g / (np.sqrt(s["s"]) + eps)


def adam(theta, g, lr, t, s, beta1=0.9, beta2=0.999, eps=1e-8):
    s["m"] = beta1 * s["m"] + (1 - beta1) * g
    s["v"] = beta2 * s["v"] + (1 - beta2) * g**2
    m_hat, v_hat = s["m"] / (1 - beta1**t), s["v"] / (1 - beta2**t)
    return theta - lr * m_hat / (np.sqrt(v_hat) + eps)


def adamw(theta, g, lr, t, s, weight_decay=0.01, **params):
    return adam(theta, g, lr, t, s, **params) - lr * weight_decay * theta


def lion(theta, g, lr, t, s, beta1=0.9, beta2=0.99, weight_decay=0.0):
    update = np.sign(beta1 * s["m"] + (1 - beta1) * g)
    s["m"] = beta2 * s["m"] + (1 - beta2) * g
    return theta - lr * (update + weight_decay * theta)


def muon(theta, g, lr, t, s, mu=0.95, rest=0.1, **params):
    return adamw(theta, g, rest * lr, t, s, **{"weight_decay": 0.01, **params})  # not of a matrix


PAPER = {
    "sgd": sgd, "momentum": momentum, "nesterov": nesterov, "rmsprop": rmsprop, "adam": adam,
    "adamw": adamw, "lion": lion, "muon": muon,
}  # fmt: skip
OTHER_PARAMS = [
    ("momentum", {"mu": 0.5}),
    ("nesterov", {"mu": 0.7}),
    ("rmsprop", {"rho": 0.9, "eps": 1e-3}),
    ("adam", {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3}),
    ("adamw", {"beta1": 0.0, "weight_decay": 0.3}),
    ("lion", {"beta1": 0.8, "beta2": 0.95, "weight_decay": 0.2}),
    ("muon", {"beta1": 0.8, "mu": 0.5, "rest": 0.5, "weight_decay": 0.2}),
]
VARIANTS = [(name, {}) for name in OPTIMIZERS] + OTHER_PARAMS


def backend_of(dtype="float64", threads=3):
    backend = NumpyBackend(dtype)
    backend._threads = Threads(threads)
    return backend


@pytest.fixture
def several_blocks(monkeypatch):
    monkeypatch.setattr("gpumlp.io.threads.BLOCK_BYTES", 256)


def start(rng, layout, backend):
    """Return θ with values everywhere but in the padding."""
    theta = Parameters.zeros(backend, layout)
    for view in (*theta.W[1:], *theta.b[1:]):
        view[...] = rng.normal(size=view.shape)
    return theta


def update(backend, optimizer, regularizer, theta, g, slots, split, control):
    """Call the operation for a θ that the products read without rounding."""
    backend.update(optimizer, regularizer, theta, theta, g, slots, split, UNSCALED, control)


def run(backend, name, params, steps=20, regularizer=NONE, scale=1.0, seed=0):
    """Return the first θ, all gradients, θ and the slots of some steps with random gradients."""
    rng = np.random.default_rng(seed)
    optimizer = OPTIMIZERS[name].set(**params)
    layout = Layout(WIDTHS, backend.dtype.itemsize)
    theta = start(rng, layout, backend)
    slots = backend.full((len(optimizer.slots), layout.size), 0)
    first, gradients = theta.flat.copy(), []
    for t in range(1, steps + 1):
        d = start(rng, layout, backend)
        gradients.append(d.flat.copy())
        control = np.array([scale, *optimizer.control(0.01, t)])
        update(backend, optimizer, regularizer, theta.flat, d.flat, slots, layout.split, control)
    return first, gradients, theta, slots


@pytest.mark.parametrize(("name", "params"), VARIANTS)
def test_update_matches_the_paper(several_blocks, name, params):
    first, gradients, theta, slots = run(backend_of(), name, params)
    expected, kept = first, dict.fromkeys(OPTIMIZERS[name].slots, np.zeros_like(first))
    for t, g in enumerate(gradients, start=1):
        expected = PAPER[name](expected, g, 0.01, t, kept, **params)
    np.testing.assert_allclose(theta.flat, expected, rtol=1e-12, atol=1e-14)
    for i, slot in enumerate(OPTIMIZERS[name].slots):
        np.testing.assert_allclose(slots[i], kept[slot], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_blocks_and_threads_change_no_bit(name, monkeypatch):
    whole = run(backend_of(threads=1), name, {}, regularizer=L2(0.1))
    for size in (256, 1000):
        monkeypatch.setattr("gpumlp.io.threads.BLOCK_BYTES", size)
        parts = run(backend_of(threads=3), name, {}, regularizer=L2(0.1))
        np.testing.assert_array_equal(parts[2].flat, whole[2].flat)
        np.testing.assert_array_equal(parts[3], whole[3])


@pytest.mark.parametrize("regularizer", [NONE, L1(0.1), L2(0.1), ElasticNet(0.1, 0.1, 0.5)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_padding_stays_exactly_zero(several_blocks, name, dtype, regularizer):
    _, _, theta, slots = run(backend_of(dtype), name, {}, steps=5, regularizer=regularizer)
    padding = np.ones(theta.layout.size, bool)
    inside = Parameters(theta.layout, padding)
    for view in (*inside.W[1:], *inside.b[1:]):
        view[...] = False
    assert padding.sum() == theta.layout.size - theta.layout.count > 100
    assert not theta.flat[padding].any()
    assert not slots[:, padding].any()
    assert theta.flat[~padding].all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_update_with_omega_equals_adding_its_gradient_first(several_blocks, name, rng):
    backend, optimizer = backend_of(), OPTIMIZERS[name]
    layout = Layout(WIDTHS, 8)
    theta, d = start(rng, layout, backend), start(rng, layout, backend)
    control = np.array([0.5, *optimizer.control(0.01, 1)])
    for regularizer in (L1(0.3), L2(0.3, biases=False), ElasticNet(0.1, 0.2, biases=0.5)):
        results = []
        for fold in (True, False):
            moved, g = theta.flat.copy(), d.flat.copy()
            slots = np.ones((len(optimizer.slots), layout.size))
            if not fold:
                backend.penalty(regularizer, moved, layout.split, np.zeros(1), g)
            omega = regularizer if fold else NONE
            update(backend, optimizer, omega, moved, g, slots, layout.split, control)
            results.append((moved, slots))
        np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-14, atol=1e-15)
        np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_scale_multiplies_the_gradient(several_blocks, name):
    first, gradients, theta, _ = run(backend_of(), name, {}, scale=0.25)
    expected, kept = first, dict.fromkeys(OPTIMIZERS[name].slots, np.zeros_like(first))
    for t, g in enumerate(gradients, start=1):
        expected = PAPER[name](expected, 0.25 * g, 0.01, t, kept)
    np.testing.assert_allclose(theta.flat, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_float32_error_is_at_most_twice_that_of_the_paper(several_blocks, name):
    """Root mean square errors of θ after 20 steps, against the paper's rule in float64."""
    first, gradients, theta, _ = run(backend_of("float32"), name, {})
    found = {}
    for dtype in ("float32", "float64"):
        expected = first.astype(dtype)
        kept = dict.fromkeys(OPTIMIZERS[name].slots, np.zeros_like(expected))
        for t, g in enumerate(gradients, start=1):
            expected = PAPER[name](expected, g.astype(dtype), 0.01, t, kept)
        assert expected.dtype == dtype
        found[dtype] = expected
    assert theta.flat.dtype == np.float32
    error = np.sqrt(np.mean((theta.flat - found["float64"]) ** 2))
    assert error <= 2 * np.sqrt(np.mean((found["float32"] - found["float64"]) ** 2))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_descends_a_narrow_valley(name):
    """With default settings, 2,000 steps end near the minimum of a narrow quadratic valley."""
    backend, optimizer = backend_of(), OPTIMIZERS[name]
    theta, steep = np.array([1.0, -1.0]), np.array([1.0, 0.1])
    slots = np.zeros((len(optimizer.slots), 2))
    for t in range(1, 2001):
        control = np.array([1.0, *optimizer.control(max(optimizer.lr, 2e-3), t)])
        update(backend, optimizer, NONE, theta, steep * theta, slots, 2, control)
    assert (np.abs(theta) < 0.05).all()


# ---- clipping -----------------------------------------------------------------------------------


def test_clip_scales_to_the_norm_of_the_whole_gradient(several_blocks, rng):
    backend, layout = backend_of(), Layout(WIDTHS, 8)
    theta, d = start(rng, layout, backend), start(rng, layout, backend)
    for regularizer in (NONE, L1(0.3), ElasticNet(0.1, 0.2, biases=0.5)):
        whole = d.flat.copy()
        backend.penalty(regularizer, theta.flat, layout.split, np.zeros(1), whole)
        norm, control, before = np.linalg.norm(whole), np.full(3, 7.0), d.flat.copy()
        for max_norm, expected in ((norm / 4, 0.25), (norm * 4, 1.0)):
            backend.clip(regularizer, theta.flat, d.flat, layout.split, max_norm, UNSCALED, control)
            assert control[0] == pytest.approx(expected, rel=1e-13)
        np.testing.assert_array_equal(control[1:], 7.0)  # `clip` writes only the scale
        np.testing.assert_array_equal(d.flat, before)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_norm_that_is_not_finite_makes_theta_nan(several_blocks, value):
    backend, theta, d, control = backend_of(), np.ones(500), np.ones(500), np.ones(3)
    d[300] = value
    backend.clip(NONE, theta, d, 400, 1.0, UNSCALED, control)
    assert np.isnan(control[0])
    update(backend, OPTIMIZERS["sgd"], NONE, theta, d, np.empty((0, 500)), 400, control)
    assert np.isnan(theta).all()


def test_a_float32_norm_cannot_overflow():
    backend, theta, d, control = (
        backend_of("float32"),
        np.ones(4, "f"),
        np.full(4, 1e30, "f"),
        np.ones(2),
    )
    backend.clip(NONE, theta, d, 4, 1.0, UNSCALED, control)
    assert control[0] == pytest.approx(0.5e-30, rel=1e-6)


def test_a_zero_gradient_is_not_scaled():
    control = np.zeros(2)
    backend_of().clip(NONE, np.ones(4), np.zeros(4), 4, 1.0, UNSCALED, control)
    assert control[0] == 1


# ---- custom entries -----------------------------------------------------------------------------


def test_a_custom_rule(several_blocks, rng):
    def rule(theta, g, lr, last, decay, back):
        theta -= lr * (g + back * last) * decay
        last[...] = g

    optimizer = gpumlp.Optimizer(
        "own", rule=rule, slots=("last",), scalar_names=("decay",),
        scalars=lambda t, back: {"decay": 1 / t}, params={"back": 0.5},
    )  # fmt: skip
    assert optimizer.control(0.1, 4) == (0.1, 0.25, 4)
    backend, slots = backend_of(), np.zeros((1, 500))
    theta, gradients = rng.normal(size=500), rng.normal(size=(3, 500))
    expected, last = theta.copy(), np.zeros(500)
    for t, g in enumerate(gradients, start=1):
        control = np.array([1.0, *optimizer.control(0.1, t)])
        update(backend, optimizer, NONE, theta, g.copy(), slots, 400, control)
        expected, last = expected - 0.1 * (g + 0.5 * last) / t, g
    np.testing.assert_allclose(theta, expected, rtol=1e-13)
    with pytest.raises(ValueError, match='no CUDA rule; give cuda_rule, or use backend="numpy"'):
        optimizer.cuda()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_table_of_steps_has_the_bits_of_each_step(name):
    """For built-in rules, whose formulas get all steps at once, and for one of the user's own."""
    rule = OPTIMIZERS[name]
    for each in (rule, rule.set(**{"beta1": 0.8} if "beta1" in rule.params else {})):
        table = each.scalars_of(range(7, 400))
        assert table.dtype == np.float64
        for row, t in zip(table, range(7, 400), strict=True):
            assert tuple(row) == each.control(0.1, t)[1:-1]
    own = gpumlp.Optimizer(
        "own", rule=lambda *a, **k: None, scalar_names=("late",),
        scalars=lambda t: {"late": 1.0 if t > 3 else 0.0},
    )  # fmt: skip
    assert own.scalars_of(range(2, 6)).tolist() == [[0.0], [0.0], [1.0], [1.0]]
