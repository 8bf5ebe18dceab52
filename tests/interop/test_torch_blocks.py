"""Norms, gates, dropout and skips to torch and back."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpumlp import MLP, Ensemble, Trainer
from gpumlp.functions.stages import GATES, NORMS
from tests.support.blocks import MANY, WIDTHS, batch_network, random_network
from tests.support.refusal import refusal

torch = pytest.importorskip("torch")
from safetensors.torch import save_file  # noqa: E402  (needs torch)
from torch import fx, nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

from gpumlp.interop.torch import FusedMLP, from_torch, to_torch  # noqa: E402

RNG = np.random.default_rng(4)
X = RNG.normal(size=(9, 6))
LABELS = RNG.integers(0, 3, 9)
NEAR = {"float64": 1e-12, "float32": 1e-6}


def tamed(net: MLP) -> MLP:
    """The network with such variances that batch norm leaves small numbers, for the exponential."""
    net.assign({k: a + 1e3 * k.endswith("_var") for k, a in net.tensors().items()})
    return net


def network(precision: str = "float64", **blocks: Any) -> MLP:
    net = MLP(WIDTHS, "gelu", backend="numpy", precision=precision, seed=1, **MANY | blocks)
    net.assign({k: v + 0.1 * RNG.normal(size=v.shape) for k, v in net.tensors().items()})
    return net


def outputs(module: Any, x: Any) -> Any:
    dtype = next(module.parameters()).dtype
    return module(torch.tensor(x, dtype=dtype)).detach().numpy()


def assert_same(net: MLP, module: Any, x: Any) -> None:
    want = net.forward(x.astype(net.precision))
    near = NEAR[net.precision] * float(np.abs(want).max())
    np.testing.assert_allclose(outputs(module, x), want, rtol=0, atol=near)


# ---- to torch ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [random_network, batch_network])
@pytest.mark.parametrize("seed", range(16))
def test_networks_with_blocks_there_and_back(seed: int, make: Any) -> None:
    """Outputs, names, pickles and the network that comes back."""
    net = make(seed)
    x = RNG.normal(size=(7, net.widths[0]))
    module = to_torch(net).eval()
    assert_same(net, module, x)
    names = {name for name in module.state_dict() if not name.endswith("num_batches_tracked")}
    assert names == set(net.tensors())
    saved = pickle.dumps(module)
    assert b"gpumlp" not in saved
    for other in (pickle.loads(saved), copy.deepcopy(module)):
        assert np.array_equal(outputs(other, x), outputs(module, x))
    back = from_torch(module, "numpy")
    assert back.blocks == net.blocks
    assert back.f == net.f
    assert np.array_equal(back.forward(x), net.forward(x))


@pytest.mark.parametrize("f", GATES)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("precision", NEAR)
def test_every_gate_and_norm(precision: str, norm: str, f: str) -> None:
    own = NORMS[norm].set(eps=0.01)
    net = network(precision, norm=own, gated=f, dropout=0.0, residual=2)
    net = tamed(net) if f == "exponential" else net
    module = to_torch(net).eval()
    assert_same(net, module, X)
    back = from_torch(module, "numpy")
    assert back.precision == precision
    assert back.blocks == net.blocks


@pytest.mark.parametrize("make", [random_network, batch_network])
@pytest.mark.parametrize("seed", range(8))
def test_a_file_of_torch_shows_widths_and_kinds_of_norms(
    seed: int, make: Any, tmp_path: Path
) -> None:
    """A gate's W has two rows for each output, and torch's batch norm has a counter."""
    net = make(seed)
    save_file(to_torch(net).state_dict(), tmp_path / "m.safetensors")
    config = net.config()
    for name in ("widths", "norm", "backend", "seed"):
        config.pop(name, None)
    with pytest.warns(UserWarning, match="carries no digest"):
        found = MLP.load(tmp_path / "m.safetensors", "numpy", **config)
    assert found.config() == {**net.config(), "seed": 0}
    x = RNG.normal(size=(9, net.widths[0]))
    np.testing.assert_array_equal(found.forward(x), net.forward(x))


def test_a_training_of_torch_goes_on_here() -> None:
    """In training mode, BatchNorm1d has the statistics of the minibatch, and averages them."""
    norm = NORMS["batch"].set(momentum=0.3)
    net = MLP([6, 8, 8, 3], "tanh", norm=norm, backend="numpy", precision="float64")
    module = to_torch(net).train()
    sgd = torch.optim.SGD(module.parameters(), lr=0.1)
    trainer = Trainer(net, "sgd", lr=0.1, batch_size=9, shuffle=False)
    for _ in range(3):
        sgd.zero_grad()
        nn.functional.cross_entropy(module(torch.tensor(X)), torch.tensor(LABELS)).backward()
        sgd.step()
        trainer.fit(X, LABELS, 1, progress=False)
        for name, tensor in module.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                np.testing.assert_allclose(net.tensors()[name], tensor, 1e-10, 1e-12)
    back = from_torch(module, "numpy")
    assert back.blocks == net.blocks
    assert_same(back, module.eval(), X)
    plain = nn.BatchNorm1d(4, affine=False)
    with pytest.warns(UserWarning, match="gets") as warned:
        back = from_torch(sequential(nn.Linear(6, 4), nn.ReLU(), plain, nn.Linear(4, 3)), "numpy")
    assert len(warned) == 2
    assert back.tensors()["2.norm.weight"].tolist() == [1] * 4


def test_gradients_without_dropout_are_those_of_the_network() -> None:
    """In training mode with p = 0, where autograd goes through all modules."""
    net = network()
    module = to_torch(net).train()
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    J = nn.functional.cross_entropy(module(torch.tensor(X)), torch.tensor(LABELS))
    J.backward()
    ours, grads = net.cost_and_gradients(X, LABELS)
    np.testing.assert_allclose(ours, J.item(), rtol=1e-12)
    found = dict(module.named_parameters())
    assert set(found) == set(grads.named)
    for name, want in grads.named.items():
        scale = float(np.abs(want).max())
        np.testing.assert_allclose(found[name].grad, want, 0, 1e-12 * scale, err_msg=name)


def test_dropout_of_torch_has_the_same_place_and_probability() -> None:
    """The mean over many masks of a linear network's outputs is the output without masks."""
    net = MLP([6, 40, 3], "identity", dropout=0.3, backend="numpy", precision="float64", seed=2)
    module = to_torch(net)
    assert type(module) is nn.Sequential
    assert list(module.state_dict()) == list(net.tensors())
    torch.manual_seed(0)
    drops = np.stack([outputs(module.train(), X) for _ in range(4000)])
    assert_same(net, module.eval(), X)
    h, W = X @ net.layers[0].W.T, net.layers[1].W
    variance = 0.3 / 0.7 * (h**2) @ (W**2).T  # of Σⱼ Wᵢⱼ D(h)ⱼ
    np.testing.assert_allclose(drops.var(axis=0), variance, rtol=0.2)
    error = np.abs(drops.mean(axis=0) - net.forward(X)) / np.sqrt(variance / len(drops))
    assert error.max() < 5
    back = from_torch(module, "numpy")
    assert back.blocks == net.blocks


def test_an_ensemble_predicts_the_mean_of_its_members() -> None:
    ensemble = Ensemble(3, WIDTHS, "gelu", backend="numpy", precision="float64", **MANY)
    module = to_torch(ensemble).eval()
    np.testing.assert_allclose(outputs(module, X), ensemble.predict(X), rtol=1e-12)
    assert "members.1.4.skip.weight" in module.state_dict()
    assert b"gpumlp" not in pickle.dumps(module)


def test_a_compiled_and_an_exported_module_have_the_same_outputs() -> None:
    net = network()
    module, x = to_torch(net).eval(), torch.tensor(X)
    for other in (
        torch.export.export(module, (x,)).module(), torch.compile(module, backend="eager"),
    ):  # fmt: skip
        np.testing.assert_allclose(other(x).detach(), net.forward(X), rtol=1e-11, atol=1e-13)


def test_a_norm_of_ones_own_raises() -> None:
    own = type(NORMS["rms"])("mine", *(getattr(NORMS["rms"], n) for n in ("forward", "vjp")),
                             initial=(1.0,), params={"eps": 1e-5})  # fmt: skip
    net = network(norm=own)
    refusal(ValueError, lambda: to_torch(net), "norm 'mine' is not one of gpumlp's", "layer, rms")


# ---- from torch ----------------------------------------------------------------------------------


def sequential(*modules: nn.Module) -> Any:
    torch.manual_seed(3)
    whole = nn.Sequential(*modules).double()
    with torch.no_grad():
        for each in whole.parameters():
            each += 0.2 * torch.randn_like(each)
    return whole


def test_a_sequential_with_norms_dropout_and_glu() -> None:
    module = sequential(
        nn.Linear(6, 8), nn.GELU(), nn.Dropout(0.1), nn.LayerNorm(8, eps=1e-3), nn.Linear(8, 10),
        nn.GLU(), nn.Sequential(nn.Identity(), nn.RMSNorm(5)), nn.Linear(5, 7), nn.Dropout(0.4),
        nn.Linear(7, 4), nn.Tanh(), nn.LayerNorm(4), nn.Linear(4, 3),
    )  # fmt: skip
    net = from_torch(module, "numpy")
    assert_same(net, module.eval(), X)
    norms = [b.norm and (b.norm.name, b.norm.params["eps"]) for b in net.blocks]
    of_torch = torch.finfo(torch.float64).eps
    assert norms == [None, ("layer", 1e-3), ("rms", of_torch), None, ("layer", 1e-5)]
    assert [b.dropout for b in net.blocks] == [0.1, 0.0, 0.4, 0.0, 0.0]
    assert [b.gate and b.gate.name for b in net.blocks] == [None, "gate of sigmoid", *[None] * 3]
    assert from_torch(module, "numpy", dropout=0.5).blocks[0].dropout == 0.5


@pytest.mark.parametrize("norm", [nn.LayerNorm(8, elementwise_affine=False),
                                  nn.LayerNorm(8, bias=False),
                                  nn.RMSNorm(8, elementwise_affine=False)], ids=repr)  # fmt: skip
def test_a_norm_without_parameters_gets_them(norm: nn.Module) -> None:
    module = sequential(nn.Linear(6, 8), nn.ReLU(), norm, nn.Linear(8, 3))
    with pytest.warns(UserWarning, match="2 has no (weight|bias); it gets (ones|zeros)") as warned:
        net = from_torch(module, "numpy")
    assert warned[0].filename == __file__
    assert_same(net, module, X)


class Residual(nn.Module):
    """A module of a user: two skips, one of them by a Linear, and a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 8), nn.Linear(8, 16), nn.Linear(8, 5)
        self.norms = nn.ModuleList([nn.LayerNorm(8), nn.RMSNorm(8)])
        self.short, self.last = nn.Linear(8, 5, bias=False), nn.Linear(5, 3)
        self.silu, self.drop = nn.SiLU(), nn.Dropout(0.2)

    def forward(self, x: Any) -> Any:
        h = self.silu(self.first(x))
        a, b = torch.chunk(self.second(self.norms[0](h)), 2, dim=-1)
        h = h + self.drop(a * self.silu(b))
        return self.last(torch.add(self.short(h), self.third(self.norms[1](h))))


def test_a_users_module_is_taken_over_from_its_graph() -> None:
    torch.manual_seed(5)
    module = Residual().double()
    graph = fx.symbolic_trace(module)
    with pytest.warns(UserWarning, match="short has no bias"):
        net = from_torch(graph, "numpy")
    assert_same(net, module.eval(), X)
    assert [b.skip for b in net.blocks] == [0, 1, 1, 0]
    assert [b.projects for b in net.blocks] == [False, False, True, False]
    assert [b.dropout for b in net.blocks] == [0, 0.2, 0, 0]


def test_a_changed_module_is_read_as_it_is() -> None:
    module = to_torch(network())
    module.get_submodule("0.dropout").p = 0.0
    module.get_submodule("4.norm").eps = 0.25
    with torch.no_grad():
        module.get_parameter("2.norm.bias").add_(1)
    net = from_torch(module, "numpy")
    assert_same(net, module.eval(), X)
    assert net.blocks[0].dropout == 0


def graph(forward: Any, **modules: nn.Module) -> Any:
    """A GraphModule of modules and of what `forward(self, x)` does with them."""
    kind = type("Own", (nn.Module,), {"forward": forward})
    whole = kind()
    for name, each in modules.items():
        whole.add_module(name, each)
    return fx.symbolic_trace(whole)


A, B, C = ({"a": nn.Linear(3, 4), "b": nn.Linear(4, 4), "c": nn.Linear(4, 2)}[k] for k in "abc")
ABC = {"a": A, "b": B, "c": C, "f": nn.SiLU(), "norm": nn.LayerNorm(4), "drop": nn.Dropout()}


def halves(order: str) -> Any:
    def forward(self: Any, x: Any) -> Any:
        a, b = self.b(self.a(x)).chunk(2, -1)
        return self.last(a + b if order == "a+b" else self.f(a) * b)

    return graph(forward, **ABC, last=nn.Linear(2, 2))


def irregular(self: Any, x: Any) -> Any:
    h = self.a(x)
    h = self.e(self.b(h)) + h
    return self.c(self.d(h) + h)


def keeps_width(self: Any, x: Any) -> Any:
    h = self.f(self.a(x))
    return self.c(self.f(self.b(h)) + self.e(h))


INVALID: dict[str, Any] = {
    "norm first": (
        nn.Sequential(nn.LayerNorm(3), A, nn.ReLU(), C), TypeError, "0 is a LayerNorm, which",
        "normalises the inputs of the second Linear and later",
    ),
    "norm last": (nn.Sequential(A, nn.LayerNorm(4)), TypeError, "1 is a LayerNorm, which"),
    "norm before an activation": (
        nn.Sequential(A, nn.RMSNorm(4), nn.ReLU(), C), TypeError, "1 is a RMSNorm, which gpumlp",
        "and not those of an activation, 2",
    ),
    "norm of two axes": (
        nn.Sequential(A, nn.LayerNorm((2, 4)), C), TypeError, "1 is a LayerNorm", "the last axis",
    ),
    "batch norm": (
        nn.Sequential(A, nn.BatchNorm1d(4), nn.ReLU(), C), TypeError,
        "1 is a BatchNorm1d, which gpumlp", "and not those of an activation, 2",
    ),
    "batch norm without statistics": (
        nn.Sequential(A, nn.BatchNorm1d(4, track_running_stats=False), C), TypeError,
        "1 is a BatchNorm1d", "by running statistics with a momentum",
    ),
    "batch norm without a momentum": (
        nn.Sequential(A, nn.BatchNorm1d(4, momentum=None), C), TypeError, "with a momentum",
        "set one: module.get_submodule('1').momentum = 0.1",
    ),
    "group norm": (
        nn.Sequential(A, nn.GroupNorm(2, 4), C), TypeError, "1 is a GroupNorm, which is not",
        "known: BatchNorm1d, Dropout, ELU", "LayerNorm, LeakyReLU, Linear, Mish, RMSNorm",
    ),
    "dropout of x": (
        nn.Sequential(nn.Dropout(), A, nn.ReLU(), C), TypeError, "0 is a Dropout, which gpumlp",
        "after the activation of a hidden layer", "call module.eval() first",
    ),
    "dropout before an activation": (
        nn.Sequential(A, nn.Dropout(), nn.ReLU(), C), TypeError, "1 is a Dropout, which",
    ),
    "dropout of a norm": (
        nn.Sequential(A, nn.LayerNorm(4), nn.Dropout(), C), TypeError, "2 is a Dropout, which",
    ),
    "dropout twice": (
        nn.Sequential(A, nn.Dropout(), nn.Dropout(), C), TypeError, "2 is a Dropout, which",
    ),
    "alpha dropout": (
        nn.Sequential(A, nn.SELU(), nn.AlphaDropout(), C), TypeError, "2 is a AlphaDropout, which",
    ),
    "shared norm": (
        nn.Sequential(A, ABC["norm"], B, ABC["norm"], C), ValueError,
        "3 shares its weight with 1, but each layer", "copy.deepcopy",
    ),
    "gate of the output": (
        nn.Sequential(A, nn.GLU()), ValueError, "0, the last Linear, has a gate", "add a Linear",
    ),
    "skip at the output": (
        graph(lambda self, x: (h := self.a(x)) + self.b(h), **ABC), ValueError,
        "b, the last Linear, has a skip",
    ),
    "skip of x": (
        graph(lambda self, x: self.c(x + self.b(x)), **ABC), TypeError, "add is a call of add",
        "known: modules, h + h'",
    ),
    "skip after a norm": (
        graph(lambda self, x: self.c((n := self.norm(self.a(x))) + self.b(n)), **ABC), TypeError,
        "add is a call of add",
    ),
    "activation after an addition": (
        graph(lambda self, x: self.c(self.f((h := self.a(x)) + self.b(h))), **ABC), ValueError,
        "f, SiLU, is after an addition",
    ),
    "f of the first half": (
        halves("fa*b"), ValueError, "f, SiLU, is on the first half of a gate, which is a * f(b)",
    ),
    "sum of halves": (halves("a+b"), TypeError, "add is a call of add"),
    "half a Linear": (
        graph(lambda self, x: self.last(self.b(self.a(x)).chunk(2, -1)[0]), **ABC,
              last=nn.Linear(2, 2)), ValueError, "a half of b is not used in a gate",
    ),
    "both halves to a module": (
        graph(lambda self, x: self.c(self.b(self.a(x)).chunk(2, -1)), **ABC), TypeError,
        "c is a call of c",
    ),
    "a named argument": (
        graph(lambda self, x: self.c(input=self.a(x)), **ABC), TypeError, "c is a call of c",
    ),
    "several outputs": (
        graph(lambda self, x: (self.a(x), self.b(self.a(x))), **ABC), TypeError,
        "module returns several arrays",
    ),
    "a function": (
        graph(lambda self, x: self.c(torch.relu(self.a(x))), **ABC), TypeError,
        "relu is a call of relu, which is not known here; known: modules",
    ),
    "irregular skips": (
        graph(irregular, **ABC, d=nn.Linear(4, 4), e=nn.Linear(4, 4)), ValueError,
        "skips of [1, 2] layers are not those of a gpumlp.MLP", "residual=r",
    ),
    "a Linear twice": (
        graph(lambda self, x: self.b(self.f(self.b(self.a(x)))), **ABC), ValueError,
        "b is called twice", "give the second call its own: copy.deepcopy of it",
    ),
    "a Linear of a skip that keeps the width": (
        graph(keeps_width, **ABC, e=nn.Linear(4, 4)), ValueError,
        "is a Linear of a skip that keeps the width 4;", "leave it out",
    ),
    "another module": (
        ABC["f"], TypeError, "module must be a torch.nn.Sequential, got SiLU",
        "torch.fx.symbolic_trace(module)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", INVALID)
def test_what_cannot_be_taken_over_raises(case: str) -> None:
    module, error, *said = INVALID[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refusal(error, lambda: from_torch(module, "numpy"), *said)


DERIVED: dict[str, Any] = {  # how parameters come to depend on others, and what the error says
    "parametrized": (nn.utils.parametrizations.weight_norm, "parametrize.remove_parametrizations"),
    "spectral": (nn.utils.parametrizations.spectral_norm, "parametrize.remove_parametrizations"),
    "pruned": (lambda part: prune.l1_unstructured(part, "weight", 3), "prune.remove"),
    "weight norm": (nn.utils.weight_norm, "remove_weight_norm"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch's older weight_norm
@pytest.mark.parametrize("case", DERIVED)
def test_parameters_that_are_computed_from_others_are_made_the_modules_own(case: str) -> None:
    """Between a step and the next call of the module, a Linear has a weight of before the step."""
    derive, says = DERIVED[case]
    module = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.LayerNorm(4), nn.Linear(4, 3))
    derive(module[0])
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    module(torch.ones(8, 6)).square().sum().backward()
    optimizer.step()
    with pytest.raises(TypeError, match="0 computes its weight from other parameters") as caught:
        from_torch(module.eval(), "numpy")
    call = str(caught.value).rpartition("; call ")[2]
    assert says in call
    exec(call, {"torch": torch, "module": module})
    assert_same(from_torch(module, "numpy"), module, X)


def test_batch_norm_before_an_activation_is_fused_with_its_linear() -> None:
    """What the errors advise; also after the last Linear."""
    layers = [nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3), nn.BatchNorm1d(3)]
    module = sequential(*layers).eval()
    for norm in (layers[1], layers[4]):
        for name in ("running_mean", "running_var", "weight", "bias"):
            getattr(norm, name).data.uniform_(0.5, 2)
    advice = "torch.nn.utils.fusion.fuse_linear_bn_eval(linear, norm) makes a Linear of"
    refusal(TypeError, lambda: from_torch(module, "numpy"), "activation, 2", f"{advice} 0 and 1")
    fuse = nn.utils.fusion.fuse_linear_bn_eval
    half = nn.Sequential(fuse(layers[0], layers[1]), *layers[2:])
    refusal(TypeError, lambda: from_torch(half, "numpy"), f"{advice} 2 and 3")
    fused = nn.Sequential(*half[:2], fuse(layers[3], layers[4]))
    assert_same(from_torch(fused, "numpy"), module, X)


def test_a_momentum_is_set_where_there_is_none() -> None:
    module = sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, momentum=None), nn.Linear(4, 3)).eval()
    with pytest.raises(TypeError, match="set one: ") as caught:
        from_torch(module, "numpy")
    exec(str(caught.value).rpartition("set one: ")[2], {"module": module})
    assert_same(from_torch(module, "numpy"), module, X)


def test_hooks_are_left_out_with_a_warning() -> None:
    parts = nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)
    for of_graph in (False, True):
        module: Any = sequential(nn.Sequential(*copy.deepcopy(parts[:2])), parts[2])
        plain = copy.deepcopy(module)
        module[0][1].register_forward_hook(lambda *a: a[-1] + 1)
        module[0].register_forward_pre_hook(lambda *a: None)
        if of_graph:
            module = fx.symbolic_trace(module)
        with pytest.warns(UserWarning, match="has forward hooks, which are left out") as warned:
            net = from_torch(module, "numpy")
        assert [str(each.message).split()[0] for each in warned] == ["0", "0.1"][of_graph:]
        assert_same(net, plain, X)


def test_dropout_in_another_place_is_left_out_in_eval_mode() -> None:
    module = sequential(
        nn.Dropout(0.1), nn.Linear(6, 4), nn.Dropout(0.2), nn.ReLU(), nn.Dropout(0.3),
        nn.Linear(4, 3), nn.Dropout(0.4),
    ).eval()  # fmt: skip
    with pytest.warns(UserWarning, match="left out: gpumlp trains without it") as warned:
        net = from_torch(module, "numpy")
    assert [str(each.message)[0] for each in warned] == ["0", "2", "6"]
    assert net.blocks[0].dropout == 0.3
    assert_same(net, module, X)


# ---- FusedMLP ------------------------------------------------------------------------------------


def test_a_fused_network_with_dropout_has_the_masks_of_torch() -> None:
    torch.manual_seed(6)
    fused = FusedMLP([6, 8, 7, 3], ["gelu", "tanh"], dropout=[0.3, 0.0], dtype=torch.float64)
    plain = nn.Sequential(*copy.deepcopy(list(fused)))
    assert repr(plain[1]).count("Dropout(p=0.3") == 1
    assert list(fused.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight",
                                        "4.bias"]  # fmt: skip
    x = torch.tensor(X)
    results = []
    for module in (fused, plain):
        torch.manual_seed(7)
        h = module(x)
        results.append([h.detach(), *torch.autograd.grad((h**2).sum(), module.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)
    assert torch.equal(fused.eval()(x), fused(x))
    net = from_torch(fused, "numpy")
    assert net.blocks[0].dropout == 0.3
    assert_same(net, fused, X)


def test_a_fused_network_with_dropout_is_compiled_and_exported() -> None:
    torch.manual_seed(6)
    fused = FusedMLP([6, 8, 3], "gelu", dropout=0.3, dtype=torch.float64)
    x = torch.tensor(X)
    compiled = torch.compile(fused, backend="eager")
    results = []
    for module in (fused, compiled):
        torch.manual_seed(7)
        results.append(module(x).detach())
    assert torch.equal(*results)
    assert not torch.equal(results[0], fused.eval()(x))
    exported = torch.export.export(fused, (x,)).module()
    torch.testing.assert_close(exported(x), fused(x), rtol=1e-12, atol=1e-14)


def test_a_network_with_dropout_alone_can_be_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpumlp.interop import torch_ops

    net = MLP([6, 8, 3], "silu", dropout=0.2, backend="numpy", precision="float64")
    fused = FusedMLP.from_sequential(to_torch(net)).eval()
    calls, layer = [], torch_ops.layer
    monkeypatch.setattr(torch_ops, "layer", lambda *a: calls.append(a[3]) or layer(*a))
    assert_same(net, fused, X)
    assert calls == ["silu", "identity"]


def test_a_network_with_skips_cannot_be_fused() -> None:
    module = to_torch(network())
    refusal(
        TypeError, lambda: FusedMLP.from_sequential(module), "got Network", "from_torch(module)"
    )
    refusal(ValueError, lambda: FusedMLP([3, 4, 2], dropout=1.0), "dropout must be a number")
