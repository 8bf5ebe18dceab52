"""Micro-batches: the same step, in both backends, in less memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import LOSSES
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.step.plan import Plan
from tests.support import networks
from tests.support.cuda_networks import (
    EPS,
    classifier,
    device,
    moved,
    on_cuda_backend,
    on_host,
    problem,
    relative,
)
from tests.support.harness.host_device import HostDevice
from tests.support.memory_cases import on_harness
from tests.support.refusal import refusal

M = 45  # minibatches of 20 and one of 5
WAYS = ["", "branched", "branched, early update"]


def fitted(
    net: gpumlp.MLP, accumulate: int, examples: Any = None, **settings: Any
) -> gpumlp.Trainer:
    """The trainer after two epochs."""
    x, y, weights = problem(M) if examples is None else examples
    fit = {"data": settings.pop("data", "auto")}
    settings = {"optimizer": "adam", "lr": 0.01, "batch_size": 20} | settings
    trainer = gpumlp.Trainer(net, accumulate=accumulate, **settings)
    trainer.fit(x, y, 2, sample_weight=weights, progress=False, **fit)
    return trainer


def assert_the_same(got: gpumlp.Trainer, want: gpumlp.Trainer, tolerance: float = 1e-12) -> None:
    """θ, the optimizer's state and the costs."""
    for ours, theirs in ((got.net.theta.flat, want.net.theta.flat), (got.slots, want.slots)):
        a, b = on_host(ours), on_host(theirs)
        largest = np.abs(b).max(initial=0)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * largest)
    np.testing.assert_allclose(got.history["cost"], want.history["cost"], rtol=tolerance)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("depth", "weighted", "clip_norm"), [(1, True, None), (2, False, 0.05), (4, True, 0.05)]
)
def test_steps_equal_those_without_micro_batches(
    depth: int, loss: str, weighted: bool, clip_norm: float | None
) -> None:
    """3 micro-batches of 7, 7 and 6, and one of the last 5 examples; 8 of 3, and 2."""
    rng = np.random.default_rng(depth)
    x, y, weights = networks.batch(loss, rng, M)
    weights[10:18] = 0
    data = x, y, weights if weighted else None
    output = networks.output_activations("tanh", loss)[0]

    def run(backend: str, accumulate: int) -> gpumlp.Trainer:
        net = networks.network("tanh", loss, depth, output, regularizer=gpumlp.L2(0.1))
        net = on_cuda_backend(net) if backend == "harness" else net
        return fitted(net, accumulate, data, clip_norm=clip_norm, optimizer="nesterov")

    want = run("numpy", 1)
    for backend in ("numpy", "harness"):
        for accumulate in (3, 8):
            assert_the_same(run(backend, accumulate), want)


@pytest.mark.parametrize("backend", ["numpy", "harness"])
@pytest.mark.parametrize("accumulate", [1, 2, 3, 7, 20])
@pytest.mark.parametrize(("m", "batch_size"), [(45, 20), (1, 20), (19, 20), (40, 20), (23, 21)])
def test_sizes_that_do_not_divide(m: int, batch_size: int, accumulate: int, backend: str) -> None:
    """More micro-batches than the last minibatch has examples, or than there are at all."""

    def run(k: int) -> gpumlp.Trainer:
        net = classifier("gelu")
        net = on_cuda_backend(net) if backend == "harness" and k == accumulate else net
        return fitted(net, k, (*problem(m)[:2], None), batch_size=batch_size)

    assert_the_same(run(accumulate), run(1))


@pytest.mark.parametrize("backend", ["numpy", "harness"])
@pytest.mark.parametrize("memory", ["normal", "low"])
@pytest.mark.parametrize("optimizer", gpumlp.OPTIMIZERS)
def test_micro_batches_with_every_optimizer(optimizer: str, memory: str, backend: str) -> None:
    """The product adds every micro-batch's gradient to the velocity of momentum."""

    def run(k: int, memory: str) -> gpumlp.Trainer:
        net = classifier("silu", regularizer=None)
        net = on_cuda_backend(net) if backend == "harness" and k > 1 else net
        return fitted(net, k, optimizer=optimizer, lr=0.001, memory=memory)

    want, got = run(1, "normal"), run(4, memory)
    assert_the_same(got, want, 1e-9 if optimizer in ("adam", "adamw") else 1e-12)
    assert want.folds == (optimizer in ("sgd", "momentum"))
    assert got.folds == (optimizer == "momentum")


def test_fold_with_sgd_and_micro_batches_raises() -> None:
    net = classifier(regularizer=None)
    refusal(
        ValueError, lambda: gpumlp.Trainer(net, "sgd", accumulate=2, fold=True),
        "fold=True is not possible: with accumulate, further micro-batches read the weights before "
        "they move; pass fold=None",
    )  # fmt: skip


def test_micro_batches_without_numpys_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    want = fitted(classifier(), 1)
    monkeypatch.setattr("gpumlp.backends.numpy.backend.numpy_blas", lambda: None)
    assert_the_same(fitted(classifier(), 3), want)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize(
    ("precision", "accumulate"), [("bfloat16", 2), ("float16", 5), ("tf32", 3)]
)
def test_micro_batches_in_low_precision(precision: str, accumulate: int, optimizer: str) -> None:
    """The sum is in float32, and as near to the sum in float64 as that of one minibatch."""
    net = classifier("tanh", precision="float32", regularizer=None)
    start = net.tensors()
    exact = gpumlp.MLP(**{**net.config(), "precision": "float64"}, backend="numpy")
    exact.assign(start)
    fitted(exact, 1, optimizer=optimizer)
    rough = fitted(on_cuda_backend(net, precision=precision), accumulate, optimizer=optimizer)
    slack = 12 if optimizer == "adam" else 8
    eps = EPS.get(precision, 2.0**-20)
    assert relative(moved(rough.net, start), moved(exact, start)) < slack * eps
    rounded = rough.net.rounded.flat.values
    assert rounded.tobytes() == rough.net.theta.flat.values.astype(rounded.dtype).tobytes()


def test_float16_decides_on_the_whole_gradient() -> None:
    """One micro-batch that overflows skips the step and halves the loss scale, once."""
    net = gpumlp.MLP([5, 9, 2], "relu", loss="squared_error", backend="numpy")
    gpu = on_cuda_backend(net, precision="float16")
    x, y = problem(20)[0], np.zeros((20, 2))
    y[7] = 10_000  # S ∂J/∂ŷ of this example alone is beyond 65,504
    trainer = gpumlp.Trainer(gpu, "adamw", batch_size=20, accumulate=4)
    start = trainer.scaling.values[0]
    theta = gpu.theta.flat.values.copy()
    trainer.fit(x, y, 1, progress=False)
    np.testing.assert_array_equal(gpu.theta.flat.values, theta)
    assert trainer.scaling.values.tolist() == [start / 2, 1 / start, 0, 1]


# ---- against torch -------------------------------------------------------------------------------


def test_gradients_add_up_as_in_torch(rng: np.random.Generator) -> None:
    """loss.backward() for each micro-batch, without zero_grad between."""
    torch = pytest.importorskip("torch")
    from tests.support import in_torch

    net = networks.network("tanh", "softmax_cross_entropy", 3)
    x, y = rng.normal(size=(20, 3)), rng.integers(0, 7, 20)
    W = [torch.tensor(layer.W, requires_grad=True) for layer in net.layers]
    b = [torch.tensor(layer.b, requires_grad=True) for layer in net.layers]
    for rows in (slice(0, 7), slice(7, 14), slice(14, 20)):
        h = torch.tensor(x[rows])
        for layer, W_k, b_k in zip(net.layers, W, b, strict=True):
            h = in_torch.activation(layer.f)(h @ W_k.T + b_k)
        (in_torch.loss(net.loss)(h, torch.tensor(y[rows])).sum() / 20).backward()
    start = net.tensors()
    gpumlp.Trainer(net, "sgd", lr=1.0, batch_size=20, accumulate=3).fit(x, y, 1, progress=False)
    for name, tensor in net.tensors().items():
        i, kind = name.split(".")
        want = (W if kind == "weight" else b)[int(i) // 2].grad.numpy()
        np.testing.assert_allclose(start[name] - tensor, want, rtol=1e-10, atol=1e-14)


# ---- recorded steps ------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "settings", [{}, {"clip_norm": 0.5}, {"optimizer": "momentum"}, {"memory": "low"}]
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_branches_change_no_bit(precision: str, settings: Any, way: str) -> None:
    """Work on side streams runs as early as possible, or as late."""
    found = set()
    for late in (None, False, True):
        net = classifier("silu", precision="float32", regularizer=None)
        gpu = on_cuda_backend(net, precision=precision)
        if late is not None:
            device(gpu).variant, device(gpu).late_branches = way, late
        trainer = fitted(gpu, 3, problem(100), **settings)
        found.add((gpu.theta.flat.values.tobytes(), trainer.slots.values.tobytes()))
    assert len(found) == 1


def test_micro_batch_that_does_not_wait_for_a_branch_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next micro-batch would write the h that a branch of the last one still reads."""

    def run() -> bytes:
        gpu = on_cuda_backend(classifier("relu", precision="float32"))
        device(gpu).variant, device(gpu).late_branches = "branched", True
        fitted(gpu, 3, problem(100), clip_norm=1.0)
        return bytes(gpu.theta.flat.values.tobytes())

    want = run()
    waits = Plan.waits

    def without_waits(plan: Plan) -> list[tuple[int, ...]]:
        return [
            () if op.name in ("gather", "affine_activation") else after
            for op, after in zip(plan.program, waits(plan), strict=True)
        ]

    monkeypatch.setattr(Plan, "waits", without_waits)
    assert run() != want


def launched(accumulate: int, data: str) -> list[list[str]]:
    """The device's calls of each step of the second epoch, of 20, 20 and 5 examples."""
    gpu = on_cuda_backend(classifier("relu", precision="float32"))
    calls, steps = device(gpu).calls, []

    class Steps(gpumlp.Callback):
        def on_step_end(self, trainer: gpumlp.Trainer) -> None:
            steps.append(list(calls))
            calls.clear()

    x, y, _ = problem(M)
    trainer = gpumlp.Trainer(gpu, batch_size=20, accumulate=accumulate)
    trainer.fit(x, y, 3, callbacks=[Steps()], metric=None, data=data, progress=False)
    return steps[-3:]


def after_the_replay(calls: list[str]) -> list[str]:
    (at,) = (i for i, call in enumerate(calls) if call.startswith("replay"))
    return calls[at:]


def test_step_of_micro_batches_is_one_recording() -> None:
    """It has k times the launches of a minibatch, but the first, the update and the last once."""
    whole, parts = launched(1, "device"), launched(4, "device")
    for one, several, k in zip(whole, parts, (4, 4, 1), strict=True):
        n, n_several = (
            sum(c.startswith(("kernel", "gemm")) for c in after_the_replay(calls))
            for calls in (one, several)
        )
        once = 2  # the first, which gathers the whole minibatch but not micro-batches; the update
        assert n_several - once - k - 2 * (k > 1) * k == k * (n - once)
        assert sum("kernel add in reduce.cu" in call for call in several) == k
    assert not any("add in reduce.cu" in call for calls in whole for call in calls)
    assert sum(call.endswith("factors") for call in parts[0]) == 3 * 3


def test_streamed_micro_batches_have_one_recording_each() -> None:
    """The next is uploaded during the current one: at most two of them are on the device."""
    steps = launched(4, "stream")
    for calls, k in zip(steps, (4, 4, 1), strict=True):
        assert sum(call.startswith("replay") for call in calls) == k
        assert sum(call.startswith("kernel begin") for call in calls) == 1
        assert sum(call.startswith("kernel update") for call in calls) == 1
        brought = [call for call in calls if call.startswith("async upload")]
        assert all("(5, 5)" in call for call in brought)


@pytest.mark.parametrize("late", ["copies", "work", "both"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_streamed_micro_batches_change_no_bit(precision: str, late: str) -> None:
    x, _, weights = problem(M)
    y = np.random.default_rng(0).normal(size=(M, 3))
    found = []
    for data in ("device", "stream"):
        backend = CudaBackend(HostDevice(late=late), precision)
        net = gpumlp.MLP([5, 9, 8, 3], "tanh", loss="huber", backend=backend)
        trainer = fitted(net, 3, (x, y, weights), data=data)
        found.append((on_host(net.theta.flat).tobytes(), trainer.history["cost"]))
    assert found[0] == found[1]


# ---- memory --------------------------------------------------------------------------------------


def test_activations_take_a_kth_of_the_memory() -> None:
    _, net = on_harness("float32", (64, 64, 64))
    plans = [gpumlp.Trainer(net, batch_size=64, accumulate=k).memory(1000) for k in (1, 4)]
    assert plans[1].accumulate == 4
    assert "accumulate 4" in str(plans[1])
    assert 3.9 < plans[0].step / plans[1].step <= 4.1
    assert 0 < plans[1].gradient - plans[0].gradient < 4096  # ∇b, and two factors


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("before", [1, 2])
def test_out_of_memory_error_suggests_accumulate(precision: str, before: int) -> None:
    """The number of micro-batches in the error fits, and one fewer does not."""
    dev, net = on_harness(precision, (100, 100, 100))
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(1200, 12)), rng.integers(0, 3, 1200)

    def trainer(k: int) -> gpumlp.Trainer:
        return gpumlp.Trainer(net, batch_size=1024, accumulate=k)

    def fit(trainer: gpumlp.Trainer) -> None:
        trainer.fit(x, y, 1, data="device", progress=False)

    first = trainer(before)
    planned = first.memory(x, y)
    dev.limit = planned.held + int(planned.missing / 2.0)
    with pytest.raises(gpumlp.DeviceError) as caught:
        fit(first)
    way, *others = str(caught.value).splitlines()[-1].removeprefix("use ").split(", or ")
    assert way.startswith("accumulate=")
    assert others
    assert others[0].startswith("batch_size=")
    k = int(way.removeprefix("accumulate="))
    assert k > before
    del caught, first
    with pytest.raises(gpumlp.DeviceError):
        fit(trainer(k - 1))
    done = trainer(k)
    fit(done)
    assert done.steps == 2


# ---- settings ------------------------------------------------------------------------------------


def test_resume_with_other_accumulate_raises(tmp_path: Any) -> None:
    x, y, weights = problem(M)

    def run(epochs: int, accumulate: int = 3, **fit: Any) -> None:
        trainer = gpumlp.Trainer(classifier(), batch_size=20, accumulate=accumulate)
        trainer.fit(x, y, epochs, sample_weight=weights, progress=False, **fit)

    path = tmp_path / "run.safetensors"
    run(2, checkpoint=path, checkpoint_every=2)
    for other in (1, 4):
        with pytest.raises(gpumlp.CheckpointError, match="a run with other accumulate: 3, here"):
            run(5, other, checkpoint=path, resume=True)


def test_invalid_accumulate_raises() -> None:
    net = classifier()
    refusal(
        ValueError, lambda: gpumlp.Trainer(net, batch_size=8, accumulate=9),
        "accumulate=9 micro-batches cannot be made of batch_size=8 examples; pass at most as many",
    )  # fmt: skip
    refusal(ValueError, lambda: gpumlp.Trainer(net, accumulate=0), "accumulate must be at least 1")
    with pytest.raises(TypeError, match="accumulate"):
        gpumlp.Trainer(net, accumulate=2.5)  # type: ignore[arg-type]
