"""Tensors and operators in torch on a GPU."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import ACTIVATIONS

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402, N812
from torch import library, nn  # noqa: E402

from gpumlp.interop import torch_ops  # noqa: E402
from gpumlp.interop.torch import FusedMLP, linear_activation, softmax_cross_entropy  # noqa: E402
from tests.support.torch_cases import (  # noqa: E402
    LABELS,
    TOLERANCE,
    assert_same,
    torch_layer,
    with_gradients,
)

if not torch.cuda.is_available():
    pytest.skip("torch sees no GPU", allow_module_level=True)

FACTOR = 100  # products sum in another order, elementary functions differ


def on_gpu(*tensors: Any) -> list[Any]:
    return [t.detach().cuda().requires_grad_(t.requires_grad) for t in tensors]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("stream", ["default", "another"])
def test_a_layer(name: str, dtype: Any, stream: str, tensor: Any) -> None:
    for n_out in (8, 7):
        of = on_gpu(tensor(33, 16), tensor(n_out, 16), tensor(n_out))
        want = [t.to(dtype) for t in with_gradients(torch_layer(*of, name, ()), *of)]
        of = [t.detach().to(dtype).requires_grad_() for t in of]
        with torch.cuda.stream(torch.cuda.Stream() if stream == "another" else None):
            torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())
            got = with_gradients(linear_activation(*of, name), *of)
        torch.cuda.synchronize()
        assert_same(got, want, max(FACTOR * TOLERANCE[torch.float64], 10 * TOLERANCE[dtype]))


def test_operators_pass_opcheck_and_gradcheck(tensor: Any) -> None:
    x, W, b = on_gpu(tensor(3, 4), tensor(2, 4), tensor(2))
    library.opcheck(torch_ops.layer, (x, W, b, "gelu", [], True))
    assert torch.autograd.gradcheck(lambda *of: linear_activation(*of, "gelu"), (x, W, b))
    (logits,) = on_gpu(tensor(6, 4))
    share = torch.full((6,), 1 / 6, dtype=torch.float64, device="cuda")
    library.opcheck(torch_ops.entropy, (logits, LABELS.cuda(), share, 0.1))


def test_cross_entropy(tensor: Any) -> None:
    (logits,) = on_gpu(tensor(6, 4))
    labels = LABELS.masked_fill(LABELS == 2, -100).cuda()
    got = with_gradients(softmax_cross_entropy(logits, labels, 0.1), logits)
    assert_same(
        got, with_gradients(F.cross_entropy(logits, labels, label_smoothing=0.1), logits), 1e-10
    )
    assert torch.isnan(softmax_cross_entropy(logits, labels + 3))  # a label that is not a class


@pytest.mark.parametrize("mode", [None, "default", "reduce-overhead"])
def test_network_trains_like_sequential(mode: str | None) -> None:
    torch.manual_seed(0)
    fused = FusedMLP([20, 64, 48, 4], ["gelu", "relu"], device="cuda", dtype=torch.float64)
    both = fused, nn.Sequential(*copy.deepcopy(list(fused)))
    x = torch.randn(256, 20, device="cuda", dtype=torch.float64)
    y = torch.arange(256, device="cuda") % 4
    for module in both:
        step = torch.optim.AdamW(module.parameters(), lr=0.01)
        run = torch.compile(module, mode=mode) if mode and module is fused else module
        for _ in range(10):
            step.zero_grad()
            F.cross_entropy(run(x), y).backward()
            step.step()
    for a, b in zip(fused.parameters(), both[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_autocast(kind: Any) -> None:
    fused = FusedMLP([20, 64, 4], "silu", device="cuda")
    plain = nn.Sequential(*copy.deepcopy(list(fused)))
    x = torch.randn(64, 20, device="cuda")
    with torch.autocast("cuda", kind):
        got, want = fused(x), plain(x)
    assert got.dtype == want.dtype == kind
    assert_same([got], [want], 0.05)


def test_network_accepts_tensors() -> None:
    """Tensors that torch is still computing.  The result is a tensor on the same device."""
    net = gpumlp.MLP([64, 32, 3], "tanh", precision="float32", backend="cupy")
    with torch.cuda.stream(torch.cuda.Stream()):
        a = torch.randn(2000, 2000, device="cuda")
        for _ in range(20):
            a = torch.tanh(a @ a)
        x = a[:512, 128:192]  # strided, and not computed yet
        p = net.predict(x)
        assert p.is_cuda
        np.testing.assert_allclose(p.cpu(), net.predict(x.cpu()), rtol=1e-4, atol=1e-5)
    y = torch.arange(512, device="cuda") % 3
    assert net.cost(x, y) == pytest.approx(net.cost(x.cpu().numpy(), y.cpu().numpy()), rel=1e-4)
    gpumlp.Trainer(net).fit(x, y, 1, sample_weight=torch.rand(512, device="cuda"), progress=False)
    assert isinstance(net.predict(x.cpu()), torch.Tensor)
    host = gpumlp.MLP([64, 32, 3], "tanh", backend="numpy")
    with pytest.raises(ValueError, match=r"is on cuda:0 but this network computes on the host"):
        host.predict(x)


def test_view_of_layer_writes_through() -> None:
    net = gpumlp.MLP([4, 3], precision="float64", backend="cupy")
    net.backend.synchronize()
    W = torch.from_dlpack(net.layers[0].W)
    before = net.tensors()["0.weight"]
    W.mul_(2)
    np.testing.assert_array_equal(net.tensors()["0.weight"], 2 * before)
    module = nn.Sequential(nn.Linear(4, 3)).double().cuda()
    net.assign(module.state_dict())
    np.testing.assert_array_equal(net.tensors()["0.weight"], module[0].weight.detach().cpu())
    host = gpumlp.MLP([4, 3], precision="float64", backend="numpy")
    host.assign(module.state_dict())
    np.testing.assert_array_equal(host.theta.flat[:12], W.cpu().numpy().ravel())
