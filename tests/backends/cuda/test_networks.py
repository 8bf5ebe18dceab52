"""Whole networks on the CUDA backend, its real kernels executed on the CPU, against the NumPy backend.

The device gives memory full of NaN, so that a buffer read before it is written shows.  The launches
of one training step are compared with committed lists.  After a change that is meant:

    python -m tests.backends.cuda.test_networks
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import ACTIVATIONS, LOSSES, OPTIMIZERS
from gpumlp.backends.cuda.backend import CudaBackend
from tests.support import networks
from tests.support.harness.catalogue import PULL
from tests.support.harness.host_device import HostArray, HostDevice

TOLERANCE = {"float64": 1e-12, "float32": 2e-5}  # of the largest entry
RESOURCES = Path(__file__).parents[2] / "resources"


def on_cuda_backend(net: gpumlp.MLP, order: int = 0, **changes: Any) -> gpumlp.MLP:
    """The same network on the harness, in another order of blocks and threads."""
    backend = CudaBackend(HostDevice(order), changes.pop("precision", net.precision))
    settings = net.config() | {"precision": backend.precision} | changes
    twin = gpumlp.MLP(**settings, backend=backend)
    twin.assign(net.tensors())
    return twin


def device(net: gpumlp.MLP) -> HostDevice:
    found: HostDevice = net.backend._device
    return found


def on_host(a: Any) -> Any:
    """An array of the harness, of CuPy or of NumPy as NumPy's."""
    return a.values if isinstance(a, HostArray) else a.get() if hasattr(a, "get") else a


def assert_same(got: Any, want: Any, tolerance: float) -> None:
    got = on_host(got)
    largest = np.abs(want).max(initial=0)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * largest)


def check(net: gpumlp.MLP, gpu: gpumlp.MLP, loss: str, m: int = 9) -> None:
    """ŷ, J and every gradient."""
    x, y, weights = networks.batch(loss, np.random.default_rng(m), m)
    tolerance = TOLERANCE[net.precision]
    assert_same(gpu.forward(x), net.forward(x), tolerance)
    assert_same(gpu.predict(x), net.predict(x), tolerance)
    J, gradients = net.cost_and_gradients(x, y, weights)
    J_gpu, gradients_gpu = gpu.cost_and_gradients(x, y, weights)
    assert_same(J_gpu, J, tolerance)
    assert_same(gpu.cost(x, y, weights), J, tolerance)
    for got, want in zip(networks.parts(gradients_gpu), networks.parts(gradients), strict=True):
        for one, other in zip(got, want, strict=True):
            assert_same(one, other, tolerance)


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("f", ACTIVATIONS)
def test_every_activation_with_every_loss(f: str, precision: str) -> None:
    for loss in LOSSES:
        for output in networks.output_activations(f, loss):
            net = networks.network(f, loss, 3, output, precision=precision, regularizer=PULL)
            check(net, on_cuda_backend(net), loss)


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("regularizer", networks.REGULARIZERS)
def test_every_depth_and_regularizer(depth: int, regularizer: Any) -> None:
    loss = "softmax_cross_entropy"
    net = networks.network("silu", loss, depth, regularizer=regularizer)
    check(net, on_cuda_backend(net), loss)


@pytest.mark.parametrize("widths", [(1, 1, 1), (8, 16, 4), (3, 65, 2), (129, 257, 33)])
@pytest.mark.parametrize("m", [1, 2, 257])
def test_widths_and_minibatches(widths: tuple[int, ...], m: int) -> None:
    """Widths that allow 16-byte accesses, and widths that do not; labels; no bias penalty."""
    rng = np.random.default_rng(m)
    net = gpumlp.MLP(
        widths, "tanh", regularizer=gpumlp.L2(0.1, biases=False), precision="float64",
        backend="numpy",
    )  # fmt: skip
    gpu = on_cuda_backend(net)
    x, y = rng.normal(size=(m, widths[0])), rng.integers(0, widths[-1], m)
    J, gradients = net.cost_and_gradients(x, y)
    J_gpu, gradients_gpu = gpu.cost_and_gradients(x, y)
    assert_same(J_gpu, J, 1e-12)
    for got, want in zip(networks.parts(gradients_gpu), networks.parts(gradients), strict=True):
        for one, other in zip(got, want, strict=True):
            assert_same(one, other, 1e-12)


@pytest.mark.parametrize("ask", ["forward", "predict"])
def test_no_kernel_is_launched_on_no_rows(ask: str) -> None:
    """A grid of no blocks is an error of the driver; the public function answers first."""
    gpu = on_cuda_backend(networks.network("tanh", "huber", 2))
    device(gpu).calls.clear()
    with pytest.raises(ValueError, match="x"):
        getattr(gpu, ask)(np.empty((0, 3)))
    assert not device(gpu).launches


def test_a_layer_of_softmax_below_others() -> None:
    net = networks.network(["softmax", "tanh", "softmax"], "squared_error", 4)
    check(net, on_cuda_backend(net), "squared_error", m=40)


def test_tf32_is_float32_with_another_product() -> None:
    net = networks.network("relu", "huber", 3, precision="float32")
    gpu = on_cuda_backend(net, precision="tf32")
    check(net, gpu, "huber")
    products = [call for call in device(gpu).calls if call.startswith("gemm")]
    assert products
    assert all(call.endswith(" tf32") for call in products)


# ---- training ------------------------------------------------------------------------------------


def problem(m: int = 70) -> tuple[Any, Any, Any]:
    """x (m, 5), labels and sample weights."""
    rng = np.random.default_rng(11)
    x = rng.normal(size=(m, 5))
    return x, (x[:, 0] > 0).astype(int) + (x[:, 1] > x[:, 2]), rng.integers(0, 4, m)


def trained(net: gpumlp.MLP, optimizer: str = "adamw", steps: int = 20, **settings: Any) -> Any:
    """The trainer after that many steps, in minibatches of 16 and a smaller last one."""
    x, y, weights = problem()
    trainer = gpumlp.Trainer(net, optimizer, batch_size=16, **settings)
    trainer.fit(x, y, steps // 5, sample_weight=weights, progress=False)
    assert trainer.steps == steps
    return trainer


def classifier(f: str = "gelu", **settings: Any) -> gpumlp.MLP:
    settings = {"precision": "float64", "backend": "numpy", "regularizer": PULL} | settings
    return gpumlp.MLP([5, 9, 8, 3], f, **settings)


def test_twenty_steps_of_adamw() -> None:
    net = classifier()
    gpu = on_cuda_backend(net)
    want = trained(net, lr=0.01)
    got = trained(gpu, lr=0.01)
    assert_same(gpu.theta.flat, net.theta.flat, 1e-12)
    assert_same(got.slots, want.slots, 1e-12)
    np.testing.assert_allclose(got.history["cost"], want.history["cost"], rtol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_every_optimizer(name: str, clip_norm: float | None) -> None:
    net = classifier("tanh")
    gpu = on_cuda_backend(net)
    for each in (net, gpu):
        trained(each, name, steps=5, lr=0.01, clip_norm=clip_norm)
    assert_same(gpu.theta.flat, net.theta.flat, 1e-12)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_every_order_gives_the_same_bits(precision: str) -> None:
    net, bits = classifier(precision=precision), set()
    for order in (0, 1, 2, 3):
        gpu = on_cuda_backend(net, order)
        trained(gpu, steps=10, clip_norm=0.5)
        bits.add(gpu.theta.flat.values.tobytes())
    assert len(bits) == 1


def test_a_gradient_of_nan_shows_in_the_next_cost() -> None:
    """Clipping does not hide it: the norm is not finite, and then θ is NaN."""
    x, y, _ = problem(16)
    gpu = on_cuda_backend(classifier())
    gpu.layers[1].W[0] = np.nan
    with pytest.raises(FloatingPointError, match="diverged"):
        gpumlp.Trainer(gpu, clip_norm=1.0, batch_size=16).fit(x, y, 2, progress=False)


# ---- memory --------------------------------------------------------------------------------------


def test_a_full_device_leaves_theta_as_it_was() -> None:
    """Whichever allocation fails; and the next attempt goes on as if nothing had happened."""
    x, y, weights = problem()
    net = classifier()

    def attempt(net: gpumlp.MLP) -> None:
        trainer = gpumlp.Trainer(net, batch_size=16, clip_norm=1.0)
        trainer.fit(x, y, 1, sample_weight=weights, validation=(x, y), progress=False)

    gpu, expected = on_cuda_backend(net), on_cuda_backend(net)
    before = gpu.theta.flat.values.tobytes()
    attempt(expected)
    after = expected.theta.flat.values.tobytes()
    failed = 0
    while True:
        device(gpu).empties_left = failed
        try:
            attempt(gpu)
        except gpumlp.DeviceError:
            failed += 1
            assert gpu.theta.flat.values.tobytes() == before
            continue
        break
    assert failed >= 10
    assert gpu.theta.flat.values.tobytes() == after


def test_gradients_on_a_full_device() -> None:
    x, y, weights = problem()
    gpu = on_cuda_backend(classifier())
    want, gradients = gpu.cost_and_gradients(x, y, weights)
    failed = 0
    while True:
        device(gpu).empties_left = failed
        try:
            J, again = gpu.cost_and_gradients(x, y, weights)
        except gpumlp.DeviceError:
            failed += 1
            continue
        break
    assert failed >= 10
    assert want == J
    assert again.W[0].values.tobytes() == gradients.W[0].values.tobytes()


# ---- the launches of one step --------------------------------------------------------------------


class Step(gpumlp.Callback):
    """Keeps what the last step asked of the device: the first compiles, the second records."""

    def __init__(self, calls: list[str]) -> None:
        self.calls, self.last = calls, [""]

    def on_step_end(self, trainer: gpumlp.Trainer) -> None:
        self.last = list(self.calls)
        self.calls.clear()


def launches(f: str, optimizer: str) -> list[str]:
    """Of one step of 784-256-256-10 with minibatches of 128, on a device of an H100's size."""
    backend = CudaBackend(HostDevice(multiprocessors=132), "float32")
    net = gpumlp.MLP([784, 256, 256, 10], f, regularizer=gpumlp.L2(1e-4), backend=backend)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(384, 784)), rng.integers(0, 10, 384)  # the third step is a replay
    step = Step(backend._device.calls)
    gpumlp.Trainer(net, optimizer, batch_size=128).fit(x, y, 1, callbacks=[step], progress=False)
    replay, *calls = step.last
    assert replay == f"replay of {len(calls)}"
    return calls


STEPS = [("relu", "adamw"), ("gelu", "adamw"), ("gelu", "sgd")]


@pytest.mark.parametrize(("f", "optimizer"), STEPS)
def test_the_launches_of_a_step(f: str, optimizer: str) -> None:
    """No more work than committed, and nothing that waits, copies or allocates."""
    found = launches(f, optimizer)
    assert found == (RESOURCES / f"launches_{f}_{optimizer}.txt").read_text().splitlines()
    assert all(call.startswith(("kernel", "gemm")) for call in found)


if __name__ == "__main__":
    for step in STEPS:
        text = "\n".join(launches(*step)) + "\n"
        (RESOURCES / f"launches_{'_'.join(step)}.txt").write_text(text)
