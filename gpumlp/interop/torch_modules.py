"""Activations and norms as torch modules and back, and whole networks: `to_torch`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, overload

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import Tensor, fx, nn

from gpumlp.ensemble import Ensemble
from gpumlp.functions import ACTIVATIONS, Activation
from gpumlp.functions.blocks import Block
from gpumlp.functions.stages import NORMS, Stage
from gpumlp.interop.torch_inputs import input_of, modules_of
from gpumlp.network import MLP, check_kind
from gpumlp.parameters import Layer

Known = tuple[str, tuple[float, ...]]
"""The name of an activation and its parameters, in their order."""

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


NORM_MODULES: Mapping[str, Any] = {
    "layer": nn.LayerNorm, "rms": nn.RMSNorm, "batch": nn.BatchNorm1d,
}  # fmt: skip


def module_of(f: Activation) -> nn.Module:
    """The module that computes f; torch's own if there is one."""
    if f.name not in MODULES or not f.is_built_in():
        raise ValueError(
            f"activation {f.name!r} is not one of gpumlp's, and torch does not know it; "
            f"use one of {', '.join(MODULES)}"
        )
    return MODULES[f.name](*f.params.values())


def known_activation(module: nn.Module) -> Known | None:
    """The activation that a module computes over the last axis; None if gpumlp does not have it."""
    kind: Any = type(module)
    if kind in WITHOUT_SETTINGS:
        return WITHOUT_SETTINGS[kind], ()
    return KNOWN[kind](module) if kind in KNOWN else None


def module_of_norm(norm: Stage, n: int) -> nn.Module:
    """The module that computes a norm of rows with n numbers, or of n columns."""
    if not norm.is_built_in():
        raise ValueError(
            f"norm {norm.name!r} is not one of gpumlp's, and torch does not know it; "
            f"use one of {', '.join(NORMS)}"
        )
    return NORM_MODULES[norm.name](n, **norm.params)


def known_norm(module: Any, dtype: torch.dtype) -> Stage | None:
    """The norm of rows or columns that a module computes; None if gpumlp does not have it."""
    name = next((name for name, kind in NORM_MODULES.items() if kind is type(module)), "")
    if name == "batch":
        if module.momentum is None or not module.track_running_stats:
            return None
        return NORMS[name].set(eps=module.eps, momentum=module.momentum)
    if not name or len(module.normalized_shape) != 1:
        return None
    return NORMS[name].set(eps=torch.finfo(dtype).eps if module.eps is None else module.eps)


# ---- to torch ------------------------------------------------------------------------------------


class _Mean(nn.Module):
    """The mean of the members' link(ŷ)."""

    def __init__(self, members: list[nn.Module], link: nn.Module) -> None:
        super().__init__()
        self.members, self.link = nn.ModuleList(members), link

    def forward(self, x: Tensor) -> Tensor:
        each = [self.link(member(x)) for member in self.members]
        return sum(each[1:], each[0]) / len(each)


class _Network(nn.Module):
    """A network with blocks or embeddings.

    Norm, dropout and skip are children of the layer's Linear, and embeddings of "embed".
    """

    def __init__(self, net: MLP) -> None:
        super().__init__()
        blocks = net.blocks or (Block(),) * net.L
        self.plan, self.embeddings = list(zip(net.layers, blocks, strict=True)), net.embed
        if net.embed is not None:
            self.embed = modules_of(net.embed)
        for k, (layer, block) in enumerate(self.plan):
            linear = nn.Linear(layer.W.shape[1], layer.W.shape[0])
            if block.norm is not None:
                linear.add_module("norm", module_of_norm(block.norm, linear.in_features))
            if block.dropout:
                linear.add_module("dropout", nn.Dropout(block.dropout))
            if block.projects:
                n_in, n_out = net.widths[k + 1 - block.skip], net.widths[k + 1]
                linear.add_module("skip", nn.Linear(n_in, n_out))
            self.add_module(str(2 * k), linear)
            self.add_module(str(2 * k + 1), _without_gpumlp(_function(layer, block)))

    def forward(self, x: Tensor) -> Tensor:
        h = [x if self.embeddings is None else input_of(x, self.embeddings, self.embed)]
        for k, (_, block) in enumerate(self.plan):
            linear: Any = self.get_submodule(str(2 * k))
            f = self.get_submodule(str(2 * k + 1))
            a: Any = linear(h[-1] if block.norm is None else linear.norm(h[-1]))
            b = a
            if block.gate is not None:
                a, b = a.chunk(2, -1)
            b = b if isinstance(f, nn.Identity) else f(b)
            a = b if block.gate is None else a * b
            if block.dropout:
                a = linear.dropout(a)
            if block.skip:
                below = h[-block.skip]
                a = a + (linear.skip(below) if block.projects else below)
            h.append(a)
        return h[-1]


def _traced(module: nn.Module, name: str, whole: bool = True) -> fx.GraphModule:
    """The module as a graph that does not need gpumlp; whole: call each module as it is."""
    tracer = fx.Tracer()
    if whole:  # no class of its own, which a pickle would name
        tracer.is_leaf_module = lambda *_: True  # type: ignore[method-assign]
    graph = tracer.trace(module)
    for node in graph.nodes:
        node.type = None  # the annotation's text, whose class pickle would look for
    return fx.GraphModule(module, graph, name)


@overload
def to_torch(net: MLP) -> nn.Sequential | fx.GraphModule: ...
@overload
def to_torch(net: Ensemble) -> fx.GraphModule: ...
def to_torch(net: MLP | Ensemble) -> nn.Sequential | fx.GraphModule:
    """A network as ``torch.nn.Sequential(Linear, activation, …, Linear)`` on the CPU.

    Its outputs ŷ are those of `MLP.forward`, before the loss's link. It does not need gpumlp: its
    modules are torch's, or a traced `torch.fx.GraphModule` where torch has none, as for exp. The
    names of its parameters are those of `MLP.tensors`.

    An activation with dropout is a Sequential(activation, Dropout); ``module.eval()`` drops
    nothing, and lets BatchNorm1d read its running statistics, as `MLP.forward` does. A network with
    norms, gates, skips or embeddings is a GraphModule of LayerNorm, RMSNorm, BatchNorm1d, Linear,
    activations, Dropout and Embedding: norm, dropout and skip of layer 2 are "2.norm", "2.dropout",
    "2.skip", and the embedding of column 3 is "embed.3".

    An ensemble becomes a GraphModule whose outputs are those of `Ensemble.predict`, after the link,
    with parameters "members.0.0.weight", …, numbered without members that diverged.

    Raises:
        TypeError: net is no network.
        ValueError: an activation or norm is the user's own, or all members diverged.
    """
    check_kind(net, "net", MLP, Ensemble)
    if isinstance(net, Ensemble):
        mean = _Mean([to_torch(member) for member in net.whole], module_of(net.loss.link))
        return _traced(mean, "Mean", whole=False)
    if net.embed or any(block.norm or block.gate or block.skip for block in net.blocks):
        module: Any = _traced(_Network(net), "Network")
    else:
        module = _sequential(net)
    tensors = {name: torch.from_numpy(a) for name, a in net.tensors().items()}
    module.to(tensors["0.bias"].dtype)
    module.load_state_dict({**module.state_dict(), **tensors})  # BatchNorm1d also counts steps
    return module


def _sequential(net: MLP) -> nn.Sequential:
    modules: list[nn.Module] = []
    for layer, block in zip(net.layers, net.blocks or [Block()] * net.L, strict=True):
        f = _without_gpumlp(module_of(layer.f))
        modules.append(nn.Linear(layer.W.shape[1], layer.W.shape[0]))
        modules.append(with_dropout(f, block.dropout))
    if isinstance(modules[-1], nn.Identity):
        modules.pop()
    return nn.Sequential(*modules)


def with_dropout(f: nn.Module, p: float) -> nn.Module:
    """An activation and, if p is not 0, dropout after it, as one module."""
    return nn.Sequential(f, nn.Dropout(p)) if p else f


def _function(layer: Layer, block: Block) -> nn.Module:
    """The activation of a layer, or that of its gate."""
    f = layer.f if block.gate is None else block.gate.cuda_f
    assert f is not None
    return module_of(f)


def _without_gpumlp(f: nn.Module) -> nn.Module:
    return _as_graph(f) if isinstance(f, (Exponential, ScaledELU)) else f


def _as_graph(module: nn.Module) -> nn.Module:
    """The same function as a GraphModule, which does not need gpumlp's class."""
    graph = fx.Tracer().trace(lambda z: module.forward(z))
    return fx.GraphModule(nn.Module(), graph, type(module).__name__)


def of_graph(module: nn.Module) -> Known | None:
    """The activation of a GraphModule that `_as_graph` made."""
    if not isinstance(module, fx.GraphModule):
        return None
    nodes = list(module.graph.nodes)
    chained = all(after.args[:1] == (node,) for node, after in pairwise(nodes))
    _, *calls, _ = nodes
    if [node.target for node in calls] == [torch.exp] and chained:
        return "exponential", ()
    if [node.target for node in calls] == [F.elu, operator.mul] and chained:
        alpha, scale = calls[0].kwargs["alpha"], calls[1].args[1]
        if not isinstance(scale, fx.Node):
            return known_activation(ScaledELU(float(alpha), float(scale)))
    return None
