"""The parts of a network: custom functions, θ and its views, and files."""

import copy
import itertools

import numpy as np
import pytest

import gpumlp
from gpumlp import ACTIVATIONS, LOSSES, MLP, REGULARIZERS, storage
from tests.support import networks, reference
from tests.support.networks import parts

PLAIN = {"precision": "float64", "backend": "numpy"}


# ---- custom functions, and layers of several kinds ----------------------------------------------


BENT = gpumlp.Activation(
    "bent", f=lambda z, bend: np.sqrt(z * z + bend) + z,
    df=lambda z, h, bend: z / np.sqrt(z * z + bend) + 1, reads="z", params={"bend": 1.0},
)  # fmt: skip
CAUCHY = gpumlp.Loss(
    "cauchy", value=lambda y_hat, y, c: np.log1p(np.square((y_hat - y) / c)),
    gradient=lambda y_hat, y, c: 2 * (y_hat - y) / (c * c + np.square(y_hat - y)),
    params={"c": 2.0},
)  # fmt: skip


def own_network(**settings):
    f, loss = BENT.set(bend=0.5), CAUCHY.set(c=1.5)
    settings = PLAIN | {"regularizer": gpumlp.ElasticNet(0.01, 0.1, biases=0.5)} | settings
    return MLP([3, 5, 4, 2], [f, "softmax"], f, loss, seed=4, **settings)


def test_custom_entries(rng):
    net, x, y = own_network(), rng.normal(size=(9, 3)), rng.normal(size=(9, 2))
    J, gradients = net.cost_and_gradients(x, y)
    bent = lambda z: np.sqrt(z * z + 0.5) + z  # noqa: E731

    def cost(W):
        h = bent(x @ W.T)
        h = reference.ACTIVATIONS["softmax"](h @ net.layers[1].W.T)
        h = bent(h @ net.layers[2].W.T)
        return np.log1p(((h - y) / 1.5) ** 2).mean() + net.penalty()

    W, shift = net.layers[0].W, np.zeros((5, 3))
    assert cost(W) == pytest.approx(J, rel=1e-13)
    shift[2, 1] = 1e-6
    slope = (cost(W + shift) - cost(W - shift)) / 2e-6
    domega = 0.01 * np.sign(W[2, 1]) + 0.1 * W[2, 1]
    assert gradients.W[0][2, 1] == pytest.approx(slope + domega, rel=1e-6)


def test_each_layer_has_its_activation(rng):
    net = MLP([3, 5, 4, 2], ["relu", ACTIVATIONS["elu"].set(alpha=0.5)], "sigmoid", **PLAIN)
    assert [layer.f.name for layer in net.layers] == ["relu", "elu", "sigmoid"]
    h = x = rng.normal(size=(9, 3))
    for layer, f in zip(net.layers, ("relu", "elu", "sigmoid"), strict=True):
        params = {"alpha": 0.5} if f == "elu" else {}
        h = reference.ACTIVATIONS[f](h @ layer.W.T + layer.b, **params)
    np.testing.assert_allclose(net.forward(x), h, rtol=1e-13)


def test_repr_shows_layers_loss_size_and_backend():
    net = MLP([784, 256, 10], loss="softmax_cross_entropy", backend="numpy")
    text = repr(net)
    assert text.startswith("MLP(784-256-10, relu → identity, softmax_cross_entropy, 203,530 par")
    assert f"NumPy {np.__version__} on the CPU" in text
    assert "float32" in text
    assert "relu, tanh → softmax" in repr(MLP([4, 3, 3, 2], ["relu", "tanh"], "softmax", **PLAIN))
    assert "no hidden layer → identity" in repr(MLP([4, 2], **PLAIN))
    assert f"{MLP.__name__}(4-2, " in repr(MLP([4, 2], **PLAIN))


# ---- θ ------------------------------------------------------------------------------------------


def test_views_are_assignable_in_place(rng):
    net, x = MLP([3, 5, 2], "identity", **PLAIN), rng.normal(size=(4, 3))
    W, b = [rng.normal(size=s) for s in ((5, 3), (2, 5))], [rng.normal(size=5), rng.normal(size=2)]
    for k, layer in enumerate(net.layers):
        layer.W[...] = W[k]
        layer.b[...] = b[k]
    np.testing.assert_allclose(net.forward(x), (x @ W[0].T + b[0]) @ W[1].T + b[1], rtol=1e-12)
    assert net.theta.flat.sum() == pytest.approx(sum(a.sum() for a in W + b))
    net.theta.flat[...] = 0
    assert not net.forward(x).any()


def test_layers_are_assigned_in_place_alone():
    layer = gpumlp.MLP([3, 2], backend="numpy").layers[0]
    kept = layer.W.copy()
    layer.W *= 2
    np.testing.assert_array_equal(layer.W, 2 * kept)
    for name in ("W", "b", "f"):
        with pytest.raises(AttributeError, match=f"{name} of a layer.*layer.W.* = value"):
            setattr(layer, name, kept)


@pytest.mark.parametrize("tensors", [[1], "0.weight", None])
def test_assign_says_what_it_takes(tensors):
    with pytest.raises(TypeError, match="mapping from names to arrays, as net.tensors.. returns"):
        gpumlp.MLP([3, 2], backend="numpy").assign(tensors)


def test_assigned_values_fit_the_type():
    net = gpumlp.MLP([3, 2], backend="numpy")
    for value in (np.inf, np.nan):  # as a training that diverged left them
        net.assign({"0.weight": np.full((2, 3), value), "0.bias": np.ones(2, int)})
    with pytest.raises(ValueError, match="0.bias has values beyond the network's float32; rescale"):
        net.assign({"0.weight": np.zeros((2, 3)), "0.bias": [1, -1e300]})
    assert np.isnan(net.layers[0].W).all()


def test_weights_depend_on_the_seed():
    thetas = [MLP([3, 5, 2], **PLAIN, seed=seed).theta.flat for seed in (1, 1, 2)]
    np.testing.assert_array_equal(thetas[0], thetas[1])
    assert not np.array_equal(thetas[0], thetas[2])


def test_runs_are_bit_identical(rng):
    x, y, weights = networks.batch("softmax_cross_entropy", rng, m=300)
    runs = []
    for _ in range(2):
        net = networks.network("silu", "softmax_cross_entropy", 4, precision="float32")
        J, gradients = net.cost_and_gradients(x, y, weights)
        runs.append([J, net.cost(x, y), net.forward(x), *itertools.chain(*parts(gradients))])
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_deep_copy_has_its_own_theta(rng):
    net, x = own_network(), rng.normal(size=(4, 3))
    before = net.forward(x)
    copied = copy.deepcopy(net)
    np.testing.assert_array_equal(copied.forward(x), before)
    copied.theta.flat[...] *= 2  # the layers are views of the copy's θ
    assert np.array_equal(copied.layers[1].W, 2 * net.layers[1].W)
    assert not np.allclose(copied.forward(x), before)
    np.testing.assert_array_equal(net.forward(x), before)


def test_assign_copies_all_tensors_or_none(rng):
    net, other = MLP([3, 5, 2], **PLAIN, seed=1), MLP([3, 5, 2], **PLAIN, seed=2)
    tensors, before = other.tensors(), net.theta.flat.copy()
    assert list(tensors) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    for bad, message in (
        (
            {k: tensors[k] for k in list(tensors)[:3]},
            "tensor names do not fit this network: 2.bias",
        ),
        (tensors | {"4.bias": np.zeros(2)}, "do not fit this network: 4.bias"),
        ({0: 1}, "do not fit this network: 0, 0.bias"),
        (tensors | {"2.bias": np.zeros(3)}, r"2.bias has shape \(3,\), this network's is \(2,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            net.assign(bad)
        np.testing.assert_array_equal(net.theta.flat, before)
    hidden = np.ma.array(tensors["2.bias"], mask=[True, False])
    for bad, error, message in (
        (tensors["2.bias"] + 1j, TypeError, "2.bias has dtype complex128; pass real numbers"),
        (hidden, ValueError, "2.bias has masked values; fill or remove them"),
    ):
        with pytest.raises(error, match=message):
            net.assign(tensors | {"2.bias": bad})
        np.testing.assert_array_equal(net.theta.flat, before)
    net.assign(tensors)
    np.testing.assert_array_equal(net.theta.flat, other.theta.flat)
    tensors["0.weight"][...] = 0  # `tensors` gave copies
    assert other.layers[0].W.any()


# ---- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_save_and_load_are_exact_with_custom_entries(precision, rng, tmp_path):
    net = own_network(precision=precision)
    net.theta.flat[...] *= 1 + rng.random(net.theta.flat.shape)
    net.save(tmp_path / "net.safetensors")
    again = MLP.load(tmp_path / "net.safetensors", backend="numpy", functions=[BENT, CAUCHY])
    np.testing.assert_array_equal(again.theta.flat, net.theta.flat)
    assert again.config() == net.config()
    assert (again.f[1], again.loss, again.regularizer) == (net.f[1], net.loss, net.regularizer)
    x, y = rng.normal(size=(9, 3)), rng.normal(size=(9, 2))
    assert again.cost(x, y) == net.cost(x, y)
    np.testing.assert_array_equal(again.forward(x), net.forward(x))


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize(
    "name",
    ["widths", "f", "blocks", "loss", "backend", "layers", "theta", "precision", "dropout", "norm"],
)
def test_what_recorded_programs_depend_on_cannot_change(name, used, rng):
    """Assigning it would change some results and not others."""
    net, x, y = own_network(), rng.normal(size=(9, 3)), rng.normal(size=(9, 2))
    before = net.cost(x, y) if used else None
    for each in (net, copy.deepcopy(net)):
        with pytest.raises(AttributeError, match=rf"{name} of a network cannot change.*assign"):
            setattr(each, name, getattr(each, name, None))
        assert before in (None, each.cost(x, y))


@pytest.mark.parametrize("name", ["f", "layers", "widths"])
def test_entries_of_what_cannot_change_cannot_be_assigned(name):
    """`net.f[1] = …` changed what is saved, and no result that had been computed before."""
    net = own_network()
    values = getattr(net, name)
    with pytest.raises(TypeError, match="does not support item assignment"):
        values[1] = values[-1]


def test_what_may_change_is_as_in_a_new_network(rng):
    x, y = rng.normal(size=(9, 3)), rng.normal(size=(9, 2))
    net = MLP([3, 4, 2], loss="squared_error", backend="numpy")
    for name, value in (("regularizer", "l2"), ("regularizer", None), ("initializer", "he")):
        setattr(net, name, value)
        new = MLP([3, 4, 2], loss="squared_error", backend="numpy", **{name: value})
        new.assign(net.tensors())
        assert (net.cost(x, y), getattr(net, name)) == (new.cost(x, y), getattr(new, name))
        with pytest.raises(TypeError, match=f"{name} must be a name or an entry"):
            setattr(net, name, 3)
    with pytest.raises(TypeError, match="seed must be a whole number"):
        net.seed = "x"


def test_load_with_unknown_entries_raises(tmp_path):
    own_network().save(tmp_path / "net.safetensors")
    said = r"unknown activation 'bent'; if it is your own, load it with functions=\["
    with pytest.raises(gpumlp.CheckpointError, match=said):
        MLP.load(tmp_path / "net.safetensors", backend="numpy")


def test_load_settings_replace_saved_settings(tmp_path):
    net = MLP([3, 5, 2], **PLAIN)
    net.save(tmp_path / "net.safetensors")
    again = MLP.load(
        tmp_path / "net.safetensors", backend="numpy", precision="float32", loss="huber"
    )
    assert again.loss.name == "huber"
    np.testing.assert_array_equal(again.theta.W[1], net.theta.W[1].astype("float32"))


@pytest.mark.parametrize("backend", ["numpy", "auto"])
def test_a_tf32_network_loads_without_a_gpu(backend, tmp_path, monkeypatch):
    def no_device():
        raise gpumlp.DeviceError("none")

    monkeypatch.setattr("gpumlp.backends.cuda.open_device", no_device)
    net = MLP([3, 5, 2], backend="numpy")
    path = tmp_path / "net.safetensors"
    storage.save_network(path, net.config() | {"precision": "tf32"}, net.tensors())
    again = MLP.load(path, backend=backend)
    assert again.precision == "float32"
    np.testing.assert_array_equal(again.theta.flat, net.theta.flat)


def test_config_restores_every_entry(tmp_path):
    for f in ACTIVATIONS.values():
        for loss in LOSSES.values():
            output = "softmax" if loss.probabilities else "identity"
            net = MLP([2, 3, 2], f, output, loss, REGULARIZERS["l1"], "lecun", **PLAIN)
            again = MLP(**net.config(), backend="numpy")
            assert (again.f, again.loss, again.regularizer) == (net.f, net.loss, net.regularizer)
            assert again.initializer == net.initializer
