"""The 16-bit precisions of the CUDA backend on the CPU harness, against NumPy's float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.cuda.backend import CudaBackend
from tests.support.cuda_networks import (
    HALF,
    KIND,
    classifier,
    device,
    moved,
    on_cuda_backend,
    problem,
    relative,
    trained,
)
from tests.support.harness.host_device import HostDevice
from tests.support.precision_tests import (  # noqa: F401  (collected here)
    test_every_activation,
    test_every_loss,
    test_outputs_and_gradients_are_close_to_float64,
    test_products_read_rounded_theta,
    test_targets_and_weights_are_not_rounded,
    test_training_follows_float32,
)


@pytest.fixture(params=HALF)
def precision(request: pytest.FixtureRequest) -> Any:
    """Of the collected tests."""
    return request.param


@pytest.mark.parametrize("precision", HALF)
def test_step_needs_no_casts(precision: str) -> None:
    """A step has the same launches as in float32."""
    launches = []
    for each in ("float32", precision):
        gpu = on_cuda_backend(classifier(precision="float32"), precision=each)
        trainer = gpumlp.Trainer(gpu, "adamw", batch_size=16, clip_norm=1.0)
        x, y, _ = problem(64)
        trainer.fit(x, y, 1, progress=False)
        device(gpu).calls.clear()
        trainer.fit(x, y, 1, progress=False, metric=None)
        names = [" ".join(call.split()[:2]) for call in device(gpu).launches]
        # 16-bit db is summed in float32 first; float32 does not need that for such small matrices
        launches.append([name for name in names if "round" not in name and "column" not in name])
    assert launches[0] == launches[1]


@pytest.mark.parametrize("precision", HALF)
def test_every_order_gives_same_bits(precision: str) -> None:
    net, bits = classifier(precision="float32"), set()
    for order in (0, 1, 2, 3):
        gpu = on_cuda_backend(net, order, precision=precision)
        trained(gpu, steps=10, clip_norm=0.5, slot_precision="bfloat16")
        bits.add(gpu.theta.flat.values.tobytes())
    assert len(bits) == 1


# ---- the loss scale ------------------------------------------------------------------------------


@pytest.mark.parametrize("S", [1.0, 2.0**15])
def test_loss_scale_keeps_small_gradients(S: float) -> None:
    """∂J/∂z of the first layer is 1e-8, which float16 can represent only if J is scaled."""
    net = gpumlp.MLP([5, 9, 1], "tanh", loss="absolute_error", backend="numpy", seed=1)
    net.layers[1].W[...] *= 1e-5
    gpu = on_cuda_backend(net, precision="float16")
    x, y = np.random.default_rng(0).normal(size=(1024, 5)), np.full((1024, 1), 100.0)
    start = net.tensors()
    for each in (net, gpu):
        trainer = gpumlp.Trainer(each, "sgd", lr=0.1, batch_size=1024)
        if each is gpu:
            trainer.scaling.values[:2] = S, 1 / S
        trainer.fit(x, y, 1, progress=False)
    change = gpu.tensors()["0.bias"] - start["0.bias"]
    want = net.tensors()["0.bias"] - start["0.bias"]
    assert np.abs(want).max() > 0
    if S == 1:
        assert not change.any()
    else:
        assert relative(change, want) < 0.01


def test_overflow_skips_step_and_halves_scale() -> None:
    gpu = on_cuda_backend(classifier(precision="float32"), precision="float16")
    x, y, _ = problem(16)
    trainer = gpumlp.Trainer(gpu, "adamw", batch_size=16)
    start = 2.0**40  # makes the gradient of the loss infinite
    trainer.scaling.values[:2] = start, 1 / start
    theta = gpu.theta.flat.values.copy()
    trainer.fit(x, y, 1, progress=False)
    np.testing.assert_array_equal(gpu.theta.flat.values, theta)
    assert not trainer.slots.values.any()
    assert trainer.scaling.values.tolist() == [start / 2, 1 / start, 0, 1]
    trainer.fit(x, y, 40, progress=False)
    S, _, steady, skipped = trainer.scaling.values.tolist()
    assert start * 2.0**-skipped == S
    assert steady == 41 - skipped
    assert (gpu.theta.flat.values != theta).any()


def test_loss_scale_does_not_change_steps() -> None:
    """A scale of 1 or 2⁸ gives the same steps if nothing overflows or underflows."""
    results = []
    for S in (1.0, 256.0):
        gpu = on_cuda_backend(classifier(precision="float32"), precision="float16")
        x, y, _ = problem(64)
        trainer = gpumlp.Trainer(gpu, "sgd", lr=0.1, batch_size=16)
        trainer.scaling.values[:2] = S, 1 / S
        trainer.fit(x, y, 2, progress=False)
        results.append(gpu.theta.flat.values.copy())
    assert relative(results[1], results[0]) < 1e-6


def test_permanent_overflow_is_divergence() -> None:
    gpu = on_cuda_backend(
        gpumlp.MLP([2, 1], loss="squared_error", backend="numpy"), precision="float16"
    )
    x, y = np.full((8, 2), 6e4), np.full((8, 1), -1e38)
    with pytest.raises(FloatingPointError, match="overflow float16 at any loss scale|the cost is"):
        gpumlp.Trainer(gpu, batch_size=1).fit(x, y, 20, progress=False)


def test_x_beyond_float16_raises() -> None:
    gpu = on_cuda_backend(classifier(precision="float32"), precision="float16")
    x, y, _ = problem(16)
    x[3, 2] = 70_000
    with pytest.raises(ValueError, match="x has values up to 70000, beyond the network's float16"):
        gpumlp.Trainer(gpu).fit(x, y, 1, progress=False)


# ---- 16-bit slots ------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "tf32", *HALF])
def test_16_bit_slots_train_like_float32(precision: str) -> None:
    net = classifier("tanh", precision="float32")
    gpu = on_cuda_backend(net, precision=precision)
    start = net.tensors()
    trained(net, steps=10, lr=0.01)
    trainer = trained(gpu, steps=10, lr=0.01, slot_precision="bfloat16")
    assert trainer.slots.dtype == KIND["bfloat16"]
    assert relative(moved(gpu, start), moved(net, start)) < 0.06


@pytest.mark.parametrize(("precision", "backend"), [("float32", "numpy"), ("float64", "harness")])
def test_unsupported_16_bit_slots_raise(precision: str, backend: str) -> None:
    net = classifier(precision=precision)
    net = on_cuda_backend(net) if backend == "harness" else net
    with pytest.raises(ValueError, match='slot_precision="bfloat16" does not go with'):
        gpumlp.Trainer(net, slot_precision="bfloat16")
    with pytest.raises(ValueError, match='must be None or "bfloat16", got "float16"|float16'):
        gpumlp.Trainer(net, slot_precision="float16")


# ---- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", HALF)
def test_numpy_loads_16_bit_network(precision: str, tmp_path: Any) -> None:
    gpu = on_cuda_backend(classifier(precision="float32"), precision=precision)
    trained(gpu, steps=5)
    gpu.save(tmp_path / "m.safetensors")
    net = gpumlp.MLP.load(tmp_path / "m.safetensors", backend="numpy")
    assert net.precision == "float32"
    for name, tensor in net.tensors().items():
        assert tensor.tobytes() == gpu.tensors()[name].tobytes()
    again = gpumlp.MLP.load(
        tmp_path / "m.safetensors", backend=CudaBackend(HostDevice(), precision)
    )
    x, _, _ = problem()
    np.testing.assert_array_equal(again.predict(x), gpu.predict(x))


@pytest.mark.parametrize("slots", [None, "bfloat16"])
def test_float16_run_resumes_bit_for_bit(slots: str | None, tmp_path: Any) -> None:
    """The checkpoint has the loss scale and the slots."""

    def run(epochs: int, **fit: Any) -> gpumlp.Trainer:
        gpu = on_cuda_backend(classifier(precision="float32"), precision="float16")
        trainer = gpumlp.Trainer(gpu, "adam", batch_size=16, slot_precision=slots)
        trainer.scaling.values[:2] = 2.0**22, 2.0**-22  # some steps are skipped
        x, y, _ = problem()
        trainer.fit(x, y, epochs, progress=False, **fit)
        return trainer

    path = tmp_path / "run.safetensors"
    run(2, checkpoint=path)
    resumed, whole = run(4, checkpoint=path, resume=True), run(4)
    assert resumed.net.theta.flat.values.tobytes() == whole.net.theta.flat.values.tobytes()
    assert resumed.slots.values.tobytes() == whole.slots.values.tobytes()
    assert resumed.scaling.values.tolist() == whole.scaling.values.tolist()
    assert whole.scaling.values[3] > 0
    gpu = on_cuda_backend(classifier(precision="float32"), precision="float16")
    other = gpumlp.Trainer(gpu, "adam", batch_size=16, slot_precision=OTHER[slots])
    with pytest.raises(gpumlp.CheckpointError, match="other slot_precision"):
        other.fit(*problem()[:2], 4, progress=False, checkpoint=path, resume=True)


OTHER = {None: "bfloat16", "bfloat16": None}


@pytest.mark.parametrize("precision", HALF)
def test_only_our_own_kernels_cast(precision: str) -> None:
    """CuPy copies between arrays of the device, but it cannot cast bfloat16."""
    gpu = on_cuda_backend(classifier(precision="float32"), precision=precision)
    x, _, _ = problem()
    on_device = gpu.backend.asarray(x)
    device(gpu).calls.clear()
    gpu.predict(x)
    gpu.forward(on_device)
    trained(gpu, steps=5)
    calls = device(gpu).calls
    assert any(call.startswith("kernel cast in cast.cu") for call in calls)
    for call in calls:
        if call.startswith("copy"):
            source, _, out = call.split(") ")[1].split()
            assert source == out
