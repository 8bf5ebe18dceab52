"""Networks from torch modules: `from_torch`."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import fx, nn

from gpumlp.backends import Backend, get_backend
from gpumlp.functions import ACTIVATIONS, Loss
from gpumlp.functions.blocks import blocks
from gpumlp.interop.torch_backend import HALVES, PRECISIONS
from gpumlp.interop.torch_inputs import Rows
from gpumlp.interop.torch_layers import Reader
from gpumlp.interop.torch_symbols import TorchLayer
from gpumlp.network import MLP


def from_torch(
    module: nn.Module,
    backend: str | Backend = "auto",
    loss: str | Loss | None = None,
    **settings: Any,
) -> MLP:
    """A network with the same outputs as a ``torch.nn.Sequential(Linear, activation, …)``.

    Args:
        module: a Sequential, nested or not, of Linear and activations with their parameters, with
            LayerNorm, RMSNorm or BatchNorm1d before a Linear that is not the first, GLU in place of
            an activation, and Dropout after one. Or the GraphModule that `to_torch` made, or
            ``torch.fx.symbolic_trace(module)`` of such modules: with additions of earlier outputs,
            gates a * f(b) of ``a, b = linear(h).chunk(2, -1)``, and embeddings of columns with
            codes, ``torch.cat([x[:, [0, 2]], embedding(x[:, 1].long())], 1)``, before the first
            Linear.
            What does nothing to rows is left out: Identity, Flatten before the first Linear, and in
            eval mode a Dropout in another place. Other modules raise an error, and so do modules
            that share parameters. torch's Softplus is linear above its threshold, gpumlp's is not:
            they differ by 2e-9 at most.
        backend: as for `MLP`.
        loss: None for "softmax_cross_entropy", or "negative_log_likelihood" after a Softmax.
        settings: further arguments of `MLP`: regularizer, seed, or a precision other than that of
            the parameters. 16-bit parameters become float32 if the backend has no 16-bit precision.

    Warns:
        UserWarning: a module without bias or weight gets zeros or ones, which training then
            changes; a Dropout is left out, which training then lacks.

    Raises:
        TypeError, ValueError: a module is not known or in the wrong place; the message names it.
    """
    if not isinstance(module, (nn.Sequential, fx.GraphModule)):
        how = (
            "its layers as torch.nn.Sequential(Linear, activation, …), or "
            "torch.fx.symbolic_trace(module)"
        )
        for around in ("_orig_mod", "module"):  # of torch.compile, and of DataParallel
            how = f"module.{around}" if hasattr(module, around) else how
        raise TypeError(
            f"module must be a torch.nn.Sequential, got {type(module).__name__}; pass {how}"
        )
    for name, part in module.named_modules():
        _check_forward(name, part)
    reader = Reader()
    layers = reader.layers(module)
    named = _named(layers, reader.embedded)
    for message in reader.warnings:
        warnings.warn(message, stacklevel=2)
    kind = layers[0].linear.weight.dtype
    if kind not in PRECISIONS:
        raise TypeError(f"module's parameters are {kind}; cast it, e.g. module.float()")
    functions = [layer.f or ACTIVATIONS["identity"] for layer in layers]
    if loss is None:
        last = functions[-1].name == "softmax"
        loss = "negative_log_likelihood" if last else "softmax_cross_entropy"
    if kind in HALVES and get_backend(backend).on_host:
        kind = torch.float32  # it represents the parameters exactly
    embed = {each.column: tuple(each.module.weight.shape) for each in reader.embedded}
    settings = {"precision": PRECISIONS[kind], "embed": embed} | _blocks(layers) | settings
    n_0 = layers[0].linear.in_features - sum(d - 1 for _, d in embed.values())
    widths = [n_0, *(layer.width for layer in layers)]
    *hidden, output = functions
    net = MLP(widths, hidden, output, loss=loss, backend=backend, **settings)
    net.assign(named)
    return net


def _check_forward(name: str, part: Any) -> None:
    """Raise if a module computes something else than its class, or than one module after another.

    `FusedMLP`, a subclass of Sequential, computes the same.
    """
    if "forward" in vars(part):
        raise TypeError(
            f"{name or 'module'} has a forward of its own, which need not be that of "
            f"{type(part).__name__}; delete it: del module.get_submodule({name!r}).forward"
        )
    known = ("torch", "gpumlp")
    if isinstance(part, nn.Sequential) and type(part).forward.__module__.split(".")[0] not in known:
        raise TypeError(
            f"{name or 'module'} is a {type(part).__name__}, a Sequential with a forward of its "
            "own; pass torch.fx.symbolic_trace(module)"
        )


def _blocks(layers: list[TorchLayer]) -> dict[str, Any]:
    """The arguments of `MLP` for its blocks."""
    *hidden, _ = layers
    skips = [k - layers.index(each.skip) if each.skip else 0 for k, each in enumerate(hidden)]
    for each in hidden:
        if each.skip and each.projection and each.skip.width == each.width:
            raise ValueError(
                f"{each.projection[0]} is a Linear of a skip that keeps the width {each.width}; "
                "skips of a gpumlp.MLP have one only where the width changes: leave it out"
            )
    return {
        "norm": [layer.norm and layer.norm.stage for layer in layers[1:]],
        "dropout": [layer.dropout[1].p if layer.dropout else 0.0 for layer in hidden],
        "gated": [layer.f if layer.gated else None for layer in hidden],
        "residual": _residual(hidden, skips),
    }


def _residual(hidden: list[TorchLayer], skips: list[int]) -> Any:
    """The argument of `MLP` for skips that reach so many layers down."""
    r = max(skips, default=0)
    if r <= 1:
        return [skip == 1 for skip in skips]
    made = blocks([1] * (len(hidden) + 2), None, 0.0, r, None)
    for layer, skip, own in zip(hidden, skips, made, strict=False):
        if skip != own.skip:
            raise ValueError(
                f"{layer.name}: skips of {sorted({*skips} - {0})} layers are not those of a "
                "gpumlp.MLP, whose skips all reach one layer down, or r layers down from every "
                "r-th layer, residual=r"
            )
    return r


def _named(layers: list[TorchLayer], embedded: list[Rows]) -> dict[str, Any]:
    """The parameters by the names of `MLP.tensors`; ValueError: some share their memory."""
    found: dict[str, Any] = {}
    owners: dict[int, str] = {}  # the module that a parameter was first seen in, by its memory
    for each in embedded:
        _check_owner(owners, each.module.weight, each.name, "weight")
        found[f"embed.{each.column}.weight"] = each.module.weight
    for i, layer in enumerate(layers):
        owned = [("", layer.name, layer.linear)]
        if layer.norm is not None:
            owned.append(("norm.", layer.norm.name, layer.norm.module))
        if layer.projection is not None:
            owned.append(("skip.", *layer.projection))
        for prefix, name, part in owned:
            for kind in ("weight", "bias"):
                tensor = getattr(part, kind, None)
                if tensor is not None:
                    _check_owner(owners, tensor, name, kind)
                elif kind == "weight":
                    tensor = torch.ones(layer.linear.in_features)  # of a norm
                elif not isinstance(part, nn.RMSNorm):
                    linear = isinstance(part, nn.Linear)
                    tensor = torch.zeros(part.out_features if linear else layer.linear.in_features)
                if tensor is not None:
                    found[f"{2 * i}.{prefix}{kind}"] = tensor
            if isinstance(part, nn.BatchNorm1d):
                for kind in ("running_mean", "running_var"):
                    found[f"{2 * i}.{prefix}{kind}"] = getattr(part, kind)
    return found


def _check_owner(owners: dict[int, str], tensor: Any, name: str, kind: str) -> None:
    place = tensor.data_ptr()  # 0: there is no memory
    if place in owners:
        owner = owners[place]
        what = "is called twice" if owner == name else f"shares its {kind} with {owner}"
        raise ValueError(
            f"{name} {what}, but each layer of a gpumlp.MLP has parameters of its own; give "
            f"{'the second call' if owner == name else name} its own: copy.deepcopy of it"
        )
    if place:
        owners[place] = name
