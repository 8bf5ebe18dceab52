"""The backends' operations as torch operators: a layer and cross-entropy, each with its backward.

An operator works where its tensors lie: on the host in the NumPy backend, on a GPU in the CUDA backend on
torch's current stream.  Tensors are read and written where they are, by DLPack.  16 bits on the
host, which the NumPy backend has not, are computed in float32 and rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, library

from gpumlp.functions import ACTIVATIONS, LOSSES, Activation
from gpumlp.functions.activations import identity
from gpumlp.functions.entry import lookup
from gpumlp.interop.torch_backend import Bench, working
from gpumlp.io.types import Array

# a stream that is new to us wants memory, which a capture of torch's cannot give; older torch has
# no word for it
UNSAFE = torch.Tag.cudagraph_unsafe if hasattr(torch.Tag, "cudagraph_unsafe") else None


def operator(name: str, schema: str) -> Callable[[Callable[..., Any]], Any]:
    """What makes a function the operator ``gpumlp::name``; it writes to none of its arguments."""
    tags: dict[str, Any] = {} if UNSAFE is None else {"tags": (UNSAFE,)}
    return library.custom_op(f"gpumlp::{name}", mutates_args=(), schema=schema, **tags)


def second_derivative(name: str) -> Callable[..., Any]:
    """What refuses to differentiate a backward operator."""

    def backward(ctx: Any, *gradients: Any) -> None:
        raise NotImplementedError(
            f"{name} has no second derivative; differentiate twice through a module of torch's: "
            "torch.nn.Sequential(*fused)"
        )

    return backward


@cache
def function(name: str, params: tuple[float, ...]) -> Activation:
    """The activation `name` of `ACTIVATIONS`, with its parameters in their order."""
    entry = lookup(ACTIVATIONS, "activation", name)
    if len(params) not in (0, len(entry.params)):
        asked = ", ".join(entry.params) or "none"
        raise ValueError(f"{name} has the parameters {asked}; got {len(params)} numbers")
    return entry.set(**dict(zip(entry.params, params, strict=True))) if params else entry


# ---- a layer ------------------------------------------------------------------------------------

LAYER = "(Tensor x, Tensor weight, Tensor bias, str activation, float[] params, bool keep)"
LAYER_BACKWARD = (
    "(Tensor gh, Tensor x, Tensor weight, Tensor z, Tensor h, str activation, float[] params, "
    "bool[] needs)"
)


@operator("linear_activation", f"{LAYER} -> (Tensor, Tensor)")
def layer(
    x: Tensor, weight: Tensor, bias: Tensor, activation: str, params: Sequence[float], keep: bool
) -> tuple[Tensor, Tensor]:
    """h = f(z), z = x Wᵀ + b; and z, or nothing (0,) where f' does not read it or not `keep`."""
    h, z = _layer_shapes(x, weight, bias, activation, params, keep)
    n, f = len(weight), function(activation, tuple(params))
    if h.numel():
        with working(x) as at:
            out = at.writes(h, n)
            pre = at.writes(z, n) if z.numel() else out
            inputs = at.reads(x, x.shape[-1]), at.reads(weight), at.reads(bias)
            at.operations.affine_activation(*inputs, f, pre, out)
    return h, z


@layer.register_fake
def _layer_shapes(
    x: Tensor, weight: Tensor, bias: Tensor, activation: str, params: Sequence[float], keep: bool
) -> tuple[Tensor, Tensor]:
    n_out, n_in = weight.shape
    if x.ndim == 0 or x.shape[-1] != n_in:
        raise ValueError(
            f"x has shape {tuple(x.shape)} but the layer's weight has {(n_out, n_in)}; "
            f"pass x of shape (…, {n_in})"
        )
    if not (x.dtype == weight.dtype == bias.dtype and x.device == weight.device == bias.device):
        raise TypeError(
            f"x is {x.dtype} on {x.device} but the layer is {weight.dtype} on {weight.device}; "
            "pass x.to(weight)"
        )
    h = x.new_empty((*x.shape[:-1], n_out))
    kept = keep and "z" in function(activation, tuple(params)).reads
    return h, x.new_empty(h.shape if kept else (0,))


@operator("linear_activation_backward", f"{LAYER_BACKWARD} -> (Tensor, Tensor, Tensor)")
def layer_backward(
    gh: Tensor, x: Tensor, weight: Tensor, z: Tensor, h: Tensor, activation: str,
    params: Sequence[float], needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """gx = gz W, dW = gzᵀ x and db, the column sums of gz = gh ⊙ f'(z) or Jᵀ gh.

    Of x, W and b only what `needs` says; the others are (0,).  z and h are (0,) where f' does not
    read them.
    """
    gx, dW, db = _layer_gradients(gh, x, weight, z, h, activation, params, needs)
    (n_out, n_in), f = weight.shape, function(activation, tuple(params))
    if not gh.numel():
        return gx, dW.zero_(), db.zero_()
    with working(gh) as at:
        slope = at.reads(gh, n_out)
        pre, out = (at.reads(a, n_out) if a.numel() else slope for a in (z, h))
        gz = at.scratch(gh.numel() // n_out, n_out)
        sums = at.writes(db) if needs[2] else at.scratch(n_out)
        at.operations.activation_gradient(f, pre, out, slope, gz, sums)
        if needs[1]:
            at.operations.weight_gradient(gz, at.reads(x, n_in), at.writes(dW), None)
        if needs[0]:
            at.operations.input_gradient(gz, at.reads(weight), at.writes(gx, n_in))
    return gx, dW, db


@layer_backward.register_fake
def _layer_gradients(
    gh: Tensor, x: Tensor, weight: Tensor, z: Tensor, h: Tensor, activation: str,
    params: Sequence[float], needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    n_out, n_in = weight.shape
    shapes = (*gh.shape[:-1], n_in), (n_out, n_in), (n_out,)
    gx, dW, db = (
        gh.new_empty(shape if asked else (0,)) for shape, asked in zip(shapes, needs, strict=True)
    )
    return gx, dW, db


def _layer_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, _, ctx.activation, ctx.params, ctx.keep = inputs
    h, z = output
    ctx.set_materialize_grads(False)
    reads = ACTIVATIONS[ctx.activation].reads
    ctx.save_for_backward(x, weight, z, h if "h" in reads else z.new_empty(0))


def _layer_autograd(ctx: Any, gh: Tensor | None, _: None) -> tuple[Any, ...]:
    if not ctx.keep:
        raise RuntimeError(
            "gpumlp::linear_activation kept nothing for its gradient; call it with keep=True"
        )
    if gh is None:
        return (None,) * 6
    needs = list(ctx.needs_input_grad[:3])
    gradients = layer_backward(gh, *ctx.saved_tensors, ctx.activation, ctx.params, needs)
    each = (g if asked else None for g, asked in zip(gradients, needs, strict=True))
    return (*each, None, None, None)


layer.register_autograd(_layer_autograd, setup_context=_layer_setup)
layer_backward.register_autograd(second_derivative("gpumlp::linear_activation"))


# ---- cross-entropy ------------------------------------------------------------------------------

ENTROPY = "(Tensor logits, Tensor target, Tensor weights, float smoothing) -> Tensor"
ENTROPY_BACKWARD = (
    "(Tensor gJ, Tensor logits, Tensor target, Tensor weights, float smoothing) -> Tensor"
)


@operator("softmax_cross_entropy", ENTROPY)
def entropy(logits: Tensor, target: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    """J = Σᵢ weightsᵢ Lᵢ, () in the logits' dtype.

    logits (m, n); target (m,) of labels, or (m, n) of probabilities; weights (m,).
    """
    J = torch.zeros(1, dtype=torch.float64, device=logits.device)
    if logits.numel():
        with working(logits) as at:
            loss = LOSSES["softmax_cross_entropy"].set(smoothing=smoothing)
            y, share = _targets(at, logits, target, weights)
            at.operations.loss(loss, at.reads(logits), y, share, at.operations.adopt(J))
    return J.to(logits.dtype).reshape(())


@entropy.register_fake
def _entropy_shape(logits: Tensor, target: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    return logits.new_empty(())


@operator("softmax_cross_entropy_backward", ENTROPY_BACKWARD)
def entropy_backward(
    gJ: Tensor, logits: Tensor, target: Tensor, weights: Tensor, smoothing: float
) -> Tensor:
    """gJ ∇J of the logits, (m, n)."""
    gradient = logits.new_empty(logits.shape)
    if logits.numel():
        with working(logits) as at:
            loss = LOSSES["softmax_cross_entropy"].set(smoothing=smoothing)
            y, share = _targets(at, logits, target, weights * gJ.to(weights.dtype))
            J, db = at.scratch(1, dtype=torch.float64), at.scratch(logits.shape[1])
            h, gz = at.reads(logits), at.writes(gradient)
            at.operations.output_gradient(
                loss, identity, h, h, y, share, at.unscaled, gz, gz, db, J
            )
    return gradient


@entropy_backward.register_fake
def _entropy_gradient(
    gJ: Tensor, logits: Tensor, target: Tensor, weights: Tensor, smoothing: float
) -> Tensor:
    return logits.new_empty(logits.shape)


def _targets(at: Bench, logits: Tensor, target: Tensor, weights: Tensor) -> tuple[Array, Array]:
    """Labels or probabilities, and weights, in the operations' types."""
    theta = torch.float64 if at.kind == torch.float64 else torch.float32
    weights = weights.to(theta)
    if target.ndim == 2:
        y = target.to(theta)
    else:
        n = logits.shape[1]
        odd = (target < 0) | (target >= n)
        if logits.device.type == "cpu" and bool(odd.any()):
            raise ValueError(
                f"target has labels from {int(target.min())} to {int(target.max())} but logits "
                f"has {n} columns; pass labels 0 … {n - 1}"
            )
        y = target.to(torch.int32)  # on a GPU, where to look would be to wait, J becomes NaN
        weights = weights.masked_fill(odd, torch.nan)
    y, weights = y.contiguous(), weights.contiguous()
    return at.operations.adopt(y), at.operations.adopt(weights)


def _entropy_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.smoothing = inputs
    ctx.save_for_backward(*tensors)


def _entropy_autograd(ctx: Any, gJ: Tensor) -> tuple[Any, ...]:
    return entropy_backward(gJ, *ctx.saved_tensors, ctx.smoothing), None, None, None


entropy.register_autograd(_entropy_autograd, setup_context=_entropy_setup)
entropy_backward.register_autograd(second_derivative("gpumlp::softmax_cross_entropy"))
