"""Layers with their blocks, read from torch's modules and traced graphs.

A `Reader` passes a symbol of `torch_symbols` from module to module in place of rows.
"""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils import parametrize, prune

from gpumlp.functions import ACTIVATIONS
from gpumlp.interop.torch_inputs import Rows, read
from gpumlp.interop.torch_modules import (
    KNOWN,
    NORM_MODULES,
    WITHOUT_SETTINGS,
    known_activation,
    known_norm,
    of_graph,
)
from gpumlp.interop.torch_symbols import Norm, TorchLayer, added, gated

DROPOUTS = (nn.Dropout, nn.AlphaDropout, nn.FeatureAlphaDropout)
NORMS = tuple(NORM_MODULES.values())
NOT_HERE = (
    "which gpumlp does not have here: it normalises the inputs of the second Linear and later"
)


class Reader:
    """Reads modules.

    Attributes:
        warnings: what is said about those that are taken over.
    """

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.embedded: list[Rows] = []

    def layers(self, module: nn.Module) -> list[TorchLayer]:
        """The layers of a Sequential or a GraphModule.

        TypeError, ValueError: a module is not known or in the wrong place; the message names it.
        """
        for name, part in module.named_modules():
            if part._forward_hooks or part._forward_pre_hooks:
                self._warn(f"{name or 'module'} has forward hooks, which are left out")
        read = self._graph if isinstance(module, fx.GraphModule) else self._sequential
        returned = read(module)
        if isinstance(returned, (list, tuple, dict)):
            raise TypeError("module returns several arrays; pass one that returns ŷ alone")
        if returned is None:
            raise ValueError(
                "module has no Linear; pass torch.nn.Sequential(Linear, activation, …)"
            )
        last = self._finished(returned)
        if last.dropout is not None:
            last = self._without_dropout(last)
        if last.gated or last.skip is not None:
            what = "gate" if last.gated else "skip"
            raise ValueError(
                f"{last.name}, the last Linear, has a {what}, and those of a gpumlp.MLP are in "
                "hidden layers; add a Linear after it"
            )
        return last.chain()

    # ---- modules ------------------------------------------------------------------------------

    def _sequential(self, module: nn.Module) -> Any:
        value: Any = None
        for name, part in module.named_modules(remove_duplicate=False):
            if not isinstance(part, nn.Sequential):
                value = self._module(name, part, value)
        return value

    def _module(self, name: str, part: Any, value: Any) -> Any:
        """What a module returns for a value."""
        if self._does_nothing(name, part, value):
            return value
        if isinstance(part, (nn.Linear, *NORMS)):
            _check_own(name, part)
        if type(part) is nn.Dropout and self._may_drop(part, value):
            return replace(value, dropout=(name, part))
        if type(part) is nn.Linear:
            return self._linear(name, part, value)
        if type(part) in NORMS:
            return self._norm(name, part, value)
        if type(part) is nn.GLU and part.dim in (1, -1) and self._is_linear(value):
            return replace(value, f=ACTIVATIONS["sigmoid"], gated=True)
        found = of_graph(part) or known_activation(part)
        if type(part) is nn.Softmax and part.dim in (1, None):  # of rows, the last axis
            found = "softmax", ()
        if found is None:
            raise TypeError(f"{name} is a {type(part).__name__}, {_advice(part)}")
        return self._activation(name, part, value, found)

    def _linear(self, name: str, part: Any, value: Any) -> TorchLayer:
        norm = value if isinstance(value, Norm) else None
        below = value.of if isinstance(value, Norm) else value
        if below is not None:
            self._finished(below)
            if part.in_features != below.width:
                raise ValueError(
                    f"{name} has {part.in_features} inputs but the Linear before it has "
                    f"{below.width} outputs"
                )
        if part.bias is None:
            self._warn(f"{name} has no bias; it gets a bias of zeros, which training changes")
        return TorchLayer(name, part, below, norm)

    def _norm(self, name: str, part: Any, value: Any) -> Norm:
        layer = value if isinstance(value, TorchLayer) else None
        stage = known_norm(part, layer.linear.weight.dtype) if layer else None
        if layer is None or stage is None:
            how = "over the last axis"
            if type(part) is nn.BatchNorm1d:
                how = "by running statistics with a momentum"
                if part.track_running_stats and part.momentum is None:
                    how += f"; set one: module.get_submodule({name!r}).momentum = 0.1"
            raise TypeError(f"{name} is a {type(part).__name__}, {NOT_HERE}, {how}")
        self._finished(layer)
        for kind in ("weight",) if type(part) is nn.RMSNorm else ("weight", "bias"):
            if getattr(part, kind) is None:
                default = "ones" if kind == "weight" else "zeros"
                self._warn(f"{name} has no {kind}; it gets {default}, which training changes")
        return Norm(name, part, layer, stage)

    def _activation(self, name: str, part: Any, value: Any, found: Any) -> TorchLayer:
        f = ACTIVATIONS[found[0]]
        f = f.set(**dict(zip(f.params, found[1], strict=True)))
        if isinstance(value, TorchLayer) and value.half == 1 and value.f is None:
            return replace(value, f=f)
        if isinstance(value, TorchLayer) and value.dropout is not None and value.f is None:
            value = self._without_dropout(value)  # it is before the activation
        if isinstance(value, Norm):
            raise TypeError(
                f"{value.name} is a {type(value.module).__name__}, {NOT_HERE}, and not those of an "
                f"activation, {name}{_fused(value)}"
            )
        if not self._is_linear(value):
            where = "first" if value is None else "after another activation"
            if value is not None and value.skip is not None:
                where = "after an addition"
            elif value is not None and value.half == 0:
                where = "on the first half of a gate, which is a * f(b) of (a, b)"
            raise ValueError(
                f"{name}, {type(part).__name__}, is {where}; an activation follows a Linear"
            )
        made: TorchLayer = replace(value, f=f)
        return made

    def _is_linear(self, value: Any) -> bool:
        return isinstance(value, TorchLayer) and value.only_linear

    def _may_drop(self, part: Any, value: Any) -> bool:
        """Whether a Dropout is where gpumlp has one: after the activation of a layer."""
        layer = isinstance(value, TorchLayer) and value.half is None
        return layer and value.skip is None and value.dropout is None and 0 < part.p < 1

    def _without_dropout(self, layer: TorchLayer) -> TorchLayer:
        """The layer without its Dropout, which is in the wrong place; an error in training mode."""
        assert layer.dropout is not None
        name, part = layer.dropout
        if part.training:
            raise TypeError(f"{name} is a {type(part).__name__}, {_advice(part)}")
        self._leave_out(name, part)
        return replace(layer, dropout=None)

    def _does_nothing(self, name: str, part: Any, value: Any) -> bool:
        """Whether a module returns rows (m, n) as they are."""
        if type(part) is nn.Flatten:
            return value is None and part.start_dim == 1 and part.end_dim in (1, -1)
        if type(part) not in DROPOUTS:
            return type(part) is nn.Identity
        if part.p == 0:
            return True
        if part.training or (type(part) is nn.Dropout and self._may_drop(part, value)):
            return False
        self._leave_out(name, part)
        return True

    def _leave_out(self, name: str, part: Any) -> None:
        self._warn(f"{name}, {type(part).__name__}, is left out: gpumlp trains without it")

    def _warn(self, message: str) -> None:
        self.warnings.append(message)

    def _finished(self, value: TorchLayer | Norm) -> TorchLayer:
        """The value, which is the output of a layer; else an error."""
        if isinstance(value, Norm):
            what = f"{value.name} is a {type(value.module).__name__}, {NOT_HERE}"
            raise TypeError(f"{what}{_fused(value)}")
        if value.half is not None:
            raise ValueError(f"a half of {value.name} is not used in a gate, a * f(b) of (a, b)")
        return value

    # ---- graphs -------------------------------------------------------------------------------

    def _graph(self, module: Any) -> Any:
        values: dict[Any, Any] = {}
        self.embedded, of_columns, whole = read(module)
        for node in module.graph.nodes:
            if node is whole or node in of_columns:
                values[node] = None  # as x
                continue
            inputs = [values[each] if isinstance(each, fx.Node) else each for each in node.args]
            if node.op == "placeholder":
                if values:
                    raise ValueError(f"{node.name} is a second input; pass a module of x alone")
                values[node] = None
            elif node.op == "output":
                return inputs[0]
            elif node.op == "call_module" and inputs and not isinstance(inputs[0], list):
                part = module.get_submodule(node.target)
                values[node] = self._module(node.target, part, inputs[0])
            else:
                values[node] = self._call(node, inputs)
        return None

    def _call(self, node: Any, inputs: list[Any]) -> Any:
        """What a function or method returns for values."""
        target, found = node.target, None
        two = len(inputs) == 2 and not node.kwargs
        known = two and all(isinstance(each, TorchLayer) for each in inputs)
        if target in (operator.add, torch.add) and known:
            found = added(*inputs) or added(*reversed(inputs))
        elif target in (operator.mul, torch.mul) and known:
            found = gated(*inputs)
        elif target in ("chunk", torch.chunk) and inputs and self._is_linear(inputs[0]):
            n, axis = [*inputs[1:], *node.kwargs.values(), 0][:2]
            if (n, axis) in ((2, -1), (2, 1)):
                return [replace(inputs[0], half=i) for i in (0, 1)]
        elif target is operator.getitem and isinstance(inputs[0], list):
            return inputs[0][inputs[1]]
        if found is None:
            name = target if isinstance(target, str) else getattr(target, "__name__", target)
            raise TypeError(
                f"{node.name} is a call of {name}, which is not known here; known: modules, h + h' "
                "of an earlier layer's output h', also by a Linear, and a * f(b) of "
                "a, b = Linear(h).chunk(2, -1)"
            )
        return found


def _check_own(name: str, part: Any) -> None:
    """Raise if a parameter is not the module's own, and may be older than what it depends on."""
    for kind in ("weight", "bias"):
        if isinstance(getattr(part, kind, None), torch.Tensor) and kind not in part._parameters:
            place = f"module.get_submodule({name!r}), {kind!r}"
            how = f"torch.nn.utils.remove_weight_norm({place})"
            if prune.is_pruned(part):
                how = f"torch.nn.utils.prune.remove({place})"
            if parametrize.is_parametrized(part):
                how = f"torch.nn.utils.parametrize.remove_parametrizations({place})"
            raise TypeError(f"{name} computes its {kind} from other parameters; call {how}")


def _fused(norm: Norm) -> str:
    """What to do with a batch norm after a Linear."""
    if type(norm.module) is not nn.BatchNorm1d or not norm.of.only_linear:
        return ""
    return (
        "; in eval mode torch.nn.utils.fusion.fuse_linear_bn_eval(linear, norm) makes a Linear of "
        f"{norm.of.name} and {norm.name}"
    )


def _advice(module: nn.Module) -> str:
    if isinstance(module, nn.Flatten):
        return "which gpumlp does not have; leave it out and pass rows, x.reshape(len(x), -1)"
    if type(module) in DROPOUTS:
        return (
            "which gpumlp does not have here: its dropout is that of torch.nn.Dropout after the "
            "activation of a hidden layer; call module.eval() first: in eval mode it does nothing, "
            "and is left out"
        )
    if isinstance(module, nn.LogSoftmax):
        return (
            'which gpumlp does not have; leave it out: loss="softmax_cross_entropy" takes logits, '
            "and predict returns probabilities"
        )
    if isinstance(module, nn.Softmax):
        return "over an axis other than the last; use Softmax(dim=-1)"
    named = [nn.Linear, nn.GLU, nn.Dropout, *NORMS, *KNOWN, *WITHOUT_SETTINGS]
    known = sorted({kind.__name__ for kind in named})
    return f"which is not known, or not with these settings; known: {', '.join(known)}"
