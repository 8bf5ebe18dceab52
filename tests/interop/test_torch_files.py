"""torch.nn.Sequential(Linear, activation, …) reads files of gpumlp, and gpumlp reads its files."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpumlp import ACTIVATIONS, MLP, CheckpointError
from tests.support import networks

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402  (needs torch)

from tests.support import in_torch  # noqa: E402


class Function(torch.nn.Module):
    """An activation as a module without parameters."""

    def __init__(self, entry):
        super().__init__()
        self.forward = in_torch.activation(entry)


def sequential(net):
    """A torch network of the same layers with other weights."""
    modules = []
    for layer in net.layers:
        outputs, inputs = layer.W.shape
        dtype = getattr(torch, net.precision)
        modules += [torch.nn.Linear(inputs, outputs, dtype=dtype), Function(layer.f)]
    return torch.nn.Sequential(*modules[: None if layer.f.name != "identity" else -1])


def check_both_directions(net, x, path):
    """In both directions tensors agree to the bit, outputs to 1e-5 of the largest in float32."""
    tolerance = 1e-12 if net.precision == "float64" else 1e-5
    net.save(path)
    theirs = sequential(net)
    theirs.load_state_dict(load_file(path), strict=True)
    for name, tensor in theirs.state_dict().items():
        assert tensor.numpy().tobytes() == net.tensors()[name].tobytes()
    scale = abs(net.forward(x)).max()
    error = abs(theirs(torch.tensor(x)).detach().numpy() - net.forward(x)).max()
    assert error <= tolerance * scale, repr(net)

    torch.manual_seed(len(x))
    theirs = sequential(net)
    save_file(theirs.state_dict(), path)
    with pytest.warns(UserWarning, match="carries no digest"):
        ours = MLP.load(
            path, "numpy", activation=list(net.f[1:-1]), output_activation=net.f[-1],
            precision=net.precision, loss="squared_error",
        )  # fmt: skip
    assert ours.widths == net.widths
    for name, tensor in theirs.state_dict().items():
        assert ours.tensors()[name].tobytes() == tensor.numpy().tobytes()
    y_hat = theirs(torch.tensor(x)).detach().numpy()
    assert abs(ours.forward(x) - y_hat).max() <= tolerance * abs(y_hat).max(), repr(ours)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("f", ACTIVATIONS)
def test_every_activation(f, precision, rng, tmp_path):
    net = networks.network(f, "squared_error", 4, f, precision=precision)
    x = rng.normal(size=(20, 3)).astype(precision)
    check_both_directions(net, x, tmp_path / "m.safetensors")


@given(st.data())
def test_random_architectures(tmp_path_factory, data):
    widths = data.draw(st.lists(st.integers(1, 40), min_size=2, max_size=6))
    names = st.sampled_from([name for name in ACTIVATIONS if name != "exponential"])
    hidden = data.draw(st.lists(names, min_size=len(widths) - 2, max_size=len(widths) - 2))
    precision = data.draw(st.sampled_from(["float32", "float64"]))
    seed = data.draw(st.integers(0, 99))
    net = MLP(widths, hidden, loss="squared_error", precision=precision, backend="numpy", seed=seed)
    rng = np.random.default_rng(seed)
    for layer in net.layers:
        layer.b[...] = rng.normal(size=layer.b.shape)
    x = rng.normal(size=(7, widths[0])).astype(precision)
    check_both_directions(net, x, tmp_path_factory.mktemp("files") / "m.safetensors")


@pytest.mark.filterwarnings("ignore:.*carries no digest")
def test_types_of_torch(tmp_path):
    path, module = tmp_path / "m.safetensors", torch.nn.Sequential(torch.nn.Linear(3, 2))
    for cast, precision in (("bfloat16", "float32"), ("half", "float32"), ("double", "float64")):
        getattr(module, cast)()
        save_file(module.state_dict(), path)
        net = MLP.load(path, backend="numpy")
        assert net.precision == precision
        np.testing.assert_array_equal(net.layers[0].W, module[0].weight.double().detach().numpy())
    assert MLP.load(path, backend="numpy", precision="float32").precision == "float32"
    save_file({"0.weight": module[0].weight.to(torch.float8_e4m3fn)}, path)
    with pytest.raises(CheckpointError, match="0.weight is of type F8_E4M3, which NumPy lacks"):
        MLP.load(path)
