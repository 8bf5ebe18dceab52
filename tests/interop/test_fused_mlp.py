"""FusedMLP behaves as torch.nn.Sequential(Linear, activation, …): results, gradients, files."""

import copy
import io
import pickle

import pytest

from gpumlp import ACTIVATIONS, Activation
from tests.support.refusal import refusal

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

from gpumlp.interop import torch_ops  # noqa: E402
from gpumlp.interop.torch import FusedMLP, linear_activation  # noqa: E402

BAR = 1e-10
WIDTHS = [5, 13, 7, 4]


def pair(activation="relu", output="identity", dtype=torch.float64, widths=WIDTHS):
    """A FusedMLP and torch's Sequential of the same modules' copies."""
    torch.manual_seed(3)
    fused = FusedMLP(widths, activation, output, dtype=dtype)
    return fused, nn.Sequential(*copy.deepcopy(list(fused)))


def x_of(*shape, dtype=torch.float64, seed=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def results(module, x):
    """ŷ, ∂/∂x and every parameter's gradient."""
    y = module(x)
    of = [x, *module.parameters()]
    return [y.detach(), *torch.autograd.grad((y.double() ** 2).sum(), of)]


def error(got, want):
    """The largest deviation, relative to the largest entry, of all tensors."""
    assert [(a.shape, a.dtype) for a in got] == [(b.shape, b.dtype) for b in want]
    return max(
        float((a - b).abs().max() / b.abs().max().clamp(min=1e-6))
        for a, b in zip(got, want, strict=True)
    )


@pytest.mark.parametrize("f", ACTIVATIONS)
def test_agrees_with_sequential_in_float64(f):
    output = "identity" if f in ("relu", "exponential") else f
    hidden = [f, "tanh" if f == "exponential" else f]  # exp(exp(z)) is beyond any bar
    fused, plain = pair(hidden, output)
    for shape in ((9, 5), (1, 5), (2, 3, 5)):
        x = x_of(*shape)
        assert error(results(fused, x), results(plain, x)) < BAR


def test_entry_with_other_parameters():
    f = [ACTIVATIONS["leaky_relu"].set(slope=0.3), ACTIVATIONS["selu"].set(alpha=1.2)]
    fused, plain = pair(f)
    assert error(results(fused, x_of(9, 5)), results(plain, x_of(9, 5))) < BAR
    assert "negative_slope=0.3" in repr(fused)
    assert "alpha=1.2" in repr(fused)


def test_names_and_initial_weights_are_those_of_sequential():
    torch.manual_seed(0)
    fused = FusedMLP([5, 6, 2])
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2))
    assert list(fused.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    for name, a in plain.state_dict().items():
        assert torch.equal(fused.state_dict()[name], a)
    doubled = {name: 2 * a for name, a in plain.state_dict().items()}
    assert str(fused.load_state_dict(doubled, strict=True)) == "<All keys matched successfully>"
    plain.load_state_dict(fused.state_dict(), strict=True)
    x = x_of(3, 5, dtype=torch.float32)
    assert error([fused(x).detach()], [plain(x).detach()]) < 1e-6


@pytest.mark.parametrize(("optimizer", "lr"), [("SGD", 0.5), ("AdamW", 0.03), ("LBFGS", 0.3)])
def test_torch_optimizers(optimizer, lr):
    both, x = pair("gelu"), x_of(30, 5).detach()
    y = torch.arange(30) % 4
    for module in both:
        step = getattr(torch.optim, optimizer)(module.parameters(), lr=lr)

        def closure(module=module, step=step):
            step.zero_grad()
            J = F.cross_entropy(module(x), y)
            J.backward()
            return J

        first = closure().item()
        for _ in range(20):
            step.step(closure)
        assert closure().item() < 0.95 * first
    for a, b in zip(both[0].parameters(), both[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_copies_and_pickles():
    fused, x = pair("silu", "softmax")[0], x_of(4, 5)
    want = results(fused, x)
    saved = io.BytesIO()
    torch.save(fused, saved)
    saved.seek(0)
    copies = [
        copy.deepcopy(fused), pickle.loads(pickle.dumps(fused)),
        torch.load(saved, weights_only=False),
    ]  # fmt: skip
    with torch.no_grad():
        fused[0].weight.zero_()
    for other in copies:
        assert isinstance(other, FusedMLP)
        assert error(results(other, x), want) == 0


@pytest.mark.parametrize("f", [nn.ELU(), nn.SELU(), nn.LeakyReLU(0.2), nn.Softplus(), nn.GELU()])
def test_a_module_that_overwrites_the_output_of_an_activation(f):
    modules = nn.Linear(5, 7), f, nn.ReLU(inplace=True), nn.Linear(7, 4)
    plain = nn.Sequential(*modules).double()
    fused, x = FusedMLP.from_sequential(copy.deepcopy(plain)), x_of(9, 5)
    assert error(results(fused, x), results(plain, x)) < BAR


@pytest.mark.parametrize(
    ("dtype", "bar"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05), (torch.float16, 0.01)]
)
def test_cast_to_another_dtype(dtype, bar):
    fused, plain = pair("tanh")
    x = x_of(9, 5)
    want = [a.to(dtype) for a in results(plain, x)]
    assert error(results(fused.to(dtype), x.detach().to(dtype).requires_grad_()), want) < bar
    refusal(
        TypeError, lambda: fused(x), "x is torch.float64 on cpu but the layer is", "x.to(weight"
    )


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_autocast_dtypes_are_those_of_sequential(kind):
    fused, plain = pair("silu", dtype=torch.float32)
    x = x_of(9, 5, dtype=torch.float32)
    with torch.autocast("cpu", kind):
        got, want = results(fused, x), results(plain, x)
        assert got[0].dtype == kind
        assert got[1].dtype == torch.float32  # gradients have the parameters' dtype
    assert error(got, want) < (0.05 if kind == torch.bfloat16 else 0.01)
    with torch.autocast("cpu", enabled=False):
        assert fused(x).dtype == torch.float32
    double = pair("silu")[0]
    with torch.autocast("cpu", kind):
        assert double(x_of(9, 5)).dtype == torch.float64  # as with torch's Linear


def test_no_grad_and_frozen_layers():
    fused, plain = pair("mish")
    x = x_of(9, 5)
    with torch.no_grad():
        assert error([fused(x)], [plain(x)]) < BAR
    with torch.inference_mode():
        assert error([fused(x)], [plain(x)]) < BAR
    for module in (fused, plain):
        module[0].requires_grad_(False)
        module(x.detach()).sum().backward()
        assert module[0].weight.grad is None
    assert (
        error([p.grad for p in fused[2:].parameters()], [p.grad for p in plain[2:].parameters()])
        < BAR
    )


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # inductor's own
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_as_one_graph(backend):
    fused, plain = pair(["gelu", "leaky_relu"], "softmax")
    compiled = torch.compile(fused, fullgraph=True, backend=backend)
    for rows in (9, 4, 1):
        x = x_of(rows, 5)
        assert error(results(compiled, x), results(plain, x)) < BAR
    with torch.no_grad():
        assert error([compiled(x)], [plain(x)]) < BAR


def test_exports_with_any_number_of_rows():
    fused, plain = pair("gelu")
    rows = torch.export.Dim("rows")
    program = torch.export.export(fused, (x_of(9, 5).detach(),), dynamic_shapes=({0: rows},))
    for m in (9, 4):
        x = x_of(m, 5).detach()
        assert error([program.module()(x).detach()], [plain(x).detach()]) < BAR


def test_a_symbolic_trace_has_torchs_own_modules():
    fused, plain = pair("gelu")
    x = x_of(9, 5).detach()
    traced = torch.fx.symbolic_trace(nn.Sequential(fused, nn.Tanh()))
    assert error([traced(x).detach()], [plain(x).detach().tanh()]) < BAR


# ---- any Sequential -----------------------------------------------------------------------------


def mixed_sequential():
    """A Sequential with layers that cannot be fused: no bias, foreign modules, other settings."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(6, 8, bias=False), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 8),
        nn.Softplus(beta=2.0), nn.Linear(8, 4), nn.Linear(4, 4), nn.Softmax(dim=0),
        nn.Sequential(nn.Linear(4, 3), nn.ELU(0.7)), nn.Linear(3, 3), nn.Dropout(0.5), nn.Tanh(),
    ).double()  # fmt: skip


def test_from_any_sequential(monkeypatch):
    plain = mixed_sequential().eval()
    fused = FusedMLP.from_sequential(plain)
    assert list(fused.state_dict()) == list(plain.state_dict())
    assert fused[1].weight is plain[1].weight
    assert not fused.training
    x, calls, layer = x_of(7, 2, 3), [], torch_ops.layer
    want = results(plain, x)
    monkeypatch.setattr(torch_ops, "layer", lambda *a: calls.append(a[3]) or layer(*a))
    assert error(results(fused, x), want) < BAR
    assert calls == ["gelu_erf", "identity", "identity", "identity", "identity"]


def test_repeated_module():
    f, x = nn.ReLU(), x_of(9, 5)
    plain = nn.Sequential(nn.Linear(5, 6), f, nn.Linear(6, 4), f).double()
    fused = FusedMLP.from_sequential(plain)
    assert len(fused) == 4
    assert error(results(fused, x), results(plain, x)) < BAR


def test_changed_sequence():
    fused, plain = pair()
    x = x_of(9, 5)
    for module in (fused, plain):
        module[1] = nn.Tanh()
        module.append(nn.Sigmoid())
    assert error(results(fused, x), results(plain, x)) < BAR
    part = fused[:3]
    assert isinstance(part, FusedMLP)
    assert error([part(x).detach()], [plain[:3](x).detach()]) < BAR


def test_hooks_and_parametrizations_are_called():
    fused, plain = pair("tanh")
    x, seen = x_of(9, 5), []
    for module in (fused, plain):
        module[0].register_forward_hook(lambda m, args, out: out + 1)
        module[3].register_forward_pre_hook(lambda m, args: seen.append(args[0].shape))
        nn.utils.parametrizations.weight_norm(module[4])
    assert error(results(fused, x), results(plain, x)) < BAR
    assert seen == [(9, 7)] * 2


def test_hooks_of_all_modules_are_called():
    fused, plain = pair("tanh")
    x = x_of(9, 5)
    hook = nn.modules.module.register_module_forward_hook(
        lambda m, args, out: 2 * out if isinstance(m, nn.Linear) else None
    )
    try:
        assert error(results(fused, x), results(plain, x)) < BAR
    finally:
        hook.remove()


@pytest.mark.parametrize("i", [0, 1])
def test_a_forward_of_a_module_s_own_is_called(i):
    """As libraries that quantise or move modules assign it."""
    fused, plain = pair("tanh")
    for module in (fused, plain):
        own = module[i].forward
        module[i].forward = lambda x, own=own: own(x) + 1
    assert error(results(fused, x_of(9, 5)), results(plain, x_of(9, 5))) < BAR


def test_invalid_arguments_raise():
    fused = FusedMLP([5, 4])
    x = torch.ones(3, 6)
    refusal(ValueError, lambda: fused(x), "x has shape (3, 6) but the layer's weight has (4, 5)")
    refusal(ValueError, lambda: FusedMLP([5]), "widths must list inputs")
    refusal(ValueError, lambda: FusedMLP([5, 4, 2], "geloo"), "unknown activation 'geloo'; did you")
    refusal(ValueError, lambda: FusedMLP([5, 4, 2], ["relu"] * 2), "activation has 2 entries but")
    own = Activation("mine", f=lambda z: z, df=lambda z, h: 1.0)
    refusal(
        ValueError, lambda: FusedMLP([5, 4, 2], own), "activation 'mine' is not one of gpumlp's"
    )
    refusal(
        TypeError, lambda: FusedMLP.from_sequential(nn.Linear(2, 3)),
        "module must be a torch.nn.Sequential, got Linear",
    )  # fmt: skip
    shifted = type("Shifted", (nn.Sequential,), {"forward": lambda self, x: x + 1})
    refusal(
        TypeError, lambda: FusedMLP.from_sequential(shifted(nn.Linear(2, 3))),
        "got Shifted with a forward of its own; call one",
    )  # fmt: skip
    assert isinstance(FusedMLP.from_sequential(fused), FusedMLP)
    meta = FusedMLP([5, 4], device="meta")
    assert meta(torch.ones(3, 5, device="meta")).shape == (3, 4)


def test_linear_activation_without_bias():
    x, linear = x_of(9, 5), nn.Linear(5, 4, bias=False).double()
    got = linear_activation(x, linear.weight, None, "elu", 0.5)
    torch.testing.assert_close(got, F.elu(linear(x), 0.5), rtol=1e-12, atol=1e-14)
