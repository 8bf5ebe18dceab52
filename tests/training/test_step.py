"""A step: its first and last launch, and its recording, which is replayed."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.backends.declaration import Call
from gpumlp.step.plan import Plan
from tests.support.cuda_networks import classifier, device, on_cuda_backend, problem, trained
from tests.support.harness.catalogue import CATALOGUE, DTYPES
from tests.support.harness.comparing import real_of, same_in_every_order
from tests.support.harness.compiled import kernel
from tests.support.harness.host_device import HostDevice
from tests.support.harness.host_module import KernelError
from tests.support.harness.memory import aligned, aligned_empty
from tests.support.training_cases import Hook

i64 = np.int64


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("t", "rows", "blocks"), [(0, 1, 1), (3, 300, 1), (3, 300, 2), (4, 7, 3)])
def test_begin_kernel(t: int, rows: int, blocks: int, dtype: str) -> None:
    """Row t of every table; a last minibatch takes fewer rows of the order."""
    size, numbers, steps = 300, 5, 5
    rng = np.random.default_rng(0)
    order = aligned(rng.permutation(size * steps), i64)
    controls = aligned(rng.normal(size=(steps, numbers + 2)))

    def call(seed: int) -> Any:
        index, control = aligned_empty((rows,), i64), aligned_empty((numbers,), np.float64)
        factors, J = aligned_empty((2,), real_of(dtype)), aligned([7.0] * blocks)
        kernel("begin", CATALOGUE[dtype]["step"])(
            (blocks, 1), (256, 1),
            (aligned([t], i64), order, controls, index, control, factors, J,
             i64(size), i64(rows), i64(numbers), i64(len(J))), order=seed,
        )  # fmt: skip
        return index, control, factors, J

    index, control, factors, J = same_in_every_order(call)
    np.testing.assert_array_equal(index, order[t * size : t * size + rows])
    np.testing.assert_array_equal(control, controls[t, :numbers])
    np.testing.assert_array_equal(factors, controls[t, numbers:].astype(real_of(dtype)))
    assert not J.any()


def test_end_kernel() -> None:
    position, costs = aligned([2], i64), aligned(np.zeros(4))
    end = kernel("end", CATALOGUE["float32"]["step"])
    for J, after in ((0.5, 3), (0.25, 0), (0.125, 1)):
        end((1, 1), (256, 1), (position, aligned([J]), costs, i64(4), i64(1)))
        assert position.tolist() == [after]
    assert costs.tolist() == [0.125, 0, 0.5, 0.25]
    end((1, 1), (256, 1), (position, aligned([1.0, 2.0]), costs, i64(2), i64(2)))
    assert (position.tolist(), costs.tolist()) == ([0], [0.125, 0, 1, 2])


# ---- recording -----------------------------------------------------------------------------------


def calls_of_steps(epochs: int, **settings: Any) -> list[list[str]]:
    """The device's calls of each step: per epoch four steps of 16 examples and one of 6."""
    gpu, steps = on_cuda_backend(classifier()), []
    calls = device(gpu).calls

    def step(trainer: gpumlp.Trainer) -> None:
        steps.append(list(calls))
        calls.clear()

    x, y, _ = problem(70)
    trainer = gpumlp.Trainer(gpu, "adamw", batch_size=16, **settings)
    trainer.fit(x, y, epochs, metric=None, callbacks=[Hook(step)], progress=False)
    return steps


def test_the_second_step_of_a_size_is_recorded_and_all_after_it_replayed() -> None:
    steps = calls_of_steps(3, clip_norm=1.0)
    launches = [[call for call in calls if call.startswith(("kernel", "gemm"))] for calls in steps]
    for i, calls in enumerate(steps):
        size = 6 if i % 5 == 4 else 16
        seen = {16: i, 6: i // 5}[size]
        assert ("record" in calls) == (seen == 1)
        assert any(call.startswith("replay") for call in calls) == (seen >= 1)
        assert launches[i][-1].startswith("kernel update in update.cu")
    for i in range(5, 15):  # what is replayed is what was handed in piece by piece
        expected = launches[4] if i % 5 == 4 else launches[1]
        assert sorted(launches[i][-len(expected) :]) == sorted(expected)  # branches have no order
    # between the steps of an epoch nothing is uploaded, downloaded, allocated or waited for
    for i in (6, 7, 8, 11, 12, 13):
        assert steps[i] == [f"replay of {len(launches[1])}", *launches[1]]


def run_all(calls: Any) -> None:
    for call in calls:
        call.work()


def test_recording_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    bits = []
    for record in (HostDevice.record, lambda device, calls: partial(run_all, calls)):
        monkeypatch.setattr(HostDevice, "record", record)
        gpu = on_cuda_backend(classifier())
        trainer = trained(gpu, steps=20, clip_norm=0.5)
        bits.append((gpu.theta.flat.values.tobytes(), trainer.history["cost"]))
    assert bits[0] == bits[1]


def test_what_may_not_be_recorded_is_an_error() -> None:
    """A wait, upload or allocation in a recorded step raises immediately."""
    gpu = on_cuda_backend(classifier())
    backend, theta = gpu.backend, gpu.theta.flat
    for work in (
        backend.synchronize,
        lambda: backend.to_host(theta),
        lambda: backend.empty((3,)),
        lambda: backend.asarray(np.zeros(len(theta)), out=theta),
    ):
        with pytest.raises(KernelError, match="not allowed while a step is recorded"):
            device(gpu).record([Call(work)])
    backend.synchronize()  # and then all is well again


@pytest.mark.parametrize("backend", ["numpy", "harness"])
def test_theta_that_a_callback_assigns_to_is_what_the_next_epoch_starts_from(backend: str) -> None:
    net = classifier()
    net = on_cuda_backend(net) if backend == "harness" else net
    x, y, _ = problem(64)
    costs = []

    def end(trainer: gpumlp.Trainer, row: Any) -> None:
        costs.append(row["cost"])
        trainer.net.assign({name: t * 0 for name, t in trainer.net.tensors().items()})

    hook = gpumlp.Callback()
    hook.on_epoch_end = end  # type: ignore[method-assign,assignment]
    trainer = gpumlp.Trainer(net, "sgd", lr=1e-9, batch_size=16)
    trainer.fit(x, y, 4, callbacks=[hook], progress=False)
    np.testing.assert_allclose(costs[1:], np.log(3), rtol=1e-6)
    assert abs(costs[0] - np.log(3)) > 1e-3


# ---- branches ------------------------------------------------------------------------------------


WAYS = ["branched", "branched, early update"]


def branched_run(
    precision: str = "float64", late: bool = False, way: str = "branched", **settings: Any
) -> Any:
    """θ, slots and costs of a run whose weight gradients are computed on a side stream."""
    gpu = on_cuda_backend(classifier("relu", precision="float32"), precision=precision)
    device(gpu).variant, device(gpu).late_branches = way, late
    trainer = trained(gpu, steps=20, **settings)
    return gpu.theta.flat.values.tobytes(), trainer.slots.values.tobytes(), trainer.history["cost"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "settings",
    [{}, {"clip_norm": 0.5}, {"optimizer": "sgd"}, {"optimizer": "sgd", "fold": False},
     {"slot_precision": "bfloat16"}, {"memory": "low"}],
)  # fmt: skip
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_branches_change_no_bit(precision: str, settings: Any, way: str) -> None:
    """Work on side streams runs as early as possible, or as late."""
    gpu = on_cuda_backend(classifier("relu", precision="float32"), precision=precision)
    trainer = trained(gpu, steps=20, **settings)
    want = gpu.theta.flat.values.tobytes(), trainer.slots.values.tobytes(), trainer.history["cost"]
    for late in (False, True):
        assert branched_run(precision, late, way, **settings) == want


@pytest.mark.parametrize("late", [False, True])
def test_updates_with_multiprocessors_of_their_own_change_no_bit(late: bool) -> None:
    """Products leave them free, and the grids of the updates are as large as they are."""
    ends = []
    for way in ("sequential", "early update, reserved"):
        backend = CudaBackend(HostDevice(multiprocessors=16), "bfloat16")
        gpu = gpumlp.MLP([64, 520, 512, 8], "relu", backend=backend)
        device(gpu).variant, device(gpu).late_branches = way, late
        x, y = np.random.default_rng(0).normal(size=(48, 64)), np.arange(48) % 8
        gpumlp.Trainer(gpu, batch_size=16).fit(x, y, 1, metric=None, progress=False)
        ends.append(gpu.theta.flat.values.tobytes())
    assert ends[0] == ends[1]
    calls = device(gpu).calls
    last = max(i for i, call in enumerate(calls) if call.startswith("replay"))
    grids = [
        call.split("grid ")[1].split(" ")[0] for call in calls[last:] if "kernel update" in call
    ]
    own = 16 * 3 // 8  # a minibatch of 16 has few FLOPs beside the bytes of the updates
    assert max(map(int, grids[:-1])) == 8 * own
    assert int(grids[-1]) <= 8 * 16


def test_a_branch_begins_where_its_gradient_is_there() -> None:
    """∇W[k] is computed during gz[k−1], and the first layer's after it."""
    orders = []
    for late in (False, True):
        gpu = on_cuda_backend(classifier("relu", precision="float32"))
        device(gpu).variant, device(gpu).late_branches = "branched", late
        x, y, _ = problem(48)
        gpumlp.Trainer(gpu, batch_size=16).fit(x, y, 1, metric=None, progress=False)
        calls = device(gpu).calls
        last = max(i for i, call in enumerate(calls) if call.startswith("replay"))
        orders.append(" ".join(call[5:7] for call in calls[last:] if call.startswith("gemm")))
    assert orders == ["NT NT NT TN NN TN NN TN", "NT NT NT NN TN NN TN TN"]


def test_weights_are_updated_as_soon_as_their_gradient_is_there() -> None:
    """One update per layer, the last layer's first, and one of the biases; early, or at the end."""
    orders = []
    for late in (False, True):
        gpu = on_cuda_backend(classifier("relu", precision="float32"))
        device(gpu).variant, device(gpu).late_branches = WAYS[1], late
        x, y, _ = problem(48)
        gpumlp.Trainer(gpu, batch_size=16).fit(x, y, 1, metric=None, progress=False)
        calls = device(gpu).calls
        last = max(i for i, call in enumerate(calls) if call.startswith("replay"))
        message = {"gemm": lambda call: call[5:7], "kernel update": lambda call: "update"}
        orders.append(" ".join(
            tell(call) for call in calls[last:] for what, tell in message.items()
            if call.startswith(what)
        ))  # fmt: skip
    assert orders == [
        "NT NT NT TN NN update TN NN update TN update update",
        "NT NT NT NN TN NN update TN TN update update update",
    ]


@pytest.mark.parametrize(("way", "late"), [("branched", True), ("branched, early update", False)])
def test_stream_that_does_not_wait_shows(
    way: str, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = branched_run(way=way, late=late)
    monkeypatch.setattr(Plan, "waits", lambda plan: [()] * len(plan.program))
    assert branched_run(way=way, late=late) != want


def test_the_way_is_asked_for_by_name() -> None:
    """The name of a step has all that its time depends on."""
    gpu = on_cuda_backend(classifier("relu"))
    trained(gpu, steps=20, clip_norm=1.0)
    assert device(gpu).asked_for == [
        "step 5-9-8-3 relu relu identity softmax_cross_entropy adamw float64 clipped, minibatch 16",
        "step 5-9-8-3 relu relu identity softmax_cross_entropy adamw float64 clipped, minibatch 6",
    ]


@pytest.mark.parametrize("backend", ["numpy", "harness"])
def test_dropped_trainer_is_freed_immediately(backend: str) -> None:
    """The memory of a device must not wait for Python's garbage collector."""
    net = classifier()
    net = on_cuda_backend(net) if backend == "harness" else net
    x, y, _ = problem(64)
    for optimizer in ("sgd", "adamw"):
        trainer = gpumlp.Trainer(net, optimizer, batch_size=16)
        trainer.fit(x, y, 1, progress=False)
        dropped = weakref.ref(trainer)
        gc.collect()
        gc.disable()
        try:
            del trainer
            assert dropped() is None
        finally:
            gc.enable()
