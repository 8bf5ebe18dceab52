"""L(ŷ, y) and its gradient by the operations of a backend, against the textbook."""

import numpy as np
import pytest

import gpumlp
from gpumlp import ACTIVATIONS, LOSSES
from gpumlp.backends.numpy.backend import NumpyBackend
from gpumlp.step.chunked import UNSCALED
from tests.support import reference

OTHER_PARAMS = [
    ("huber", {"delta": 0.3}),
    ("quantile", {"q": 0.9}),
    ("softmax_cross_entropy", {"smoothing": 0.1}),
]
VARIANTS = [(name, {}) for name in LOSSES] + OTHER_PARAMS
CLASSIFICATION = [name for name, loss in LOSSES.items() if loss.target == "class"]
IDENTITY = ACTIVATIONS["identity"]


def cost(backend, loss, y_hat, y, weights):
    """Return J of the operation `loss`."""
    J = np.zeros(1)
    backend.loss(loss, y_hat, y, weights, J)
    return J[0]


def gradient(backend, loss, y_hat, y, weights, f=IDENTITY, z=None):
    """Return gh, gz, db and J of the operation `output_gradient`."""
    gh, gz, db, J = np.empty_like(y_hat), np.empty_like(y_hat), np.empty_like(y_hat[0]), np.zeros(1)
    z = y_hat if z is None else z
    backend.output_gradient(loss, f, z, y_hat, y, weights, UNSCALED, gh, gz, db, J)
    return gh, gz, db, J[0]


@pytest.fixture
def backend(monkeypatch):
    """A backend that splits even small arrays into several blocks."""
    monkeypatch.setattr("gpumlp.io.threads.BLOCK_BYTES", 100)
    return NumpyBackend("float64")


def test_the_reference_has_every_loss():
    assert {*reference.LOSSES, "softmax_cross_entropy"} == set(LOSSES)


@pytest.mark.parametrize("n", [1, 3, 7])
@pytest.mark.parametrize(("name", "params"), VARIANTS)
def test_the_cost_matches_the_textbook(backend, rng, name, params, n):
    loss, m = LOSSES[name].set(**params), 13
    y_hat, y = reference.outputs(name, rng, m, n), reference.targets(name, rng, m, n)
    weights = rng.random(m)
    expected = weights @ reference.examples(name, y_hat, y, **params)
    np.testing.assert_allclose(cost(backend, loss, y_hat, y, weights), expected, rtol=1e-13)


@pytest.mark.parametrize("n", [1, 3, 7])
@pytest.mark.parametrize(("name", "params"), VARIANTS)
def test_the_gradient_matches_difference_quotients(backend, rng, name, params, n):
    loss, m = LOSSES[name].set(**params), 13
    y_hat, y = reference.outputs(name, rng, m, n), reference.targets(name, rng, m, n)
    weights = rng.random(m)
    slope, step = np.empty((m, n)), 1e-6
    for at in np.ndindex(m, n):
        above, below = y_hat.copy(), y_hat.copy()
        above[at] += step
        below[at] -= step
        rise = cost(backend, loss, above, y, weights) - cost(backend, loss, below, y, weights)
        slope[at] = rise / (2 * step)
    gh, gz, db, J = gradient(backend, loss, y_hat, y, weights)
    np.testing.assert_allclose(gh, slope, rtol=1e-7, atol=1e-8)
    np.testing.assert_array_equal(gz, gh)
    np.testing.assert_allclose(db, gh.sum(axis=0), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(J, cost(backend, loss, y_hat, y, weights), rtol=1e-14)


@pytest.mark.parametrize("f", ["tanh", "silu", "softmax"])
def test_the_gradient_goes_through_the_output_activation(backend, rng, f):
    f, loss = ACTIVATIONS[f], LOSSES["squared_error"]
    z, y, weights = rng.normal(size=(13, 3)), rng.normal(size=(13, 3)), rng.random(13)
    h = f.f(z)
    gh, gz, db, _ = gradient(backend, loss, h, y, weights, f, z)
    np.testing.assert_allclose(gh, 2 / 3 * weights[:, None] * (h - y), rtol=1e-14)
    expected = gh * f.df(z, h) if f.elementwise else f.vjp(z, h, gh)
    np.testing.assert_allclose(gz, expected, rtol=1e-14)
    np.testing.assert_allclose(db, expected.sum(axis=0), rtol=1e-13)


@pytest.mark.parametrize("name", CLASSIFICATION)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_labels_equal_one_hot_rows(backend, rng, name, smoothing):
    loss = LOSSES[name]
    loss = loss.set(smoothing=smoothing) if loss.params else loss
    y_hat, labels = reference.outputs(name, rng, 13, 5), rng.integers(0, 5, 13).astype(np.int32)
    weights, rows = rng.random(13), np.eye(5)[labels]
    assert cost(backend, loss, y_hat, labels, weights) == cost(backend, loss, y_hat, rows, weights)
    for of_labels, of_rows in zip(
        gradient(backend, loss, y_hat, labels, weights),
        gradient(backend, loss, y_hat, rows, weights),
        strict=True,
    ):
        np.testing.assert_array_equal(of_labels, of_rows)


def test_label_smoothing_mixes_the_target_with_a_uniform_distribution(backend, rng):
    plain = LOSSES["softmax_cross_entropy"]
    y_hat, weights, labels = rng.normal(size=(13, 5)), rng.random(13), rng.integers(0, 5, 13)
    mixed = 0.7 * np.eye(5)[labels] + 0.3 / 5
    smooth = gradient(backend, plain.set(smoothing=0.3), y_hat, labels.astype(np.int32), weights)
    for a, b in zip(smooth, gradient(backend, plain, y_hat, mixed, weights), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_logits_stay_finite(dtype):
    backend, eps = NumpyBackend(dtype), float(np.finfo(dtype).eps)
    one = np.ones(1, dtype)
    expected = {  # name: (ŷ, y, value, slope)
        "binary_cross_entropy": [(1e4, 1, 0, 0), (-1e4, 1, 1e4, -1), (1e4, 0, 1e4, 1)],
        "log_cosh": [(1e4, 0, 1e4 - np.log(2), 1), (-1e4, 0, 1e4 - np.log(2), -1)],
        "huber": [(1e4, 0, 1e4 - 0.5, 1), (-1e4, 0, 1e4 - 0.5, -1)],
        "poisson": [(-1e4, 0, 0, 0), (-1e4, 2, 2e4, -2)],
        "negative_log_likelihood": [(0, 1, -np.log(np.finfo(dtype).tiny), None), (0, 0, 0, 0)],
    }
    for name, cases in expected.items():
        for y_hat, y, value, slope in cases:
            y_hat, y = np.array([[y_hat]], dtype), np.array([[y]], dtype)
            gh, _, _, J = gradient(backend, LOSSES[name], y_hat, y, one)
            np.testing.assert_allclose(J, value, rtol=4 * eps, err_msg=name)
            assert np.isfinite(gh).all() if slope is None else gh[0, 0] == slope, name


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cross_entropy_of_extreme_logits(dtype):
    backend, loss = NumpyBackend(dtype), LOSSES["softmax_cross_entropy"]
    y_hat = np.array([[1e4, 0, -1e4]] * 3, dtype)
    y, weights = np.arange(3, dtype=np.int32), np.ones(3, dtype)
    gh, _, _, J = gradient(backend, loss, y_hat, y, weights)
    assert J == 3e4  # 0 + 1e4 + 2e4
    np.testing.assert_array_equal(gh, [[0, 0, 0], [1, -1, 0], [1, 0, -1]])


def test_log_probabilities_of_any_logits(rng):
    z = np.array([-1e4, -800, -17, -1e-9, 0, 3, 17, 40, 1e4], np.float32)[:, None]
    log_p = LOSSES["binary_cross_entropy"].log_probabilities(z)
    wide = z.astype(float)
    assert log_p.dtype == np.float64
    np.testing.assert_allclose(log_p, -np.logaddexp(0, np.hstack([wide, -wide])), rtol=1e-15)
    np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1, rtol=1e-15)
    labels = LOSSES["binary_cross_entropy"].log_probabilities(z, labels=True)
    np.testing.assert_array_equal(labels, log_p[:, 1:])
    rest = LOSSES["binary_cross_entropy"].log_probabilities(np.hstack([z, z - 1, -z]))
    np.testing.assert_allclose(np.exp(rest).sum(axis=1), 1, rtol=1e-12)
    assert np.isfinite(rest).all()
    logits = np.array([[1e6, 1e6 - 3, -1e6], [0, -np.inf, 50]])
    p = LOSSES["softmax_cross_entropy"].log_probabilities(logits)
    expected = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    np.testing.assert_allclose(p, expected, rtol=1e-9)
    p = np.array([[0.0, 1.0], [1e-9, 1.0], [0.25, 0.75]], np.float32)
    found = LOSSES["negative_log_likelihood"].log_probabilities(p)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.exp(found), [[0, 1], [1e-9, 1 - 1e-9], [0.25, 0.75]], 1e-6, 1e-37)
    assert found[0, 1] > found[1, 1]  # in float32 both are 0


@pytest.mark.parametrize(("name", "params"), VARIANTS)
def test_float32_stays_float32(rng, name, params):
    loss = LOSSES[name].set(**params)
    y_hat, y = reference.outputs(name, rng, 50, 7), reference.targets(name, rng, 50, 7)
    y_hat32, y32 = y_hat.astype("float32"), y.astype("float32")
    value, slope = loss.examples(y_hat32, y32), loss.gradient(y_hat32, y32, **loss.params)
    assert value.dtype == slope.dtype == np.float32
    y_hat, y = y_hat32.astype(float), y32.astype(float)
    np.testing.assert_allclose(value, loss.examples(y_hat, y), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(slope, loss.gradient(y_hat, y, **loss.params), rtol=1e-6, atol=1e-6)


# ---- weights of examples, in whole networks ------------------------------------------------------


def network(name, n=3):
    output = "softmax" if name == "negative_log_likelihood" else "identity"
    return gpumlp.MLP(
        [4, 5, n], "tanh", output, loss=name, precision="float64", backend="numpy", seed=1
    )


def both(net, x, y, **weights):
    """Return J, ∇W[0] and ∂J/∂x, and J from `cost`."""
    J, gradients = net.cost_and_gradients(x, y, **weights)
    return J, gradients.W[0], gradients.x, net.cost(x, y, **weights)


def assert_same(first, second, rtol=1e-12):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-15)


@pytest.mark.parametrize("name", LOSSES)
def test_a_sample_weight_equals_copies_of_the_example(rng, name):
    net, x = network(name), rng.normal(size=(6, 4))
    y, times = reference.targets(name, rng, 6, 3), np.array([0, 1, 2, 3, 1, 5])
    J, dW, dx, again = both(net, x, y, sample_weight=times)
    copies = np.repeat(np.arange(6), times)
    J_copies, dW_copies, dx_copies, _ = both(net, x[copies], y[copies])
    assert_same((J, dW, again), (J_copies, dW_copies, J_copies))
    dx_sum = np.zeros_like(dx)
    np.add.at(dx_sum, copies, dx_copies)
    np.testing.assert_allclose(dx, dx_sum, rtol=1e-12, atol=1e-15)


def test_only_the_proportions_of_weights_matter(rng):
    net, x, y = network("squared_error"), rng.normal(size=(6, 4)), rng.normal(size=(6, 3))
    weights = rng.random(6)
    assert_same(
        both(net, x, y, sample_weight=weights), both(net, x, y, sample_weight=1000 * weights)
    )
    assert_same(both(net, x, y), both(net, x, y, sample_weight=np.full(6, 7)))


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_class_weights_equal_sample_weights_of_the_labels(rng, name):
    net, x, labels = network(name), rng.normal(size=(8, 4)), np.array([0, 1, 2, 2, 2, 0, 1, 2])
    of_class, of_sample = np.array([0.5, 2.0, 1.0]), rng.random(8)
    expected = both(net, x, labels, sample_weight=of_class[labels] * of_sample)
    for given in (
        of_class,
        of_class.tolist(),
        {0: 0.5, 1: 2.0},
    ):  # the weight of a missing class is 1
        weighted = both(net, x, labels, sample_weight=of_sample, class_weight=given)
        assert_same(weighted, expected)
    rows = np.eye(3)[labels]
    assert_same(both(net, x, rows, sample_weight=of_sample, class_weight=of_class), expected)
    soft = reference.targets(name, rng, 8, 3)
    assert_same(
        both(net, x, soft, class_weight=of_class), both(net, x, soft, sample_weight=soft @ of_class)
    )


def test_balanced_weights_give_each_class_the_same_share(rng):
    net, x = network("softmax_cross_entropy", 4), rng.normal(size=(8, 4))
    labels = np.array([0, 1, 1, 2, 2, 2, 2, 2])  # and none of class 3
    share = {0: 8 / 4, 1: 8 / 4 / 2, 2: 8 / 4 / 5, 3: 0}
    expected = both(net, x, labels, class_weight=share)
    assert_same(both(net, x, labels, class_weight="balanced"), expected)
    assert_same(both(net, x, np.eye(4)[labels], class_weight="balanced"), expected)


def test_balanced_weights_count_the_rows_of_small_dtypes(rng):
    """A sum in float16 ends at 2048."""
    x, labels = rng.normal(size=(5000, 4)), (np.arange(5000) >= 4900).astype(int)
    net = network("softmax_cross_entropy", 2)
    expected = both(net, x, labels, class_weight="balanced")
    assert_same(both(net, x, np.eye(2, dtype="f2")[labels], class_weight="balanced"), expected)


def test_class_weights_of_a_binary_target(rng):
    net = network("binary_cross_entropy", 1)
    x, y = rng.normal(size=(5, 4)), np.array([0, 1, 1, 0, 1])
    expected = both(net, x, y, sample_weight=np.array([3.0, 2.0])[y])
    assert_same(both(net, x, y, class_weight=[3, 2]), expected)
    assert_same(both(net, x, y[:, None].astype(bool), class_weight={0: 3, 1: 2}), expected)
    balanced = both(net, x, y, sample_weight=np.array([1 / 2, 1 / 3])[y])
    assert_same(both(net, x, y, class_weight="balanced"), balanced)
    soft = rng.random(5)
    expected = both(net, x, soft, sample_weight=3 * (1 - soft) + 2 * soft)
    assert_same(both(net, x, soft, class_weight=[3, 2]), expected)


@pytest.mark.parametrize("scale", [1e-320, 1e-60, 1e-30, 1e300])
def test_the_scale_of_weights_does_not_matter(rng, scale):
    net, x, labels = network("softmax_cross_entropy"), rng.normal(size=(8, 4)), np.arange(8) % 3
    weights, of_class = rng.integers(0, 9, 8), np.array([3.0, 1.0, 2.0])
    expected = both(net, x, labels, sample_weight=weights, class_weight=of_class)
    tiny = {"sample_weight": weights * scale, "class_weight": of_class * scale}
    assert_same(both(net, x, labels, **tiny), expected, rtol=1e-3 if scale < 1e-308 else 1e-12)


# ---- against torch ------------------------------------------------------------------------------


def torchs_loss(name, params):
    torch = pytest.importorskip("torch")
    return {
        "squared_error": torch.nn.MSELoss,
        "absolute_error": torch.nn.L1Loss,
        "huber": torch.nn.HuberLoss,
        "poisson": torch.nn.PoissonNLLLoss,
        "binary_cross_entropy": torch.nn.BCEWithLogitsLoss,
        "softmax_cross_entropy": torch.nn.CrossEntropyLoss,
    }[name](**{{"smoothing": "label_smoothing"}.get(k, k): v for k, v in params.items()})


@pytest.mark.parametrize(
    ("name", "params"),
    [v for v in VARIANTS if v[0] not in ("log_cosh", "quantile", "negative_log_likelihood")],
)
def test_value_and_gradient_match_torch(backend, rng, name, params):
    torch = pytest.importorskip("torch")
    y_hat, y = rng.normal(size=(13, 5)), reference.targets(name, rng, 13, 5)
    theirs = torch.tensor(y_hat, requires_grad=True)
    J = torchs_loss(name, params)(theirs, torch.tensor(y))
    J.backward()
    gh, _, _, value = gradient(backend, LOSSES[name].set(**params), y_hat, y, np.full(13, 1 / 13))
    np.testing.assert_allclose(value, J.item(), rtol=1e-13)
    np.testing.assert_allclose(gh, theirs.grad.numpy(), rtol=1e-12, atol=1e-17)


def test_class_weights_and_log_likelihood_match_torch(rng):
    torch = pytest.importorskip("torch")
    labels, of_class = rng.integers(0, 3, 8), np.array([0.5, 2.0, 1.0])
    x = rng.normal(size=(8, 4))
    net = network("softmax_cross_entropy")
    module = torch.nn.CrossEntropyLoss(weight=torch.tensor(of_class))
    J = module(torch.tensor(net.forward(x)), torch.tensor(labels)).item()
    assert net.cost(x, labels, class_weight=of_class) == pytest.approx(J, rel=1e-13)
    net = network("negative_log_likelihood")
    module = torch.nn.NLLLoss(weight=torch.tensor(of_class))
    J = module(torch.log(torch.tensor(net.forward(x))), torch.tensor(labels)).item()
    assert net.cost(x, labels, class_weight=of_class) == pytest.approx(J, rel=1e-13)


@pytest.mark.parametrize("weight", [[0.2, 3.0, 1.0], [5.0, 0.0, 1e-3]])
@pytest.mark.parametrize("kind", ["labels", "one-hot rows", "probabilities"])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_class_weights_after_label_smoothing_match_torch(rng, kind, weight, precision):
    torch = pytest.importorskip("torch")
    smoothing, labels = 0.2, rng.integers(0, 3, 20)
    x, own, w = rng.normal(size=(20, 4)), rng.random(20), np.array(weight)
    p = reference.targets("softmax_cross_entropy", rng, 20, 3)
    y = {"labels": labels, "one-hot rows": np.eye(3)[labels], "probabilities": p}[kind]
    loss = LOSSES["softmax_cross_entropy"].set(smoothing=smoothing)
    net = gpumlp.MLP([4, 3], loss=loss, precision=precision, backend="numpy", seed=1)
    for sample_weight in (None, own):
        logits = torch.tensor(net.forward(x), dtype=torch.float64, requires_grad=True)
        given = torch.tensor(labels if kind == "labels" else y)
        terms = torch.nn.functional.cross_entropy(
            logits, given, torch.tensor(w), reduction="none", label_smoothing=smoothing
        )
        share = torch.tensor(own if sample_weight is not None else np.ones(20))
        # torch divides the loss of labels by their weights, of rows by their number
        total = share @ torch.tensor(w[labels] if kind == "labels" else y @ w)
        J = (share * terms).sum() / total
        J.backward()
        got, gradients = net.cost_and_gradients(x, y, sample_weight, w)
        close = {"float64": 1e-11, "float32": 1e-5}[precision]
        assert got == pytest.approx(J.item(), rel=close)
        assert net.cost(x, y, sample_weight, w) == pytest.approx(J.item(), rel=close)
        np.testing.assert_allclose(gradients.z[0], logits.grad.numpy(), rtol=close, atol=close)


@pytest.mark.parametrize("output", ["identity", "tanh"])
def test_loss_of_probabilities_with_other_outputs_raises(output):
    with pytest.raises(ValueError, match='takes probabilities.*output_activation="softmax"'):
        gpumlp.MLP([2, 3], output_activation=output, loss="negative_log_likelihood")


@pytest.mark.parametrize("name", LOSSES)
def test_the_mean_output_has_the_mean_of_the_links(rng, name):
    """Also of probabilities that are 0 or 1 in float64."""
    loss, link = LOSSES[name], LOSSES[name].link
    each = [rng.normal(size=(40, 3)) for _ in range(4)]
    mean = np.mean([link.f(z, **link.params) for z in each], axis=0)
    y_hat = loss.mean_output([z.astype(np.float32) for z in each])
    assert y_hat.dtype == np.float64
    np.testing.assert_allclose(link.f(y_hat, **link.params), mean, rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(loss.mean_output(each[:1]) - each[0], 0, atol=np.ptp(each[0]))


def test_the_mean_output_of_extreme_logits():
    far = np.array([[800.0], [-900.0]])
    binary = LOSSES["binary_cross_entropy"].mean_output([far, far + 100])
    np.testing.assert_allclose(binary[0], 800 + np.log(2), rtol=1e-12)  # 1 − p is the mean of both
    np.testing.assert_allclose(binary[1], -800 - np.log(2), rtol=1e-12)
    logits = np.array([[0.0, -2000.0]])
    log_p = LOSSES["softmax_cross_entropy"].mean_output([logits, np.array([[0.0, -1700.0]])])
    np.testing.assert_allclose(log_p, [[0, -1700 - np.log(2)]], rtol=1e-12)
    rates = LOSSES["poisson"].mean_output([np.array([[900.0]]), np.array([[901.0]])])
    np.testing.assert_allclose(rates, 900 + np.log((1 + np.e) / 2), rtol=1e-12)


def test_a_link_without_a_mean_output_raises():
    loss = gpumlp.Loss(
        "own", LOSSES["squared_error"].value, LOSSES["squared_error"].gradient,
        link=ACTIVATIONS["softplus"],
    )  # fmt: skip
    with pytest.raises(ValueError, match="'own' has the link 'softplus'.*use predict"):
        loss.mean_output([np.zeros((2, 1))])
