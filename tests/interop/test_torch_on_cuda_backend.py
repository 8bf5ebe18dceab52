"""torch's operators in the CUDA backend, its real kernels on the CPU; tensors stand for a GPU's."""

from functools import cache, partial

import pytest

from gpumlp import ACTIVATIONS
from gpumlp.backends.cuda.backend import CudaBackend
from tests.support.harness.host_device import HostDevice

torch = pytest.importorskip("torch")

from gpumlp.interop import torch_backend  # noqa: E402
from gpumlp.interop.torch import FusedMLP, linear_activation, softmax_cross_entropy  # noqa: E402
from tests.interop.test_torch_ops import LABELS, TOLERANCE, assert_same, made, with_gradients  # noqa: E402, F401


@pytest.fixture
def devices(monkeypatch):
    """The devices of the CUDA backend that takes the NumPy backend's place, by precision."""
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
    """What a function gives in the CUDA backend, and in the NumPy backend."""
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
def test_a_layer(name, dtype, both, made, devices):  # noqa: F811
    for rows in (1, 9, 40):
        x, W, b = made(rows, 16, dtype=dtype), made(8, 16, dtype=dtype), made(8, dtype=dtype)
        got, want = both(partial(layer, x, W, b, name))
        assert_same(got, want, 4 * TOLERANCE[dtype])
    (device,) = devices.values()
    assert sum(call.startswith("gemm") for call in device.calls) == 9


def test_odd_widths_and_leading_axes(both, made):  # noqa: F811
    x, W, b = made(2, 3, 5), made(7, 5), made(7)
    for name in ("relu", "gelu", "softmax"):
        got, want = both(partial(layer, x, W, b, name))
        assert_same(got, want, 1e-12)


def test_an_empty_batch_launches_nothing(devices, made):  # noqa: F811
    x, W, b = made(0, 5), made(7, 5), made(7)
    h, gx, gW, gb = with_gradients(linear_activation(x, W, b, "relu"), x, W, b)
    assert (h.shape, gx.shape) == ((0, 7), (0, 5))
    assert not gW.any()
    assert not gb.any()
    assert not devices


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_cross_entropy(dtype, both, made):  # noqa: F811
    logits, p = made(6, 4, dtype=dtype), made(6, 4, dtype=dtype, grad=False).softmax(dim=1)
    for y in (LABELS, LABELS.masked_fill(LABELS == 2, -100), p):
        got, want = both(lambda y=y: with_gradients(softmax_cross_entropy(logits, y, 0.1), logits))
        assert_same(got, want, TOLERANCE[dtype])


def test_a_network_trains_as_in_the_numpy_backend(both):
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


def test_tensors_are_neither_copied_nor_waited_for(devices, made):  # noqa: F811
    """No upload, no download and no synchronisation in a layer's way up and down."""
    x, W, b = made(9, 16), made(8, 16), made(8)
    linear_activation(x, W, b, "silu").sum().backward()
    (device,) = devices.values()
    device.calls.clear()
    linear_activation(x, W, b, "silu").sum().backward()
    kinds = {call.split()[0] for call in device.calls}
    assert kinds == {"adopt", "gemm", "kernel"}
