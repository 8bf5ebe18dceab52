"""Networks whose products compute the activation, on the CPU harness, against NumPy."""

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

FUSED: dict[str, Callable[[str], bool]] = {
    "all": lambda name: True,
    "forward": lambda name: not name.startswith("d"),
    "backward": lambda name: name.startswith("d"),
    "none": lambda name: False,
}


def fused(gpu: gpumlp.MLP) -> list[str]:
    """The epilogues that were used so far, in order."""
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


@pytest.mark.parametrize("part", FUSED)
@pytest.mark.parametrize("f", ["relu", "gelu", "identity", "tanh"])
def test_fused_and_unfused_gradients_agree(f: str, part: str) -> None:
    net = fusible_network(f)
    gpu = on_cuda_backend(net)
    device(gpu).fuses = FUSED[part]
    check(net, gpu)


@pytest.mark.parametrize("f", ["relu", "gelu"])
def test_fused_epilogues(f: str) -> None:
    """Epilogues in both passes if only gz is kept; without aux if neither z nor h is kept."""
    gpu = on_cuda_backend(fusible_network(f, output_activation="identity"))
    x, y = random_labels(gpu)
    gpu.forward(x)
    assert fused(gpu) == 3 * [f"{f}_bias"]
    device(gpu).calls.clear()
    gpu.cost_and_gradients(x, y, intermediate=False)
    assert fused(gpu) == 3 * [f"{f}_aux_bias"] + 3 * [f"d{f}_bgrad"]
    device(gpu).calls.clear()
    gpu.cost_and_gradients(x, y)  # keeps gh, which a product with an epilogue does not write
    assert fused(gpu) == 3 * [f"{f}_aux_bias"]


def test_identity_output_uses_bias_epilogue() -> None:
    gpu = on_cuda_backend(fusible_network("tanh", (5, 8, 16)))
    gpu.cost_and_gradients(*random_labels(gpu), intermediate=False)
    assert fused(gpu) == ["bias"]


@pytest.mark.parametrize(
    ("widths", "expected"),
    [
        ((5, 12, 9, 3), []),  # widths that are not multiples of 8
        ((3, 8, 1), ["gelu_aux_bias"]),  # the backward product has k = 1
        ((3, 136, 40, 2), ["gelu_aux_bias", "gelu_aux_bias", "dgelu_bgrad", "dgelu_bgrad"]),
    ],
)
@pytest.mark.parametrize("f", ["relu", "gelu"])
def test_widths_that_allow_epilogues(f: str, widths: tuple[int, ...], expected: list[str]) -> None:
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


def test_backward_pass_reads_mask_instead_of_h() -> None:
    """gz and db do not depend on h if a mask is kept."""
    backend = CudaBackend(HostDevice(), "float32")
    rng = np.random.default_rng(5)
    f = gpumlp.ACTIVATIONS["relu"]
    h_below, W, b = (backend.asarray(rng.normal(size=s)) for s in [(9, 4), (200, 4), (200,)])
    gz_above, W_above = (backend.asarray(rng.normal(size=s)) for s in [(9, 3), (3, 200)])
    h, gz, db = backend.empty((9, 200)), backend.empty((9, 200)), backend.empty((200,))
    mask = backend.pre_activation(f, 9, 200)
    assert mask == ((9, 32), np.uint8)  # 200 bits are padded to 256
    z = backend.empty(*mask)
    backend.affine_activation(h_below, W, b, f, z, h)
    want = (gz_above.values @ W_above.values) * (h.values > 0)
    h.values[...] = -h.values - 1
    backend.hidden_gradient(gz_above, W_above, f, z, h, gz, gz, db)
    np.testing.assert_allclose(gz.values, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(db.values, want.sum(axis=0), rtol=1e-5, atol=1e-5)


def test_mask_of_earlier_pass_is_not_read() -> None:
    """A forward pass without the epilogue makes the mask of the pass before invalid."""
    net = fusible_network("relu")
    gpu = on_cuda_backend(net)
    trainer = gpumlp.Trainer(gpu, "sgd", lr=0.1, batch_size=7)
    reference = gpumlp.Trainer(net, "sgd", lr=0.1, batch_size=7)
    x, y = random_labels(net)
    fused_forward = iter([True, False, True, False] * 100)

    class Alternate(gpumlp.Callback):
        def on_step_end(self, trainer: gpumlp.Trainer) -> None:
            forward = next(fused_forward)
            device(gpu).fuses = lambda name: forward or name.startswith("d")

    trainer.fit(x, y, 4, callbacks=[Alternate()], progress=False)
    reference.fit(x, y, 4, progress=False)
    assert {"relu_aux_bias", "drelu_bgrad"} <= set(fused(gpu))
    assert_same(gpu.theta.flat, net.theta.flat, 2e-5)


@pytest.mark.parametrize("part", FUSED)
@pytest.mark.parametrize("f", ["relu", "gelu"])
def test_fused_and_unfused_training_agree(f: str, part: str) -> None:
    """With a smaller last minibatch, which has its own plans."""
    net = fusible_network(f)
    gpu = on_cuda_backend(net)
    device(gpu).fuses = FUSED[part]
    x, y = random_labels(net, 50)
    for each in (net, gpu):
        gpumlp.Trainer(each, "momentum", lr=0.05, batch_size=16).fit(x, y, 5, progress=False)
    assert_same(gpu.theta.flat, net.theta.flat, 1e-4)


def test_nan_in_weight_raises_although_relu_hides_it() -> None:
    """relu's epilogue turns NaN into 0, so that J stays finite.  θ is checked too."""
    gpu = on_cuda_backend(fusible_network("relu"))
    gpu.layers[1].W[0] = np.nan
    x, y = random_labels(gpu)
    assert np.isfinite(on_host(gpu.forward(x))).all()
    with pytest.raises(FloatingPointError, match="diverged"):
        gpumlp.Trainer(gpu, batch_size=16).fit(x, y, 2, progress=False)
