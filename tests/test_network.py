"""MLP against the algorithms in plain NumPy, difference quotients, and itself in chunks."""

import copy
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpumlp
from gpumlp import ACTIVATIONS, MLP
from gpumlp.io.threads import Threads
from gpumlp.loader.examples import Examples
from gpumlp.parameters import Parameters
from gpumlp.step.chunked import KEPT, Chunked
from tests.support import networks, reference
from tests.support.networks import parts

# ---- the algorithms -----------------------------------------------------------------------------


@pytest.mark.parametrize("f", ACTIVATIONS)
def test_cost_and_gradients_match_the_book(f, rng):
    """Every loss, depth and output layer, each with a different Ω, against plain NumPy."""
    for loss, depth, output, regularizer in networks.every_with_regularizer(f):
        net = networks.network(f, loss, depth, output, regularizer=regularizer)
        x, y, weights = networks.batch(loss, rng)
        J, gradients = net.cost_and_gradients(x, y, sample_weight=weights)
        J_plain, *plain = networks.plainly(net, x, y, weights)
        np.testing.assert_allclose(J, J_plain, rtol=1e-13, err_msg=repr(net))
        for ours, theirs in zip(parts(gradients), plain, strict=True):
            for a, b in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-14, err_msg=repr(net))


@pytest.mark.parametrize("f", ACTIVATIONS)
def test_gradients_match_difference_quotients(f, rng):
    """The slope of J along a random direction of θ and x is that of ∇J."""
    worst, step = (0.0, ""), 1e-6
    for loss, depth, output, regularizer in networks.every_with_regularizer(f):
        net = networks.network(f, loss, depth, output, regularizer=regularizer)
        x, y, weights = networks.batch(loss, rng)
        _, gradients = net.cost_and_gradients(x, y, sample_weight=weights)
        theta = [view for layer in net.layers for view in (layer.W, layer.b)]
        slopes = [g for pair in zip(gradients.W, gradients.b, strict=True) for g in pair]
        along = [rng.normal(size=view.shape) for view in (*theta, x)]
        expected = sum(
            float((g * v).sum()) for g, v in zip([*slopes, gradients.x], along, strict=True)
        )
        J, start = [], [view.copy() for view in theta]
        for t in (step, -step):
            for view, at, v in zip(theta, start, along, strict=False):
                view[...] = at + t * v
            J.append(net.cost(x + t * along[-1], y, sample_weight=weights))
        slope = (J[0] - J[1]) / (2 * step)
        # J is accurate to 1e-16, its difference quotient to 1e-10
        error = abs(slope - expected) / max(abs(expected), 1e-3 * (1 + abs(J[0])))
        worst = max(worst, (error, f"{net} {regularizer}"))
    assert worst[0] < 1e-6, worst


@pytest.mark.parametrize("f", ACTIVATIONS)
@pytest.mark.parametrize("loss", ["squared_error", "softmax_cross_entropy"])
def test_float32_error_is_at_most_twice_that_of_plain_numpy(f, loss, rng):
    """For each gradient of a network, the root mean square of the error against float64 is at most
    twice that of the algorithms in plain NumPy with float32, from the same numbers.
    """
    net = MLP([40, 64, 48, 10], f, loss=loss, precision="float32", backend="numpy", seed=2)
    for layer in net.layers:
        layer.W[...] *= np.float32(0.5)
        layer.b[...] = rng.normal(size=layer.b.shape) / 4
    m = 700
    x = rng.normal(size=(m, 40)).astype("float32")
    y, weights = reference.targets(loss, rng, m, 10), rng.random(m)
    y = y.astype("float32")
    J, gradients = net.cost_and_gradients(x, y, sample_weight=weights)
    J_exact, *exact = networks.plainly(net, x, y, weights)
    J_plain, *plain = networks.plainly(net, x, y, weights, "float32")
    assert abs(J - J_exact) <= 2 * abs(J_plain - J_exact) + reference.EPS32 * abs(J_exact)
    for name, *three in zip(
        ("dW", "db", "dx", "gz", "gh"), parts(gradients), plain, exact, strict=True
    ):
        for k, (ours, theirs, right) in enumerate(zip(*three, strict=True)):
            assert ours.dtype == theirs.dtype == np.float32
            error = np.sqrt(np.mean((ours - right) ** 2))
            allowed = 2 * np.sqrt(np.mean((theirs - right) ** 2))
            assert error <= allowed, f"{name}[{k}]: {error:.2e}, twice plain NumPy's {allowed:.2e}"


def test_forward_returns_the_last_h_and_predict_its_link(rng):
    x = rng.normal(size=(9, 3))
    for loss, link in (
        ("squared_error", lambda a: a),
        ("poisson", np.exp),
        ("binary_cross_entropy", reference.sigmoid),
        ("softmax_cross_entropy", reference.ACTIVATIONS["softmax"]),
    ):
        net = networks.network("tanh", loss, 3)
        h = x
        for layer in net.layers[:-1]:
            h = np.tanh(h @ layer.W.T + layer.b)
        y_hat = h @ net.layers[-1].W.T + net.layers[-1].b
        np.testing.assert_allclose(net.forward(x), y_hat, rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(net.predict(x), link(y_hat), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("f", ["relu", "gelu", "softmax"])
def test_chunks_equal_one_pass(f, rng, monkeypatch):
    net = networks.network(f, "softmax_cross_entropy", 3, regularizer=gpumlp.L2(0.1))
    x, y, weights = networks.batch("softmax_cross_entropy", rng, m=23)
    whole = net.forward(x), net.predict(x), net.cost(x, y), net.cost(x, y, weights)
    monkeypatch.setattr("gpumlp.network.CHUNK", 5)
    net = copy.deepcopy(net)
    in_chunks = net.forward(x), net.predict(x), net.cost(x, y), net.cost(x, y, weights)
    for a, b in zip(whole, in_chunks, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-16)
    for rows in (1, 4, 5, 6, 23):  # after other sizes
        np.testing.assert_allclose(net.forward(x[:rows]), whole[0][:rows], rtol=1e-13, atol=1e-16)


def test_few_programs_are_kept_of_batches_of_many_sizes(rng):
    net = networks.network("tanh", "squared_error", 3)
    x, _, _ = networks.batch("squared_error", rng, m=3 * KEPT)
    whole = net.predict(x)
    for m in range(1, len(x)):
        np.testing.assert_allclose(net.predict(x[:m]), whole[:m], rtol=1e-13, atol=1e-16)
    (kept,) = net._forward._idle.values()
    assert 1 < len(kept._compiled) <= KEPT


def test_cost_and_prediction_equal_cost_and_predict(rng):
    net = networks.network("tanh", "softmax_cross_entropy", 3, regularizer=gpumlp.L2(0.1))
    x, y, _ = networks.batch("softmax_cross_entropy", rng, m=23)
    J, p = net.cost_and_prediction(x, y)
    assert net.cost(x, y) == J
    np.testing.assert_array_equal(p, net.predict(x))


@pytest.mark.parametrize("f", ACTIVATIONS)
def test_gradients_do_not_depend_on_intermediate(f, rng):
    net = networks.network([f, "tanh", f], "huber", 4, regularizer=gpumlp.L1(0.01))
    x, y, weights = networks.batch("huber", rng)
    J, with_all = net.cost_and_gradients(x, y, weights)
    J_again, without = net.cost_and_gradients(x, y, weights, intermediate=False)
    assert J_again == J
    assert net.cost(x, y, weights) == pytest.approx(J, rel=1e-14)
    assert (without.x, without.z, without.h) == (None, [], [])
    for k in range(net.L):
        np.testing.assert_array_equal(without.W[k], with_all.W[k])
        np.testing.assert_array_equal(without.b[k], with_all.b[k])


@pytest.mark.parametrize("value", ["False", None, 0])
def test_what_is_no_truth_value_of_intermediate_raises(value):
    net = gpumlp.MLP([3, 2], backend="numpy")
    with pytest.raises(TypeError, match="intermediate must be True or False, got"):
        net.cost_and_gradients(np.zeros((2, 3)), [0, 1], intermediate=value)


@pytest.mark.parametrize("f", ACTIVATIONS)
def test_nan_in_an_example_does_not_reach_others(f, rng):
    net = networks.network(f, "softmax_cross_entropy", 4)
    x, y, _ = networks.batch("softmax_cross_entropy", rng)
    broken = x.copy()
    broken[4, 1] = np.nan
    y_hat, others = net.forward(broken), np.arange(len(x)) != 4
    assert np.isnan(y_hat[4]).all()
    np.testing.assert_allclose(y_hat[others], net.forward(x)[others], rtol=1e-13, atol=1e-16)
    assert np.isnan(net.cost(broken, y))
    assert np.isnan(net.cost_and_gradients(broken, y)[0])


# ---- minibatches --------------------------------------------------------------------------------


@pytest.mark.parametrize("f", ["tanh", "gelu", "softmax"])
def test_one_pass_works_for_any_number_of_examples(f, rng):
    """Its arrays for 9 rows are used for 9, 4, 1, again 9, and for 9 + 9 + 2."""
    net = networks.network(f, "squared_error", 4)
    d = Parameters.zeros(net.backend, net.theta.layout)
    chunked = Chunked(net, 9, np.dtype(np.float64), d)
    for m in (9, 4, 1, 9, 20):
        x, y, _ = networks.batch("squared_error", rng, m)
        total = np.zeros_like(d.flat)
        for rows in chunked(x, y):
            y_hat = chunked.s.h[-1]
            np.testing.assert_allclose(y_hat, net.forward(x[rows]), rtol=1e-13)
            total += d.flat
        J, gradients = net.cost_and_gradients(x, y)
        assert chunked.J[0] == pytest.approx(J, rel=1e-14)
        d.flat[...] = total
        for k in range(net.L):
            np.testing.assert_allclose(d.W[k + 1], gradients.W[k], rtol=1e-12, atol=1e-16)
            np.testing.assert_allclose(d.b[k + 1], gradients.b[k], rtol=1e-12, atol=1e-16)


def test_a_training_step_allocates_no_array():
    """In a step on arrays of 8 MB and more, temporary arrays are only a few cache-sized blocks."""
    net = MLP([1024, 2048, 1024, 512], "gelu", loss="squared_error", backend="numpy", seed=1)
    net.backend._threads = Threads(2)  # each has its own temporary arrays
    trainer = gpumlp.Trainer(net, "adam", lr=1e-3, batch_size=2048, clip_norm=1.0)
    x = np.random.default_rng(0).normal(size=(4096, 1024)).astype("float32")
    batches = trainer.batches(Examples.checked(net, x, np.zeros((4096, 512), "float32")))
    controls = trainer.controls([1e-3, 1e-3], 1)
    batches.start(0, controls, np.zeros(2), 0)
    trainer.step(batches)
    tracemalloc.start()
    try:
        trainer.step(batches)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert net.layers[0].W.nbytes == 8 << 20
    assert peak < net.layers[0].W.nbytes


def test_threads_may_compute_the_cost_concurrently(rng):
    net = MLP([5, 40, 3], "tanh", regularizer="l2", precision="float64", backend="numpy")
    x, y = rng.normal(size=(30, 5)), rng.integers(0, 3, 30)
    alone = net.cost(x, y)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda _: net.cost(x, y), range(400)))
    assert set(together) == {alone}


def test_threads_may_predict_concurrently(rng):
    net = MLP([50, 200, 200, 3], "tanh", precision="float64", backend="numpy")
    batches = [rng.normal(size=(m, 50)) for m in (300, 200, 400, 100)]
    alone = [net.predict(x) for x in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(net.predict, batches * 25))
    for x_alone, x_together in zip(alone * 25, together, strict=True):
        np.testing.assert_allclose(x_together, x_alone, rtol=1e-12)


def test_earlier_names_work_with_a_warning():
    net = gpumlp.MLP([3, 2], backend="numpy")
    with pytest.warns(DeprecationWarning, match=r"MLP\.seen_by is now MLP\.on_other_backend"):
        copied = net.seen_by(net.backend)
    assert copied.widths == net.widths
    with pytest.warns(DeprecationWarning, match=r"EarlyStopping\.watched is now"):
        rule = gpumlp.EarlyStopping(monitor="val_metric").watched
    assert rule.column == "val_metric"
