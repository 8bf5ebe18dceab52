"""Activations as torch modules and back, and whole networks: `from_torch`, `to_torch`."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any, overload

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import Tensor, fx, nn

from gpumlp.backends import Backend, get_backend
from gpumlp.ensemble import Ensemble
from gpumlp.functions import ACTIVATIONS, Activation, Loss
from gpumlp.interop.torch_backend import HALVES, PRECISIONS
from gpumlp.network import MLP

Known = tuple[str, tuple[float, ...]]
"""The name of an activation and its parameters, in their order."""

DROPOUTS = (nn.Dropout, nn.AlphaDropout, nn.FeatureAlphaDropout)
THRESHOLD = 40.0  # from here on softplus(z) is z in float64; torch's default of 20 is less exact
SELU = tuple(ACTIVATIONS["selu"].params.values())


class Exponential(nn.Module):
    """exp(z), for which torch has no module."""

    def forward(self, z: Tensor) -> Tensor:
        """exp(z), of z's shape."""
        return torch.exp(z)


class ScaledELU(nn.Module):
    """scale · elu(z), for parameters other than those of torch.nn.SELU (1.67…, 1.05…)."""

    def __init__(self, alpha: float, scale: float) -> None:
        super().__init__()
        self.alpha, self.scale = alpha, scale

    def forward(self, z: Tensor) -> Tensor:
        """scale · elu(z), of z's shape."""
        return F.elu(z, self.alpha) * self.scale

    def extra_repr(self) -> str:
        """The parameters."""
        return f"alpha={self.alpha}, scale={self.scale}"


def _selu(alpha: float, scale: float) -> nn.Module:
    return nn.SELU() if (alpha, scale) == SELU else ScaledELU(alpha, scale)


MODULES: Mapping[str, Callable[..., nn.Module]] = {
    "identity": nn.Identity, "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU,
    "selu": _selu, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh,
    "softplus": lambda: nn.Softplus(threshold=THRESHOLD), "softsign": nn.Softsign, "silu": nn.SiLU,
    "gelu": lambda: nn.GELU("tanh"), "gelu_erf": nn.GELU, "mish": nn.Mish,
    "hard_swish": nn.Hardswish, "exponential": Exponential, "softmax": lambda: nn.Softmax(dim=-1),
}  # fmt: skip
# what a module computes; None if gpumlp does not have it. Subclasses may compute something else
KNOWN: Mapping[Any, Callable[[Any], Known | None]] = {
    nn.GELU: lambda m: ("gelu" if m.approximate == "tanh" else "gelu_erf", ()),
    nn.SELU: lambda m: ("selu", SELU),
    ScaledELU: lambda m: ("selu", (m.alpha, m.scale)) if m.alpha >= 0 and m.scale > 0 else None,
    nn.LeakyReLU: lambda m: (
        ("leaky_relu", (float(m.negative_slope),)) if m.negative_slope >= 0 else None
    ),
    nn.ELU: lambda m: ("elu", (float(m.alpha),)) if m.alpha >= 0 else None,
    nn.Softplus: lambda m: ("softplus", ()) if m.beta == 1 and m.threshold >= 20 else None,
    nn.Softmax: lambda m: ("softmax", ()) if m.dim == -1 else None,
}
WITHOUT_SETTINGS: Mapping[Any, str] = {
    module: name
    for name, module in MODULES.items()
    if isinstance(module, type) and module not in KNOWN
}


def module_of(f: Activation) -> nn.Module:
    """The module that computes f; torch's own if there is one."""
    if f.name not in MODULES or not f.is_built_in():
        raise ValueError(
            f"activation {f.name!r} is not one of gpumlp's, and torch does not know it; "
            f"use one of {', '.join(ACTIVATIONS)}"
        )
    return MODULES[f.name](*f.params.values())


def known_activation(module: nn.Module) -> Known | None:
    """The activation that a module computes over the last axis; None if gpumlp does not have it."""
    kind: Any = type(module)
    if kind in WITHOUT_SETTINGS:
        return WITHOUT_SETTINGS[kind], ()
    return KNOWN[kind](module) if kind in KNOWN else None


# ---- to torch ------------------------------------------------------------------------------------


class _Mean(nn.Module):
    """The mean of the members' link(ŷ)."""

    def __init__(self, members: list[nn.Module], link: nn.Module) -> None:
        super().__init__()
        self.members, self.link = nn.ModuleList(members), link

    def forward(self, x: Tensor) -> Tensor:
        each = [self.link(member(x)) for member in self.members]
        return sum(each[1:], each[0]) / len(each)


@overload
def to_torch(net: MLP) -> nn.Sequential: ...
@overload
def to_torch(net: Ensemble) -> fx.GraphModule: ...
def to_torch(net: MLP | Ensemble) -> nn.Sequential | fx.GraphModule:
    """A network as ``torch.nn.Sequential(Linear, activation, …, Linear)`` on the CPU.

    Its outputs ŷ are those of `MLP.forward`, before the loss's link. It does not need gpumlp: its
    modules are torch's, or a traced `torch.fx.GraphModule` where torch has none, as for exp.

    An ensemble becomes a GraphModule whose outputs are those of `Ensemble.predict`, after the link,
    with parameters "members.0.0.weight", …, numbered without members that diverged.

    Raises:
        ValueError: an activation is the user's own, or all members diverged.
    """
    if isinstance(net, Ensemble):
        mean = _Mean([to_torch(member) for member in net.whole], module_of(net.loss.link))
        graph = fx.Tracer().trace(mean)
        for node in graph.nodes:
            node.type = None  # the annotation's text, whose class pickle would look for
        return fx.GraphModule(mean, graph, "Mean")
    modules: list[nn.Module] = []
    tensors = net.tensors()
    kind = torch.from_numpy(tensors["0.bias"]).dtype
    for layer in net.layers:
        n_out, n_in = layer.W.shape
        f = module_of(layer.f)
        modules.append(nn.Linear(n_in, n_out, dtype=kind))
        modules.append(_as_graph(f) if isinstance(f, (Exponential, ScaledELU)) else f)
    if isinstance(modules[-1], nn.Identity):
        modules.pop()
    module = nn.Sequential(*modules)
    module.load_state_dict({name: torch.from_numpy(a) for name, a in tensors.items()})
    return module


def _as_graph(module: nn.Module) -> nn.Module:
    """The same function as a GraphModule, which does not need gpumlp's class."""
    graph = fx.Tracer().trace(lambda z: module.forward(z))
    return fx.GraphModule(nn.Module(), graph, type(module).__name__)


def _of_graph(module: nn.Module) -> Known | None:
    """The activation of a GraphModule that `_as_graph` made."""
    if not isinstance(module, fx.GraphModule):
        return None
    calls = [node for node in module.graph.nodes if node.op == "call_function"]
    if [node.target for node in calls] == [torch.exp]:
        return "exponential", ()
    if [node.target for node in calls] == [F.elu, operator.mul]:
        return "selu", (float(calls[0].kwargs["alpha"]), float(calls[1].args[1]))
    return None


# ---- from torch ----------------------------------------------------------------------------------


def from_torch(
    module: nn.Module,
    backend: str | Backend = "auto",
    loss: str | Loss | None = None,
    **settings: Any,
) -> MLP:
    """A network with the same outputs as a ``torch.nn.Sequential(Linear, activation, …)``.

    Args:
        module: consists of Linear and activations with their parameters, nested or not. What does
            nothing to rows is left out: Identity, Flatten before the first Linear, and Dropout in
            eval mode. Other modules raise an error, and so do Linears that share parameters.
            torch's Softplus is linear above its threshold, gpumlp's is not: they differ by 2e-9 at
            most.
        backend: as for `MLP`.
        loss: None for "softmax_cross_entropy", or "negative_log_likelihood" after a Softmax.
        settings: further arguments of `MLP`: regularizer, seed, or a precision other than that of
            the parameters. 16-bit parameters become float32 if the backend has no 16-bit precision.

    Warns:
        UserWarning: a Linear without bias gets a bias of zeros, which training then changes; a
            Dropout is left out, which training then lacks.

    Raises:
        TypeError, ValueError: a module is not known or in the wrong place; the message names it.
    """
    if not isinstance(module, nn.Sequential):
        raise TypeError(
            f"module must be a torch.nn.Sequential, got {type(module).__name__}; pass its layers "
            "as torch.nn.Sequential(Linear, activation, …)"
        )
    linears, functions = _layers(module)
    kind = linears[0].weight.dtype
    if kind not in PRECISIONS:
        raise TypeError(f"module's parameters are {kind}; cast it, e.g. module.float()")
    if loss is None:
        last = functions[-1].name == "softmax"
        loss = "negative_log_likelihood" if last else "softmax_cross_entropy"
    if kind in HALVES and get_backend(backend).on_host:
        kind = torch.float32  # it represents the parameters exactly
    settings.setdefault("precision", PRECISIONS[kind])
    widths = [linears[0].in_features, *(linear.out_features for linear in linears)]
    *hidden, output = functions
    net = MLP(widths, hidden, output, loss=loss, backend=backend, **settings)
    tensors: dict[str, Any] = {}
    for i, linear in enumerate(linears):
        bias = torch.zeros(len(linear.weight)) if linear.bias is None else linear.bias
        tensors |= {f"{2 * i}.weight": linear.weight, f"{2 * i}.bias": bias}
    net.assign(tensors)
    return net


def _layers(module: nn.Sequential) -> tuple[list[Any], list[Activation]]:
    linears: list[Any] = []
    functions: list[Activation | None] = []
    owners: dict[int, str] = {}  # the Linear that a parameter was first seen in, by its memory
    for name, part in module.named_modules(remove_duplicate=False):
        if isinstance(part, nn.Sequential) or _does_nothing(name, part, first=not linears):
            continue
        if type(part) is nn.Linear:
            for kind, tensor in (("weight", part.weight), ("bias", part.bias)):
                place = 0 if tensor is None else tensor.data_ptr()  # 0: there is no memory
                owner = owners.setdefault(place, name) if place else name
                if owner != name:
                    raise ValueError(
                        f"{name} shares its {kind} with {owner}, but each layer of a gpumlp.MLP "
                        f"has parameters of its own; give {name} its own: copy.deepcopy of it"
                    )
            if linears and part.in_features != linears[-1].out_features:
                raise ValueError(
                    f"{name} has {part.in_features} inputs but the Linear before it has "
                    f"{linears[-1].out_features} outputs"
                )
            if part.bias is None:
                warnings.warn(
                    f"{name} has no bias; it gets a bias of zeros, which training changes",
                    stacklevel=3,
                )
            linears.append(part)
            functions.append(None)
            continue
        found = _of_graph(part) or known_activation(part)
        if type(part) is nn.Softmax and part.dim in (1, None):  # of rows, the last axis
            found = "softmax", ()
        if found is None:
            raise TypeError(f"{name} is a {type(part).__name__}, {_advice(part)}")
        if not linears or functions[-1] is not None:
            where = "first" if not linears else "after another activation"
            raise ValueError(
                f"{name}, {type(part).__name__}, is {where}; an activation follows a Linear"
            )
        f = ACTIVATIONS[found[0]]
        functions[-1] = f.set(**dict(zip(f.params, found[1], strict=True)))
    if not linears:
        raise ValueError("module has no Linear; pass torch.nn.Sequential(Linear, activation, …)")
    return linears, [f or ACTIVATIONS["identity"] for f in functions]


def _does_nothing(name: str, module: Any, first: bool) -> bool:
    """Whether a module returns rows (m, n) as they are; first: it is before the first Linear."""
    if type(module) is nn.Flatten:
        return first and module.start_dim == 1 and module.end_dim in (1, -1)
    if type(module) not in DROPOUTS or (module.training and module.p > 0):
        return type(module) is nn.Identity
    if module.p > 0:
        warnings.warn(
            f"{name}, {type(module).__name__}, is left out: gpumlp trains without it", stacklevel=4
        )
    return True


def _advice(module: nn.Module) -> str:
    if isinstance(module, nn.Flatten):
        return "which gpumlp does not have; leave it out and pass rows, x.reshape(len(x), -1)"
    if type(module) in DROPOUTS:
        return (
            "which gpumlp does not have; call module.eval() first: in eval mode it does nothing, "
            "and is left out"
        )
    if isinstance(module, nn.LogSoftmax):
        return (
            'which gpumlp does not have; leave it out: loss="softmax_cross_entropy" takes logits, '
            "and predict returns probabilities"
        )
    if isinstance(module, nn.Softmax):
        return "over an axis other than the last; use Softmax(dim=-1)"
    known = sorted({"Linear", *(kind.__name__ for kind in (*KNOWN, *WITHOUT_SETTINGS))})
    return f"which is not known, or not with these settings; known: {', '.join(known)}"
