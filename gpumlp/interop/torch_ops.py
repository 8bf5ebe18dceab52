"""Backend operations as torch operators: a layer and cross-entropy, each with its backward.

An operator computes on the memory of its tensors: on a CPU with the NumPy backend, on a GPU with
the CUDA backend on torch's current stream. On a CPU 16-bit tensors are computed in float32, and the
results are rounded.
"""

# torch makes the schemas from the annotations: these are no strings, and the lists are of `typing`
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Sequence  # noqa: UP035

import torch
from torch import Tensor, library

from gpumlp.functions import ACTIVATIONS, LOSSES, Activation, Loss
from gpumlp.functions.activations import identity
from gpumlp.functions.entry import lookup
from gpumlp.interop.torch_backend import TorchBackend, backend_of
from gpumlp.io.types import Array

# the first use of a stream allocates memory, which a graph capture of torch's does not allow; older
# versions of torch have no tag for this
UNSAFE = getattr(torch.Tag, "cudagraph_unsafe", None)
TAGS: dict[str, Any] = {} if UNSAFE is None else {"tags": (UNSAFE,)}
operator: Callable[..., Any] = partial(library.custom_op, mutates_args=(), **TAGS)


def no_second_derivative(name: str) -> Callable[..., Any]:
    """The derivative of a backward operator: an error."""

    def backward(ctx: Any, *gradients: Any) -> None:
        raise NotImplementedError(
            f"{name} has no second derivative; differentiate twice through torch's own module: "
            "torch.nn.Sequential(*fused)"
        )

    return backward


@cache
def activation_of(name: str, params: tuple[float, ...]) -> Activation:
    """The entry `name` of `ACTIVATIONS` with these parameters, in their order; none for its own."""
    entry = lookup(ACTIVATIONS, "activation", name)
    if len(params) not in (0, len(entry.params)):
        expected = ", ".join(entry.params) or "none"
        raise ValueError(f"{name} has the parameters {expected}; got {len(params)} numbers")
    return entry.set(**dict(zip(entry.params, params, strict=True))) if params else entry


# ---- a layer ------------------------------------------------------------------------------------


@operator("gpumlp::linear_activation")
def layer(
    x: Tensor, weight: Tensor, bias: Tensor, activation: str, params: Sequence[float], keep: bool
) -> tuple[Tensor, Tensor]:
    """h = f(z), z = x Wᵀ + b. Returns h, and z if `keep` and f' reads it, else an empty tensor."""
    h, z = _layer_shapes(x, weight, bias, activation, params, keep)
    n, f = len(weight), activation_of(activation, tuple(params))
    if h.numel():
        with backend_of(x) as at:
            out = at.output(h, n)
            pre = at.output(z, n) if z.numel() else out
            inputs = at.input(x, x.shape[-1]), at.input(weight), at.input(bias)
            at.backend.affine_activation(*inputs, f, pre, out)
    return h, z


@layer.register_fake
def _layer_shapes(
    x: Tensor, weight: Tensor, bias: Tensor, activation: str, params: Sequence[float], keep: bool
) -> tuple[Tensor, Tensor]:
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise ValueError(
            f"weight has shape {tuple(weight.shape)} and bias {tuple(bias.shape)}; pass weight of "
            "shape (n_out, n_in) and bias of shape (n_out,)"
        )
    n_out, n_in = weight.shape
    if x.ndim == 0 or x.shape[-1] != n_in:
        raise ValueError(
            f"x has shape {tuple(x.shape)} but the layer's weight has {(n_out, n_in)}; "
            f"pass x of shape (…, {n_in})"
        )
    for name, part in ("x", x), ("bias", bias):
        if part.dtype != weight.dtype or part.device != weight.device:
            raise TypeError(
                f"{name} is {part.dtype} on {part.device} but the layer is {weight.dtype} on "
                f"{weight.device}; pass {name}.to(weight)"
            )
    h = x.new_empty((*x.shape[:-1], n_out))
    keep_z = keep and "z" in activation_of(activation, tuple(params)).reads
    return h, x.new_empty(h.shape if keep_z else (0,))


@operator("gpumlp::linear_activation_backward")
def layer_backward(
    gh: Tensor, x: Tensor, weight: Tensor, z: Tensor, h: Tensor, activation: str,
    params: Sequence[float], needs: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """gx = gz W, dW = gzᵀ x and db, the column sums of gz = gh ⊙ f'(z) or Jᵀ gh.

    `needs` says which of the three to compute; the others are (0,), as z and h not read by f'.
    """
    gx, dW, db = _layer_gradients(gh, x, weight, needs)
    (n_out, n_in), f = weight.shape, activation_of(activation, tuple(params))
    if not gh.numel():
        return gx, dW.zero_(), db.zero_()
    with backend_of(gh) as at:
        slope = at.input(gh, n_out)
        pre, out = (at.input(a, n_out) if a.numel() else slope for a in (z, h))
        gz = at.empty(gh, gh.numel() // n_out, n_out)
        sums = at.output(db) if needs[2] else at.empty(gh, n_out)
        at.backend.activation_gradient(f, pre, out, slope, gz, sums)
        if needs[1]:
            at.backend.weight_gradient(gz, at.input(x, n_in), at.output(dW), None)
        if needs[0]:
            at.backend.input_gradient(gz, at.input(weight), at.output(gx, n_in))
    return gx, dW, db


@layer_backward.register_fake
def _layer_gradients(gh: Tensor, x: Tensor, weight: Tensor, *others: Any) -> list[Tensor]:
    shapes = x.shape, weight.shape, weight.shape[:1]
    *_, needs = others
    return [gh.new_empty(s if needed else (0,)) for s, needed in zip(shapes, needs, strict=True)]


def _layer_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, _, ctx.activation, ctx.params, ctx.keep = inputs
    h, z = output
    ctx.set_materialize_grads(False)
    reads = ACTIVATIONS[ctx.activation].reads
    ctx.save_for_backward(x, weight, z, h if "h" in reads else z.new_empty(0))


def _layer_autograd(ctx: Any, gh: Tensor | None, _: None) -> tuple[Any, ...]:
    if not ctx.keep:
        raise RuntimeError(
            "gpumlp::linear_activation stored nothing for its gradient; call it with keep=True"
        )
    if gh is None:
        return (None,) * 6
    needs = list(ctx.needs_input_grad[:3])
    gradients = layer_backward(gh, *ctx.saved_tensors, ctx.activation, ctx.params, needs)
    each = (g if needed else None for g, needed in zip(gradients, needs, strict=True))
    return (*each, None, None, None)


layer.register_autograd(_layer_autograd, setup_context=_layer_setup)
layer_backward.register_autograd(no_second_derivative("gpumlp::linear_activation"))


# ---- cross-entropy ------------------------------------------------------------------------------


@operator("gpumlp::softmax_cross_entropy")
def entropy(logits: Tensor, target: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    """J = Σᵢ weightsᵢ Lᵢ, () in the logits' dtype.

    logits (m, n); target: labels (m,) or probabilities (m, n); weights (m,).
    """
    J = torch.zeros(1, dtype=torch.float64, device=logits.device)
    if logits.numel():
        with backend_of(logits) as at:
            loss, y, share = _loss_inputs(at, logits, target, weights, smoothing)
            at.backend.loss(loss, at.input(logits), y, share, at.adopt(J))
    return J.to(logits.dtype).reshape(())


entropy.register_fake(lambda logits, *_: logits.new_empty(()))


@operator("gpumlp::softmax_cross_entropy_backward")
def entropy_backward(
    gJ: Tensor, logits: Tensor, target: Tensor, weights: Tensor, smoothing: float
) -> Tensor:
    """gJ ∇J with respect to the logits, (m, n)."""
    gradient = logits.new_empty(logits.shape)
    if logits.numel():
        with backend_of(logits) as at:
            share = weights * gJ.to(weights.dtype)
            loss, y, share = _loss_inputs(at, logits, target, share, smoothing)
            J, db = at.empty(logits, 1, dtype=torch.float64), at.empty(logits, logits.shape[1])
            h, gz = at.input(logits), at.output(gradient)
            at.backend.output_gradient(loss, identity, h, h, y, share, at.unscaled, gz, gz, db, J)
    return gradient


entropy_backward.register_fake(lambda gJ, logits, *_: logits.new_empty(logits.shape))


def _loss_inputs(
    at: TorchBackend, logits: Tensor, target: Tensor, weights: Tensor, smoothing: float
) -> tuple[Loss, Array, Array]:
    """The loss, and labels or probabilities and weights in the dtypes that the operations take."""
    theta = torch.float64 if at.dtype == torch.float64 else torch.float32
    weights = weights.to(theta)
    if target.ndim == 2:
        y = target.to(theta)
    else:
        n = logits.shape[1]
        outside = (target < 0) | (target >= n)
        if logits.device.type == "cpu" and bool(outside.any()):
            raise ValueError(
                f"target has labels from {int(target.min())} to {int(target.max())} but logits "
                f"has {n} columns; pass labels 0 … {n - 1}"
            )
        y = target.to(torch.int32)
        # on a GPU, where a check would wait for the device, J becomes NaN
        weights = weights.masked_fill(outside, torch.nan)
    loss = LOSSES["softmax_cross_entropy"].set(smoothing=smoothing)
    return loss, at.adopt(y.contiguous()), at.adopt(weights.contiguous())


def _entropy_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.smoothing = inputs
    ctx.save_for_backward(*tensors)


def _entropy_autograd(ctx: Any, gJ: Tensor) -> tuple[Any, ...]:
    return entropy_backward(gJ, *ctx.saved_tensors, ctx.smoothing), None, None, None


entropy.register_autograd(_entropy_autograd, setup_context=_entropy_setup)
entropy_backward.register_autograd(no_second_derivative("gpumlp::softmax_cross_entropy"))
