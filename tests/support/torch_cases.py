"""Tensors, tolerances and comparisons for tests of the operators in torch."""

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from gpumlp import ACTIVATIONS
from tests.support import in_torch

LABELS = torch.tensor([0, 3, 2, 2, 1, 0])
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.02, torch.float16: 3e-3}


def tensor_maker():
    """A function that makes random tensors of a shape, off the kinks of most activations."""
    generator = torch.Generator().manual_seed(5)

    def tensor(*shape, dtype=torch.float64, grad=True):
        a = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        return a.requires_grad_(grad)

    return tensor


def torch_layer(x, W, b, name, params):
    """f(x Wᵀ + b) by torch's own functions."""
    entry = ACTIVATIONS[name]
    named = dict(zip(entry.params, params, strict=True)) if params else entry.params
    return in_torch.ACTIVATIONS[name](F.linear(x, W, b), **named)


def assert_same(actual, expected, tolerance):
    """Shape, dtype and values agree, up to a share of the largest value."""
    for a, b in zip(actual, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        scale = float(b.detach().abs().max()) if b.numel() else 0
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * scale)


def with_gradients(h, *inputs):
    """h, and the gradients of Σh² with respect to the inputs."""
    return [h.detach(), *torch.autograd.grad((h.double() ** 2).sum(), inputs)]
