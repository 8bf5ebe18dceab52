"""gpumlp in torch: `FusedMLP`, one layer, cross-entropy, and networks from and to torch.

Results and gradients have the shape and dtype of torch's own. Second derivatives,
`torch.func.grad` and `torch.func.jvp` are not supported; use ``torch.nn.Sequential(*fused)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from gpumlp.errors import needs

with needs("gpumlp.interop.torch needs PyTorch", "torch"):
    import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from gpumlp import checks
from gpumlp.functions import Activation
from gpumlp.functions.blocks import blocks
from gpumlp.interop import torch_ops
from gpumlp.interop.torch_modules import known_activation, module_of, to_torch, with_dropout
from gpumlp.interop.torch_networks import from_torch

__all__ = ["FusedMLP", "from_torch", "linear_activation", "softmax_cross_entropy", "to_torch"]


def linear_activation(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "relu", *params: float
) -> Tensor:
    """f(x Wᵀ + b), computed by one operator with its own backward, ``gpumlp::linear_activation``.

    Under autocast x, W and b are cast as `torch.nn.functional.linear` casts them; float64 is not
    cast.

    Args:
        x: (…, n_in) of float64, float32, bfloat16 or float16, on the CPU or a GPU.
        weight: (n_out, n_in), of x's dtype and device.
        bias: (n_out,), of x's dtype and device, or None.
        activation: a name of `gpumlp.ACTIVATIONS`.
        params: the activation's parameters, in their order; none for their default values.

    Returns:
        torch.Tensor: (…, n_out), of x's dtype.

    Raises:
        ValueError, TypeError: shapes, dtypes or devices do not fit, or the name is unknown.
    """
    _check_tensors(x=x, weight=weight, **{} if bias is None else {"bias": bias})
    checks.text(activation, "activation")
    if bias is None:
        bias = weight.new_zeros(weight.shape[:1])
    if _autocasts(x):
        kind = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = (t if t.dtype == torch.float64 else t.to(kind) for t in (x, weight, bias))
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in (x, weight, bias))
    return torch_ops.layer(x, weight, bias, activation, params, keep)[0]


def softmax_cross_entropy(
    logits: Tensor,
    target: Tensor,
    label_smoothing: float = 0.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int = -100,
) -> Tensor:
    """`torch.nn.functional.cross_entropy` of rows, computed by ``gpumlp::softmax_cross_entropy``.

    Under autocast it is computed in float32, as in torch.  A logit of −inf excludes a class; a row
    that has no other is NaN.  Rows with `ignore_index` or weight 0 may hold anything.

    Args:
        logits: (m, n).
        target: labels (m,), or probabilities (m, n), for which no gradient is computed.
        label_smoothing: at least 0, less than 1.
        weight: the weights of the classes, (n,).
        reduction: "mean", weighted by the examples' weights, or "sum".
        ignore_index: the label of examples that are left out.

    Returns:
        torch.Tensor: (), of the logits' dtype.

    Raises:
        ValueError, TypeError: shapes do not fit; or a label is not a class, which is checked only
            on a CPU. On a GPU, where the check would wait for the device, the result is NaN.
    """
    _check_tensors(logits=logits, target=target, **{} if weight is None else {"weight": weight})
    _check_entropy(logits, target, weight, reduction)
    label_smoothing = checks.positive_number(label_smoothing, "label_smoothing", least=0)
    ignore_index = checks.positive_int(ignore_index, "ignore_index", least=-(1 << 63))
    if _autocasts(logits):
        logits = logits if logits.dtype == torch.float64 else logits.float()
    m, n = logits.shape
    kind = torch.float64 if logits.dtype == torch.float64 else torch.float32
    share = torch.ones(m, dtype=kind, device=logits.device)
    labels, of_class = target.ndim == 1, None if weight is None else weight.detach().to(kind)
    if labels:
        counted = target != ignore_index
        target, share = torch.where(counted, target, 0), share * counted
        if of_class is not None:
            # the operator reports a label that is not a class
            share = share * of_class[target.clamp(0, n - 1)]
    total = share.sum()
    if of_class is not None and (label_smoothing > 0 or not labels):
        # smoothed rows times the weights of the classes are targets that need not add up to 1
        rows = nn.functional.one_hot(target.long(), n).to(kind) if labels else target.to(kind)
        target = (rows * (1 - label_smoothing) + label_smoothing / n) * of_class
        label_smoothing, share = 0.0, counted.to(kind) if labels else share
    if reduction == "mean":
        share = share / (total + (total == 0))
    J: Tensor = torch_ops.entropy(logits, target, share, label_smoothing)
    # the mean of nothing is NaN, and its gradient 0, as in torch
    return J + (0 / total).to(J.dtype) if reduction == "mean" else J


def _check_tensors(**tensors: Any) -> None:
    unpack: Any = forward_ad.unpack_dual  # which has no types
    for name, t in tensors.items():
        if not isinstance(t, Tensor):
            raise TypeError(
                f"{name} must be a torch.Tensor, got {type(t).__name__}; pass "
                f"torch.as_tensor({name})"
            )
        if t.layout != torch.strided or t.is_nested:
            dense = f"torch.cat({name}.unbind())" if t.is_nested else f"{name}.to_dense()"
            raise TypeError(f"{name} is not a dense tensor; pass {dense}")
        if torch.compiler.is_compiling():
            continue
        # without this, torch takes the forward-mode derivative of its operators for 0
        if torch._C._functorch.is_gradtrackingtensor(t) or unpack(t).tangent is not None:
            raise NotImplementedError(
                f"gpumlp's operators have no derivatives of torch.func, and none in forward mode, "
                f"for {name}; use torch's own: torch.nn.Sequential(*fused), "
                "torch.nn.functional.cross_entropy"
            )


def _autocasts(t: Tensor) -> bool:
    return t.device.type in ("cpu", "cuda") and torch.is_autocast_enabled(t.device.type)


def _check_entropy(logits: Tensor, target: Tensor, weight: Tensor | None, reduction: str) -> None:
    if reduction not in ("mean", "sum"):
        raise ValueError(
            f'reduction must be "mean" or "sum", got {reduction!r}; '
            "torch.nn.functional.cross_entropy gives each example's"
        )
    if logits.ndim != 2 or target.shape not in (logits.shape[:1], logits.shape):
        raise ValueError(
            f"logits has shape {tuple(logits.shape)} and target {tuple(target.shape)}; "
            "pass logits (m, n) and labels (m,) or probabilities (m, n)"
        )
    if target.ndim == 1 and target.is_floating_point():
        raise TypeError(f"target has labels of {target.dtype}; pass whole numbers, target.long()")
    if target.requires_grad:
        raise ValueError(
            "target requires grad, but no gradient is computed for it; pass target.detach()"
        )
    if weight is not None and weight.shape != logits.shape[1:]:
        raise ValueError(
            f"weight has shape {tuple(weight.shape)} but logits has {logits.shape[1]} classes"
        )


class FusedMLP(nn.Sequential):
    """``torch.nn.Sequential(Linear, activation, …, Linear)`` with one operator for each layer.

    Parameters, `state_dict`, initial weights and results are those of the Sequential; optimizers,
    deepcopy, pickle, `to`, `torch.compile` and `torch.export` work in the same way. A Linear and an
    activation of `gpumlp.ACTIVATIONS` after it are computed together. Any other module, such as a
    LayerNorm in `from_sequential`, and a Linear with hooks or a parametrization, is called
    unchanged.

    On a CPU, NumPy computes the products. On a GPU the kernels run on torch's current stream, in
    tf32 if ``torch.set_float32_matmul_precision`` allows it; each stream needs 64 MiB of workspace.

    Args:
        widths: n_0, …, n_L: inputs, hidden layers, outputs.
        activation: of the hidden layers: a name or entry of `gpumlp.ACTIVATIONS`, or one for each.
        output_activation: of the last layer.
        dropout: the probability of torch.nn.Dropout after the activation of a hidden layer, in
            training mode: one for all, or one for each.
        device, dtype: of the parameters, as for `torch.nn.Linear`.

    Raises:
        ValueError, TypeError: an argument is invalid.
    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: str | Activation | Sequence[str | Activation] = "relu",
        output_activation: str | Activation = "identity",
        *,
        dropout: float | Sequence[float] = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        checked = checks.widths(widths)
        functions = checks.layer_activations(len(checked) - 2, activation, output_activation)[1:]
        rates = [block.dropout for block in blocks(checked, None, dropout, False, None)]
        modules: list[nn.Module] = []
        for k, f in enumerate(functions):
            linear = nn.Linear(checked[k], checked[k + 1], device=device, dtype=dtype)
            modules += [linear, with_dropout(module_of(f), rates[k] if rates else 0.0)]
        if isinstance(modules[-1], nn.Identity):
            modules.pop()
        super().__init__(*modules)

    @classmethod
    def from_sequential(cls, module: nn.Sequential) -> Self:
        """A FusedMLP of the same modules (not copies), under the same names."""
        in_order = isinstance(module, nn.Sequential) and "forward" not in vars(module)
        if not in_order or type(module).forward not in (nn.Sequential.forward, FusedMLP.forward):
            own = " with a forward of its own" * isinstance(module, nn.Sequential)
            raise TypeError(
                f"module must be a torch.nn.Sequential, got {type(module).__name__}{own}; call one "
                "with skips or gates as it is, or train it as a gpumlp.MLP: from_torch(module)"
            )
        fused = cls.__new__(cls)
        nn.Sequential.__init__(fused)
        for name, part in module._modules.items():  # children() gives a repeated module only once
            fused.add_module(name, part)
        return fused.train(module.training)

    def forward(self, input: Tensor) -> Tensor:
        """ŷ (…, n_L) for x (…, n_0)."""
        if isinstance(input, torch.fx.Proxy):  # symbolic_trace reads torch's own modules
            return super().forward(input)
        parts: list[Any] = list(self._modules.values())
        while parts:
            part = parts.pop(0)
            if type(part) is not nn.Linear or _has_hooks(part):
                input = part(input)
                continue
            if parts and _begins_with_activation(parts[0]):  # and has a Dropout after it
                parts[:1] = parts[0]._modules.values()  # children() gives a repeated one only once
            f = known_activation(parts[0]) if parts and not _has_hooks(parts[0]) else None
            if len(parts) > 1 and getattr(parts[1], "inplace", False):
                f = None  # it would overwrite h, which the operator keeps for its gradient
            if f is not None:
                parts.pop(0)
            name, params = f or ("identity", ())
            input = linear_activation(input, part.weight, part.bias, name, *params)
        return input

    def __getitem__(self, index: Any) -> Any:
        """A module, or a FusedMLP of the modules in a slice."""
        if not isinstance(index, slice):
            return super().__getitem__(index)
        return self.from_sequential(nn.Sequential(*list(self)[index]))


def _begins_with_activation(module: Any) -> bool:
    """Whether it is a Sequential, called without hooks, whose first module is an activation."""
    if type(module) is not nn.Sequential or not len(module) or _has_hooks(module):
        return False
    return known_activation(module[0]) is not None


def _has_hooks(module: Any) -> bool:
    """Whether a call of the module does more than its class's forward."""
    forward = module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__
    own = forward or module._backward_hooks or module._backward_pre_hooks
    of_all: Any = nn.modules.module._has_any_global_hook  # which has no types
    return bool(own or of_all())
