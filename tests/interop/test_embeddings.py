"""Embeddings in torch, in ONNX and in files of torch: there and back."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from gpumlp import MLP, Ensemble
from tests.support.embeddings import EMBED, WIDTHS, examples, network
from tests.support.refusal import refusal

torch = pytest.importorskip("torch")
from torch import fx, nn  # noqa: E402

from gpumlp.interop.torch import from_torch, to_torch  # noqa: E402

X, LABELS = examples(40)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {}, "all": {"embed": {j: (3 + j, 1 + j) for j in range(6)}},
    "blocks": {"norm": ["layer", "rms"], "gated": "silu", "residual": True, "dropout": 0.2},
}  # fmt: skip
NEAR = {"float64": 1e-12, "float32": 1e-5}


def data(kind: str, precision: str = "float64") -> Any:
    return examples(40, KINDS[kind].get("embed"))[0].astype(precision)


def outputs(module: Any, x: Any) -> Any:
    return module(torch.tensor(x)).detach().numpy()


# ---- torch ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", NEAR)
@pytest.mark.parametrize("kind", KINDS)
def test_networks_there_and_back(kind: str, precision: str) -> None:
    """Outputs, gradients, names, pickles and the network that comes back."""
    net, x = network(precision=precision, **KINDS[kind]), data(kind, precision)
    module = to_torch(net).eval()
    want = net.forward(x)
    near = NEAR[precision] * float(np.abs(want).max())
    np.testing.assert_allclose(outputs(module, x), want, rtol=0, atol=near)
    assert set(module.state_dict()) == set(net.tensors())
    assert sum(type(each) is nn.Embedding for each in module.modules()) == len(net.embed.each)  # type: ignore[union-attr]
    saved = pickle.dumps(module)
    assert b"gpumlp" not in saved
    for other in (pickle.loads(saved), copy.deepcopy(module)):
        assert np.array_equal(outputs(other, x), outputs(module, x))
    nn.functional.cross_entropy(module(torch.tensor(x)), torch.tensor(LABELS)).backward()
    grads = net.cost_and_gradients(x, LABELS)[1].named
    for name, parameter in module.named_parameters():
        got, scale = grads[name], float(parameter.grad.abs().max())
        np.testing.assert_allclose(got, parameter.grad.numpy(), 0, 10 * NEAR[precision] * scale)
    back = from_torch(module, backend="numpy")
    assert back.embed == net.embed
    assert back.widths == net.widths
    assert np.array_equal(back.theta.flat, net.theta.flat)


def test_an_ensemble_in_torch() -> None:
    ensemble = Ensemble(2, WIDTHS, embed=EMBED, precision="float64", backend="numpy")
    np.testing.assert_allclose(outputs(to_torch(ensemble), X), ensemble.predict(X), rtol=1e-12)


class Own(nn.Module):
    """As somebody would write it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.color, self.size = nn.Embedding(7, 3, **settings), nn.Embedding(11, 5)
        self.layers = nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 3))

    def forward(self, x: Any) -> Any:
        parts = [x[:, [0, 2, 3, 5]], self.color(x[:, 1].long()), self.size(x[:, 4].long())]
        return self.layers(torch.cat(parts, dim=-1))


class Odd(Own):
    """With embeddings before the other columns."""

    def forward(self, x: Any) -> Any:
        parts = [self.color(x[:, 1].long()), self.size(x[:, 4].long()), x[:, [0, 2, 3, 5]]]
        return self.layers(torch.cat(parts, dim=1))


class Added(Own):
    """Embeddings that are added."""

    def forward(self, x: Any) -> Any:
        return self.color(x[:, 1].long()) + self.color(x[:, 2].long())


def test_a_module_of_ones_own() -> None:
    module = Own().double()
    net = from_torch(fx.symbolic_trace(module), backend="numpy")
    assert net.widths == (6, 9, 3)
    np.testing.assert_allclose(net.forward(X), outputs(module, X), rtol=1e-10)


def test_other_embeddings_raise() -> None:
    def read(module: nn.Module) -> Any:
        return lambda: from_torch(fx.symbolic_trace(module), backend="numpy")

    refusal(TypeError, read(Own(padding_idx=0)), "color is an Embedding with padding_idx")
    refusal(TypeError, read(Own(max_norm=1.0)), "color is an Embedding with max_norm")
    refusal(ValueError, read(Odd()), "another way", "known: torch.cat")
    refusal(TypeError, read(Added()), "not the input of its first Linear")
    shared = Own()
    memory = shared.get_parameter("layers.0.weight").detach().reshape(-1)
    shared.size.weight = nn.Parameter(memory[:55].view(11, 5))
    refusal(ValueError, read(shared), "shares its weight")


def test_files_of_torch(tmp_path: Any) -> None:
    """Without gpumlp's settings; the shapes say what is embedded."""
    from safetensors.torch import save_file

    net = network("numpy", "float32")
    save_file(to_torch(net).state_dict(), tmp_path / "torch.safetensors")
    with pytest.warns(UserWarning, match="no digest"):
        loaded = MLP.load(tmp_path / "torch.safetensors", backend="numpy", activation="gelu")
    assert loaded.embed == net.embed
    x = X.astype("float32")
    assert np.array_equal(loaded.forward(x), net.forward(x))


# ---- ONNX ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", NEAR)
@pytest.mark.parametrize("opset", [13, 18, 24])
@pytest.mark.parametrize("kind", KINDS)
def test_onnx(kind: str, opset: int, precision: str) -> None:
    pytest.importorskip("onnxruntime")
    from gpumlp.interop.onnx import export_onnx
    from tests.support import onnx_runs

    net, x = network(precision=precision, **KINDS[kind]), data(kind, precision)
    model, want = export_onnx(net, opset=opset), net.predict(x)
    for got in (each["predictions"] for each in onnx_runs.outputs(model, {"x": x})):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, 0, NEAR[precision] * float(np.abs(want).max()))
    names = {each.name for each in model.graph.initializer}
    assert set(net.tensors()) <= names


def test_an_ensemble_in_onnx() -> None:
    pytest.importorskip("onnxruntime")
    from gpumlp.interop.onnx import export_onnx
    from tests.support.onnx_runs import session

    ensemble = Ensemble(2, WIDTHS, embed=EMBED, precision="float64", backend="numpy")
    model = export_onnx(ensemble)
    (got,) = session(model).run(None, {"x": X})
    np.testing.assert_allclose(got, ensemble.predict(X), rtol=1e-10)
