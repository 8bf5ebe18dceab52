"""Activations as torch's modules and back, and whole networks: `from_torch`, `to_torch`."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import Tensor, fx, nn

from gpumlp.backends import Backend, get_backend
from gpumlp.functions import ACTIVATIONS, Activation, Loss
from gpumlp.interop.torch_backend import HALVES, PRECISIONS
from gpumlp.network import MLP

Known = tuple[str, tuple[float, ...]]
"""An activation's name and parameters, in their order."""

BEYOND = 40.0  # exp(−z) is below float64's rounding of z, and softplus is z; torch's own 20 is not
SELU = tuple(ACTIVATIONS["selu"].params.values())


class Exponential(nn.Module):
    """exp(z), for which torch has no module."""

    def forward(self, z: Tensor) -> Tensor:
        """exp(z), of z's shape."""
        return torch.exp(z)


class ScaledELU(nn.Module):
    """scale · elu(z), α and scale being SELU's (1.67…, 1.05…) or others."""

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
    "softplus": lambda: nn.Softplus(threshold=BEYOND), "softsign": nn.Softsign, "silu": nn.SiLU,
    "gelu": lambda: nn.GELU("tanh"), "gelu_erf": nn.GELU, "mish": nn.Mish,
    "hard_swish": nn.Hardswish, "exponential": Exponential, "softmax": lambda: nn.Softmax(dim=-1),
}  # fmt: skip

PLAIN = {
    nn.Identity: "identity", nn.ReLU: "relu", nn.Sigmoid: "sigmoid", nn.Tanh: "tanh",
    nn.Softsign: "softsign", nn.SiLU: "silu", nn.Mish: "mish", nn.Hardswish: "hard_swish",
    Exponential: "exponential",
}  # fmt: skip


def module_of(f: Activation) -> nn.Module:
    """The module that computes f; of torch's own where it has one."""
    if f.name not in MODULES or not f.is_built_in():
        raise ValueError(
            f"activation {f.name!r} is none of gpumlp's and torch does not know it; "
            f"use one of {', '.join(ACTIVATIONS)}"
        )
    return MODULES[f.name](*f.params.values())


def activation_of(module: nn.Module) -> Known | None:
    """The activation that a module computes over the last axis; None where it is none of ours."""
    kind: Any = type(module)
    m: Any = module
    if kind in PLAIN:
        return PLAIN[kind], ()
    if kind is nn.GELU:
        return ("gelu" if m.approximate == "tanh" else "gelu_erf"), ()
    if kind is nn.SELU:
        return "selu", SELU
    if kind is ScaledELU and m.alpha >= 0 and m.scale > 0:
        return "selu", (m.alpha, m.scale)
    if kind is nn.LeakyReLU and m.negative_slope >= 0:
        return "leaky_relu", (float(m.negative_slope),)
    if kind is nn.ELU and m.alpha >= 0:
        return "elu", (float(m.alpha),)
    if kind is nn.Softplus and m.beta == 1 and m.threshold >= 20:
        return "softplus", ()
    if kind is nn.Softmax and m.dim == -1:
        return "softmax", ()
    return None


def to_torch(net: MLP) -> nn.Sequential:
    """ŷ of a network as ``torch.nn.Sequential(Linear, activation, …, Linear)`` on the CPU.

    Its outputs are `MLP.forward`'s, before the loss's link.  It is made of torch's own modules (a
    traced `torch.fx.GraphModule` where torch has none, as for exp) and does not need gpumlp.

    Raises:
        ValueError: an activation is an entry of your own.
    """
    modules: list[nn.Module] = []
    tensors = net.tensors()
    kind = torch.from_numpy(tensors["0.bias"]).dtype
    for layer in net.layers:
        n_out, n_in = layer.W.shape
        f = module_of(layer.f)
        modules.append(nn.Linear(n_in, n_out, dtype=kind))
        modules.append(_freed(f) if isinstance(f, (Exponential, ScaledELU)) else f)
    if isinstance(modules[-1], nn.Identity):
        modules.pop()
    module = nn.Sequential(*modules)
    module.load_state_dict({name: torch.from_numpy(a) for name, a in tensors.items()})
    return module


def _freed(module: nn.Module) -> nn.Module:
    """The same function without our class."""
    graph = fx.Tracer().trace(lambda z: module.forward(z))
    return fx.GraphModule(nn.Module(), graph, type(module).__name__)


def from_torch(
    module: nn.Module,
    backend: str | Backend = "auto",
    loss: str | Loss | None = None,
    **settings: Any,
) -> MLP:
    """A network with the outputs of a ``torch.nn.Sequential(Linear, activation, …)``.

    Args:
        module: of Linear and activations, parameters of the activations included; nested or not.
            What is not ours is refused.  torch's Softplus is linear from its threshold on, ours
            nowhere: they differ by 2e-9 at most.
        backend: as `MLP` takes it.
        loss: None for "softmax_cross_entropy", or "negative_log_likelihood" after a Softmax.
        settings: further arguments of `MLP`: regularizer, seed, or a precision other than the
            parameters' own.  16-bit parameters are float32 where the backend has no 16 bits.

    Warns:
        UserWarning: a Linear without bias gets one of zeros, which a training then moves.

    Raises:
        TypeError, ValueError: a module is not known or not where it could be; the message names it.
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
    if kind in HALVES and get_backend(backend).name == "numpy":
        kind = torch.float32  # which holds them exactly
    settings.setdefault("precision", PRECISIONS[kind])
    widths = [linears[0].in_features, *(linear.out_features for linear in linears)]
    *hidden, output = functions
    net = MLP(widths, hidden, output, loss=loss, backend=backend, **settings)
    tensors: dict[str, Any] = {}
    for i, linear in enumerate(linears):
        tensors[f"{2 * i}.weight"] = linear.weight
        tensors[f"{2 * i}.bias"] = (
            torch.zeros(len(linear.weight)) if linear.bias is None else linear.bias
        )
    net.assign(tensors)
    return net


def _layers(module: nn.Sequential) -> tuple[list[Any], list[Activation]]:
    """The Linears, and the activation after each."""
    linears: list[Any] = []
    functions: list[Activation | None] = []
    for name, part in _parts(module):
        if type(part) is nn.Linear:
            if linears and part.in_features != linears[-1].out_features:
                raise ValueError(
                    f"{name} has {part.in_features} inputs but the Linear before it has "
                    f"{linears[-1].out_features} outputs"
                )
            if part.bias is None:
                warnings.warn(
                    f"{name} has no bias; it gets one of zeros, which a training moves",
                    stacklevel=3,
                )
            linears.append(part)
            functions.append(None)
            continue
        found = _traced(part) or activation_of(part)
        if found is None:
            raise TypeError(f"{name} is a {type(part).__name__}, {_remedy(part)}")
        if not linears or functions[-1] is not None:
            where = "first" if not linears else "behind another activation"
            raise ValueError(
                f"{name}, {type(part).__name__}, is {where}; an activation follows a Linear"
            )
        f = ACTIVATIONS[found[0]]
        functions[-1] = f.set(**dict(zip(f.params, found[1], strict=True)))
    if not linears:
        raise ValueError("module has no Linear; pass torch.nn.Sequential(Linear, activation, …)")
    return linears, [f or ACTIVATIONS["identity"] for f in functions]


def _parts(module: nn.Sequential, before: str = "") -> Iterator[tuple[str, nn.Module]]:
    """What it is made of, with names as `state_dict` has them."""
    for name, part in module._modules.items():  # children() names a module in two places once
        if isinstance(part, nn.Sequential):
            yield from _parts(part, f"{before}{name}.")
        else:
            yield f"{before}{name}", part


def _traced(module: nn.Module) -> Known | None:
    """The activation of a `GraphModule` such as `to_torch` makes."""
    if not isinstance(module, fx.GraphModule):
        return None
    calls = [node for node in module.graph.nodes if node.op == "call_function"]
    if [node.target for node in calls] == [torch.exp]:
        return "exponential", ()
    if [node.target for node in calls] == [F.elu, operator.mul]:
        return "selu", (float(calls[0].kwargs["alpha"]), float(calls[1].args[1]))
    return None


def _remedy(module: nn.Module) -> str:
    if isinstance(module, nn.Flatten):
        return "which gpumlp has not; leave it out and pass rows, x.reshape(len(x), -1)"
    if isinstance(module, nn.Dropout):
        return "which gpumlp has not; leave it out: in eval mode it does nothing"
    if isinstance(module, nn.Softmax):
        return "over an axis other than the last; make it Softmax(dim=-1)"
    known = sorted({"Linear", "GELU", "SELU", "LeakyReLU", "ELU", "Softplus", "Softmax",
                    *(kind.__name__ for kind in PLAIN)})  # fmt: skip
    return f"which is not known here, or not with these settings; known: {', '.join(known)}"
