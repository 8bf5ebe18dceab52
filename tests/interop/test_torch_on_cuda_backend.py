"""The operators in torch on the CUDA backend, whose kernels run on the CPU on CPU tensors."""

from functools import cache, partial

import pytest

from gpumlp import ACTIVATIONS
from gpumlp.backends.cuda.backend import CudaBackend
from tests.support.harness.host_device import HostDevice

torch = pytest.importorskip("torch")

from gpumlp.interop import torch_backend  # noqa: E402
from gpumlp.interop.torch import FusedMLP, linear_activation, softmax_cross_entropy  # noqa: E402
from tests.support.torch_cases import (  # noqa: E402  (needs torch)
    LABELS,
    TOLERANCE,
    assert_same,
    with_gradients,
)


@pytest.fixture
def devices(monkeypatch):
    """The devices of the CUDA backend, by precision; it replaces the NumPy backend."""
    found = {}

    @cache
    def backend_for(precision, *where):
        found[precision] = HostDevice(order=len(found) % 2)
        return torch_backend.TorchBackend(CudaBackend(found[precision], precision))

    monkeypatch.setattr(torch_backend, "backend_for", backend_for)
    monkeypatch.setattr(torch_backend, "HALVES", ())  # a GPU has 16 bits
    return found


@pytest.fixture
def both(devices, monkeypatch):
    """The results of a function on the CUDA backend and on the NumPy backend."""
    gpu = torch_backend.backend_for

    def call(work):
        got = work()
        with monkeypatch.context() as patch:
            patch.setattr(torch_backend, "backend_for", NUMPY)
            patch.setattr(torch_backend, "HALVES", HALVES)
            want = work()
        assert torch_backend.backend_for is gpu
        return got, want

    return call


NUMPY, HALVES = torch_backend.backend_for, torch_backend.HALVES


def layer(x, W, b, name):
    return with_gradients(linear_activation(x / 4, W, b, name), x, W, b)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_layer(name, dtype, both, tensor, devices):
    for rows in (1, 9, 40):
        x, W, b = tensor(rows, 16, dtype=dtype), tensor(8, 16, dtype=dtype), tensor(8, dtype=dtype)
        got, want = both(partial(layer, x, W, b, name))
        assert_same(got, want, 4 * TOLERANCE[dtype])
    (device,) = devices.values()
    assert sum(call.startswith("gemm") for call in device.calls) == 9


def test_odd_widths_and_leading_axes(both, tensor):
    x, W, b = tensor(2, 3, 5), tensor(7, 5), tensor(7)
    for name in ("relu", "gelu", "softmax"):
        got, want = both(partial(layer, x, W, b, name))
        assert_same(got, want, 1e-12)


def test_empty_batch_launches_nothing(devices, tensor):
    x, W, b = tensor(0, 5), tensor(7, 5), tensor(7)
    h, gx, gW, gb = with_gradients(linear_activation(x, W, b, "relu"), x, W, b)
    assert (h.shape, gx.shape) == ((0, 7), (0, 5))
    assert not gW.any()
    assert not gb.any()
    assert not devices


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_cross_entropy(dtype, both, tensor):
    logits, p = tensor(6, 4, dtype=dtype), tensor(6, 4, dtype=dtype, grad=False).softmax(dim=1)
    for y in (LABELS, LABELS.masked_fill(LABELS == 2, -100), p):
        got, want = both(lambda y=y: with_gradients(softmax_cross_entropy(logits, y, 0.1), logits))
        assert_same(got, want, TOLERANCE[dtype])


def test_network_trains_as_on_the_numpy_backend(both):
    def trained():
        torch.manual_seed(2)
        net = FusedMLP([6, 24, 16, 4], ["gelu", "relu"])
        x = torch.randn(32, 6)
        step = torch.optim.AdamW(net.parameters(), lr=0.01)
        costs = []
        for _ in range(5):
            step.zero_grad()
            J = softmax_cross_entropy(net(x), torch.arange(32) % 4)
            J.backward()
            step.step()
            costs.append(J.detach())
        return [torch.stack(costs), *(p.detach() for p in net.parameters())]

    got, want = both(trained)
    assert_same(got, want, 1e-4)
    assert want[0][-1] < want[0][0]


def test_tensors_are_not_copied(devices, tensor):
    """Forward and backward of a layer need no upload, no download and no synchronisation."""
    x, W, b = tensor(9, 16), tensor(8, 16), tensor(8)
    linear_activation(x, W, b, "silu").sum().backward()
    (device,) = devices.values()
    device.calls.clear()
    linear_activation(x, W, b, "silu").sum().backward()
    kinds = {call.split()[0] for call in device.calls}
    assert kinds == {"adopt", "gemm", "kernel"}
