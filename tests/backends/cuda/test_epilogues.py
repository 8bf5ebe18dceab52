"""Networks whose products do the activation, on the harness, against the NumPy backend."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.cuda.backend import CudaBackend
from tests.support.cuda_networks import (
    assert_same,
    device,
    fusible_network,
    on_cuda_backend,
    on_host,
    random_labels,
)
from tests.support.harness.host_device import HostDevice

WAYS: dict[str, Callable[[str], bool]] = {
    "all": lambda name: True,
    "upward": lambda name: not name.startswith("d"),
    "downward": lambda name: name.startswith("d"),
    "none": lambda name: False,
}


def fused(gpu: gpumlp.MLP) -> list[str]:
    """The epilogues so far, in order."""
    products = [call.split() for call in device(gpu).calls if call.startswith("gemm")]
    return [words[-1] for words in products if "bias" in words[-1] or "bgrad" in words[-1]]


def check(net: gpumlp.MLP, gpu: gpumlp.MLP, m: int = 21) -> None:
    x, y = random_labels(net, m)
    assert_same(gpu.forward(x), net.forward(x), 2e-5)
    for intermediate in (False, True):
        J, want = net.cost_and_gradients(x, y, intermediate=intermediate)
        J_gpu, got = gpu.cost_and_gradients(x, y, intermediate=intermediate)
        assert_same(J_gpu, J, 2e-5)
        for parts in ("W", "b", "z", "h"):
            for one, other in zip(getattr(got, parts), getattr(want, parts), strict=True):
                assert_same(one, other, 2e-5)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("f", ["relu", "gelu", "identity", "tanh"])
def test_every_way_gives_the_same_gradients(f: str, way: str) -> None:
    net = fusible_network(f)
    gpu = on_cuda_backend(net)
    device(gpu).fuses = WAYS[way]
    check(net, gpu)


@pytest.mark.parametrize("f", ["relu", "gelu"])
def test_what_is_fused(f: str) -> None:
    """Up and down where gz alone is kept, without aux where nothing is, never below one output."""
    gpu = on_cuda_backend(fusible_network(f, output_activation="identity"))
    x, y = random_labels(gpu)
    gpu.forward(x)
    assert fused(gpu) == 3 * [f"{f}_bias"]
    device(gpu).calls.clear()
    gpu.cost_and_gradients(x, y, intermediate=False)
    assert fused(gpu) == 3 * [f"{f}_aux_bias"] + 3 * [f"d{f}_bgrad"]
    device(gpu).calls.clear()
    gpu.cost_and_gradients(x, y)  # which keeps gh, that a product with an epilogue does not give
    assert fused(gpu) == 3 * [f"{f}_aux_bias"]


def test_the_identity_of_an_output_is_a_bias() -> None:
    gpu = on_cuda_backend(fusible_network("tanh", (5, 8, 16)))
    gpu.cost_and_gradients(*random_labels(gpu), intermediate=False)
    assert fused(gpu) == ["bias"]


@pytest.mark.parametrize(
    ("widths", "expected"),
    [
        ((5, 12, 9, 3), []),  # no multiples of 8
        ((3, 8, 1), ["gelu_aux_bias"]),  # the product down sums over 1
        ((3, 136, 40, 2), ["gelu_aux_bias", "gelu_aux_bias", "dgelu_bgrad", "dgelu_bgrad"]),
    ],
)
@pytest.mark.parametrize("f", ["relu", "gelu"])
def test_widths(f: str, widths: tuple[int, ...], expected: list[str]) -> None:
    net = fusible_network(f, widths, loss="squared_error")
    gpu = on_cuda_backend(net)
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(7, widths[0])), rng.normal(size=(7, widths[-1]))
    J, want = net.cost_and_gradients(x, y, intermediate=False)
    J_gpu, got = gpu.cost_and_gradients(x, y, intermediate=False)
    assert fused(gpu) == [name.replace("gelu", f) for name in expected]
    assert_same(J_gpu, J, 2e-5)
    for one, other in zip([*got.W, *got.b], [*want.W, *want.b], strict=True):
        assert_same(one, other, 2e-5)


def test_no_epilogue_in_float64() -> None:
    gpu = on_cuda_backend(gpumlp.MLP([5, 8, 8], "relu", precision="float64", backend="numpy"))
    gpu.cost_and_gradients(*random_labels(gpu), intermediate=False)
    assert fused(gpu) == []


def test_the_bits_serve_the_way_back_in_place_of_h() -> None:
    """With other values in h after the forward pass, gz and db stay what they were."""
    backend = CudaBackend(HostDevice(), "float32")
    rng = np.random.default_rng(5)
    f = gpumlp.ACTIVATIONS["relu"]
    h_below, W, b = (backend.asarray(rng.normal(size=s)) for s in [(9, 4), (200, 4), (200,)])
    gz_above, W_above = (backend.asarray(rng.normal(size=s)) for s in [(9, 3), (3, 200)])
    h, gz, db = backend.empty((9, 200)), backend.empty((9, 200)), backend.empty((200,))
    kept = backend.pre_activation(f, 9, 200)
    assert kept == ((9, 32), np.uint8)  # 200 bits are padded to 256
    z = backend.empty(*kept)
    backend.affine_activation(h_below, W, b, f, z, h)
    want = (gz_above.values @ W_above.values) * (h.values > 0)
    h.values[...] = -h.values - 1
    backend.hidden_gradient(gz_above, W_above, f, z, h, gz, gz, db)
    np.testing.assert_allclose(gz.values, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(db.values, want.sum(axis=0), rtol=1e-5, atol=1e-5)


def test_bits_of_an_earlier_pass_are_not_read() -> None:
    """A forward pass that writes no bits makes them stale."""
    net = fusible_network("relu")
    gpu = on_cuda_backend(net)
    trainer = gpumlp.Trainer(gpu, "sgd", lr=0.1, batch_size=7)
    twin = gpumlp.Trainer(net, "sgd", lr=0.1, batch_size=7)
    x, y = random_labels(net)
    turns = iter([True, False, True, False] * 100)

    class Turn(gpumlp.Callback):
        def on_step_end(self, trainer: gpumlp.Trainer) -> None:
            upward = next(turns)
            device(gpu).fuses = lambda name: upward or name.startswith("d")

    trainer.fit(x, y, 4, callbacks=[Turn()], progress=False)
    twin.fit(x, y, 4, progress=False)
    assert {"relu_aux_bias", "drelu_bgrad"} <= set(fused(gpu))
    assert_same(gpu.theta.flat, net.theta.flat, 2e-5)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("f", ["relu", "gelu"])
def test_training(f: str, way: str) -> None:
    """With a smaller last minibatch, which has plans of its own."""
    net = fusible_network(f)
    gpu = on_cuda_backend(net)
    device(gpu).fuses = WAYS[way]
    x, y = random_labels(net, 50)
    for each in (net, gpu):
        gpumlp.Trainer(each, "momentum", lr=0.05, batch_size=16).fit(x, y, 5, progress=False)
    assert_same(gpu.theta.flat, net.theta.flat, 1e-4)


def test_nan_in_a_weight_is_still_found() -> None:
    """relu's epilogue makes 0 of NaN, so that J stays finite; θ is looked at, too."""
    gpu = on_cuda_backend(fusible_network("relu"))
    gpu.layers[1].W[0] = np.nan
    x, y = random_labels(gpu)
    assert np.isfinite(on_host(gpu.forward(x))).all()
    with pytest.raises(FloatingPointError, match="diverged"):
        gpumlp.Trainer(gpu, batch_size=16).fit(x, y, 2, progress=False)
