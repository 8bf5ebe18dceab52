"""Networks from torch modules, and torch modules from networks."""

import copy
import importlib
import pickle
import sys
import warnings

import numpy as np
import pytest

import gpumlp
from gpumlp import ACTIVATIONS
from tests.support import networks
from tests.support.cuda_networks import on_host
from tests.support.refusal import refusal

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from gpumlp.interop.torch import FusedMLP, from_torch, to_torch  # noqa: E402

torch.manual_seed(7)  # of the modules below
X = np.random.default_rng(7).normal(size=(9, 3))
KNOWN = [
    nn.ReLU(inplace=True), nn.LeakyReLU(0.2), nn.ELU(0.5), nn.SELU(), nn.Sigmoid(), nn.Tanh(),
    nn.Softplus(), nn.Softsign(), nn.SiLU(), nn.GELU(), nn.GELU("tanh"), nn.Mish(), nn.Hardswish(),
    nn.Identity(), nn.Softmax(dim=-1), None,
]  # fmt: skip


def sequential(*hidden, widths=(3, 7, 5, 4), bias=True):
    torch.manual_seed(1)
    modules = []
    for n_in, n_out, f in zip(widths, widths[1:], hidden, strict=False):
        modules += [nn.Linear(n_in, n_out, bias=bias), *([] if f is None else [f])]
    return nn.Sequential(*modules).double()


def outputs(module, x=X):
    return module(torch.tensor(x)).detach().numpy()


@pytest.mark.parametrize("f", KNOWN, ids=repr)
def test_from_torch_keeps_the_outputs(f):
    module = sequential(f, nn.Tanh(), f)
    net = from_torch(module, backend="numpy")
    assert net.precision == "float64"
    np.testing.assert_allclose(net.forward(X), outputs(module), rtol=1e-12, atol=1e-15)
    assert net.forward(X).std() > 0


@pytest.mark.parametrize("f", ACTIVATIONS)
def test_to_torch_keeps_the_outputs(f):
    """The module does not depend on gpumlp: its pickle does not name it."""
    for output in networks.output_activations(f, "squared_error"):
        net = networks.network(f, "squared_error", 3, output)
        module = to_torch(net)
        assert type(module) is nn.Sequential
        np.testing.assert_allclose(outputs(module), net.forward(X), rtol=1e-12, atol=1e-15)
        saved = pickle.dumps(module)
        assert b"gpumlp" not in saved
        np.testing.assert_array_equal(outputs(pickle.loads(saved)), outputs(module))
        back = from_torch(module, backend="numpy", loss="squared_error")
        assert back.config()["activation"] == net.config()["activation"]
        assert back.config()["output_activation"] == net.config()["output_activation"]
        np.testing.assert_array_equal(back.forward(X), net.forward(X))


@pytest.mark.parametrize(
    "loss", ["softmax_cross_entropy", "binary_cross_entropy", "poisson", "huber"]
)
def test_to_torch_of_an_ensemble_predicts_the_mean(loss):
    settings = {"loss": loss, "precision": "float64", "backend": "numpy"}
    e = gpumlp.Ensemble(3, [3, 6, 2], "gelu", **settings)
    e.diverged = {0}
    module = to_torch(e)
    np.testing.assert_allclose(outputs(module), e.predict(X), rtol=1e-12)
    assert list(module.state_dict())[:2] == ["members.0.0.weight", "members.0.0.bias"]
    np.testing.assert_array_equal(module.state_dict()["members.1.2.weight"], e[2].layers[1].W)
    saved = pickle.dumps(module)
    assert b"gpumlp" not in saved
    np.testing.assert_array_equal(outputs(pickle.loads(saved)), outputs(module))


def test_to_torch_keeps_parameters_of_activations_and_trains():
    f = [ACTIVATIONS["selu"].set(alpha=1.3, scale=0.9), ACTIVATIONS["elu"].set(alpha=0.4)]
    net = gpumlp.MLP([3, 6, 5, 2], f, precision="float32", backend="numpy")
    module = to_torch(net)
    x = X.astype("float32")
    np.testing.assert_allclose(outputs(module, x), net.forward(x), rtol=1e-5, atol=1e-6)
    assert from_torch(module, backend="numpy").config()["activation"] == net.config()["activation"]
    before = net.theta.flat.copy()
    module(torch.tensor(x)).sum().backward()
    torch.optim.SGD(module.parameters(), lr=1.0).step()
    np.testing.assert_array_equal(net.theta.flat, before)  # a copy, not a view
    assert np.abs(outputs(module, x) - net.forward(x)).max() > 0.1


def test_gradients_of_a_network_from_torch():
    module, y = sequential(nn.GELU(), nn.Mish(), None), np.arange(9) % 4
    net = from_torch(module, backend="numpy")
    _, gradients = net.cost_and_gradients(X, y)
    nn.functional.cross_entropy(module(torch.tensor(X)), torch.tensor(y)).backward()
    for k, linear in enumerate(m for m in module if isinstance(m, nn.Linear)):
        np.testing.assert_allclose(gradients.W[k], linear.weight.grad, rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(gradients.b[k], linear.bias.grad, rtol=1e-9, atol=1e-14)


def test_settings_dtypes_and_the_loss():
    module = sequential(nn.ReLU(), nn.ReLU(), None)
    net = from_torch(module.float(), backend="numpy", loss="huber", regularizer="l2", seed=4)
    assert (net.precision, net.loss.name, net.regularizer.name) == ("float32", "huber", "l2")
    wide = from_torch(module, backend="numpy", precision="float64")
    np.testing.assert_allclose(wide.forward(X), net.forward(X), rtol=1e-4, atol=1e-5)
    half = from_torch(module.bfloat16(), backend="numpy")
    assert half.precision == "float32"  # float32 represents them exactly
    np.testing.assert_array_equal(half.layers[0].W, module[0].weight.float().detach().numpy())
    assert from_torch(sequential(nn.ReLU(), nn.Softmax(dim=-1)), "numpy").loss.probabilities
    assert from_torch(FusedMLP([3, 4, 2], "silu"), "numpy").f[1].name == "silu"


def test_nested_modules_and_one_layer():
    module = nn.Sequential(
        nn.Sequential(nn.Linear(3, 6), nn.Tanh()), nn.Sequential(nn.Linear(6, 2))
    ).double()
    net = from_torch(module, backend="numpy")
    np.testing.assert_allclose(net.forward(X), outputs(module), rtol=1e-12, atol=1e-15)
    one = nn.Sequential(nn.Linear(3, 2)).double()
    np.testing.assert_allclose(
        from_torch(one, "numpy").forward(X), outputs(one), rtol=1e-12, atol=1e-15
    )


def test_missing_bias_becomes_zeros_with_a_warning():
    module = sequential(nn.ReLU(), nn.ReLU(), None, bias=False)
    with pytest.warns(
        UserWarning, match="has no bias; it gets a bias of zeros, which training changes"
    ) as warned:
        net = from_torch(module, backend="numpy")
    assert len(warned) == 3
    assert warned[0].filename == __file__
    assert not any(layer.b.any() for layer in net.layers)
    np.testing.assert_allclose(net.forward(X), outputs(module), rtol=1e-12, atol=1e-15)


def tied(kind):
    module = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    if kind == "bias":
        module[2].bias = module[0].bias
    else:  # an autoencoder's
        module[2].weight = nn.Parameter(module[0].weight.detach().T)
    return module


def test_own_copies_of_shared_parameters_are_accepted():
    """The correction of the error."""
    for module in (tied("bias"), tied("transposed")):
        module[2] = copy.deepcopy(module[2])
        want = outputs(module.double())
        np.testing.assert_allclose(
            from_torch(module, "numpy").forward(X), want, rtol=1e-12, atol=1e-15
        )


DOES_NOTHING = {
    "Identity first": (nn.Identity(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)),
    "Identity before f": (nn.Linear(3, 4), nn.Identity(), nn.ReLU(), nn.Linear(4, 2)),
    "Identity after f": (nn.Linear(3, 4), nn.Tanh(), nn.Identity(), nn.Linear(4, 2), nn.Identity()),
    "Flatten": (nn.Flatten(), nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)),
    "Dropout(0)": (nn.Linear(3, 4), nn.Dropout(0.0), nn.Tanh(), nn.Dropout(0.0), nn.Linear(4, 2)),
    "Softmax(1)": (nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.Softmax(dim=1)),
}


@pytest.mark.parametrize("kind", DOES_NOTHING)
def test_modules_that_do_nothing_are_left_out(kind):
    module = nn.Sequential(*DOES_NOTHING[kind]).double()
    net = from_torch(module, backend="numpy")
    assert net.widths == (3, 4, 2)
    assert net.loss.probabilities == (kind == "Softmax(1)")
    np.testing.assert_allclose(net.forward(X), outputs(module), rtol=1e-12, atol=1e-15)


def test_dropout_in_eval_mode_is_left_out_with_a_warning():
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.ReLU(), nn.Linear(4, 2)).double()
    with pytest.warns(
        UserWarning, match="1, Dropout, is left out: gpumlp trains without"
    ) as warned:
        net = from_torch(module.eval(), backend="numpy")
    assert warned[0].filename == __file__
    np.testing.assert_allclose(net.forward(X), outputs(module), rtol=1e-12, atol=1e-15)


class Shifted(nn.Sequential):
    def forward(self, x):
        return super().forward(x) + 1


def patched(module):
    module[0].forward = lambda x: x
    return module


def within(name, module):
    around = nn.Module()
    around.add_module(name, module)
    return around


def traced(*calls):
    """A Sequential with a function as a module: a GraphModule."""

    def f(z):
        for call in calls:
            z = call(z)
        return z

    return nn.Sequential(LINEAR, torch.fx.symbolic_trace(f))


LINEAR = nn.Linear(3, 3)
INVALID = [
    (nn.Sequential(nn.Flatten(0), LINEAR), TypeError, "0 is a Flatten", "x.reshape(len(x), -1)"),
    (nn.Sequential(LINEAR, nn.Flatten()), TypeError, "1 is a Flatten", "x.reshape(len(x), -1)"),
    (nn.Sequential(LINEAR, nn.LogSoftmax(1)), TypeError, "leave it out: loss=", "takes logits"),
    (
        nn.Sequential(LINEAR, nn.ReLU(), LINEAR), ValueError, "2 shares its weight with 0, but e",
        "give 2 its own: copy.deepcopy of it",
    ),
    (tied("bias"), ValueError, "2 shares its bias with 0"),
    (tied("transposed"), ValueError, "2 shares its weight with 0"),
    (nn.Sequential(LINEAR, nn.Dropout()), TypeError, "1 is a Dropout", "in eval mode it does"),
    (nn.Sequential(LINEAR, nn.Softmax(dim=0)), TypeError, "1 is a Softmax", "Softmax(dim=-1)"),
    (
        nn.Sequential(LINEAR, nn.Sequential(nn.InstanceNorm1d(3), nn.Linear(3, 3))), TypeError,
        "1.0 is a InstanceNorm1d, which is not known", "known: BatchNorm1d, Dropout, ELU,",
    ),
    (nn.Sequential(LINEAR, nn.Softplus(beta=2)), TypeError, "1 is a Softplus", "these settings"),
    (nn.Sequential(nn.ReLU(), LINEAR), ValueError, "0, ReLU, is first; an activation follows"),
    (nn.Sequential(LINEAR, nn.ReLU(), nn.Tanh()), ValueError, "2, Tanh, is after another"),
    (nn.Sequential(LINEAR, nn.Linear(4, 2)), ValueError, "1 has 4 inputs but the Linear before"),
    (nn.Sequential(), ValueError, "module has no Linear; pass torch.nn.Sequential("),
    (LINEAR, TypeError, "module must be a torch.nn.Sequential, got Linear", "pass its layers as"),
    (traced(torch.sin), TypeError, "1 is a f, which is not known"),
    (traced(torch.exp, lambda z: z.neg()), TypeError, "1 is a f, which is not known"),
    (traced(lambda z: z.neg(), torch.exp), TypeError, "1 is a f, which is not known"),
    (traced(lambda z: nn.functional.elu(z) * z), TypeError, "1 is a f, which is not known"),
    (traced(lambda z: nn.functional.elu(z) * -2.0), TypeError, "1 is a f, which is not known"),
    (
        nn.Sequential(LINEAR, Shifted(nn.Linear(3, 2))), TypeError,
        "1 is a Shifted, a Sequential with a forward of its own", "symbolic_trace(module)",
    ),
    (
        patched(nn.Sequential(nn.Linear(3, 2))), TypeError, "0 has a forward of its own",
        "delete it: del module.get_submodule('0').forward",
    ),
    (nn.DataParallel(nn.Sequential(LINEAR)), TypeError, "got DataParallel; pass module.module"),
    (
        within("_orig_mod", nn.Sequential(LINEAR)), TypeError,  # what torch.compile returns
        "got Module; pass module._orig_mod",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("module", "error", "message"), [(m, e, s) for m, e, *s in INVALID])
def test_unknown_module_raises(module, error, message):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refusal(error, lambda: from_torch(module, backend="numpy"), *message)


def test_what_is_around_a_module_is_taken_off():
    """As the errors for it say."""
    module = within("module", patched(nn.Sequential(nn.Linear(3, 2))))
    module = module.module
    del module.get_submodule("0").forward
    net, subclass = from_torch(module.double(), backend="numpy"), Shifted(nn.Linear(3, 2))
    np.testing.assert_allclose(net.forward(X), outputs(module), rtol=1e-12)
    with pytest.raises(TypeError, match="add is a call of add"):  # it says what differs
        from_torch(torch.fx.symbolic_trace(subclass), backend="numpy")


def test_users_own_activation_raises():
    own = gpumlp.Activation("mine", f=lambda z: z, df=lambda z, h: np.ones_like(h))
    net = gpumlp.MLP([3, 4, 2], own, backend="numpy")
    refusal(
        ValueError, lambda: to_torch(net), "activation 'mine' is not one of gpumlp's, and torch"
    )


def test_predict_on_a_tensor():
    module = sequential(nn.SiLU(), nn.SiLU(), None)
    net, x = from_torch(module, backend="numpy"), torch.tensor(X)
    want = module(x).softmax(dim=1)
    torch.testing.assert_close(net.predict(x), want.detach(), rtol=1e-12, atol=1e-14)
    assert on_host(net.forward(X)).shape == (9, 4)


def test_missing_torch_raises(monkeypatch):
    for name in ("torch", "gpumlp.interop.torch"):
        monkeypatch.setitem(sys.modules, name, None)
    del sys.modules["gpumlp.interop.torch"]
    refusal(
        ImportError, lambda: importlib.import_module("gpumlp.interop.torch"),
        'gpumlp.interop.torch needs PyTorch: pip install "gpumlp[torch]"',
    )  # fmt: skip
