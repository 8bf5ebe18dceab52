"""A step as a whole: its first and last launch, and that it is recorded once and replayed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness.catalogue import CATALOGUE, DTYPES
from harness.comparing import real_of, same_in_every_order
from harness.compiled import kernel
from harness.host_device import HostDevice
from harness.host_module import KernelError
from harness.memory import aligned, aligned_empty
from test_gpu_room import classifier, device, in_gpu_room, problem, trained
from training_cases import Hook

import gpumlp

i64 = np.int64


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("t", "rows", "blocks"), [(0, 1, 1), (3, 300, 1), (3, 300, 2), (4, 7, 3)])
def test_begin(t: int, rows: int, blocks: int, dtype: str) -> None:
    """Row t of every table; a last minibatch takes fewer rows of the order."""
    size, numbers, steps = 300, 5, 5
    rng = np.random.default_rng(0)
    order = aligned(rng.permutation(size * steps), i64)
    controls = aligned(rng.normal(size=(steps, numbers + 2)))

    def call(seed: int) -> Any:
        index, control = aligned_empty((rows,), i64), aligned_empty((numbers,), np.float64)
        factors, J = aligned_empty((2,), real_of(dtype)), aligned([7.0])
        kernel("begin", CATALOGUE[dtype]["step"])(
            (blocks, 1), (256, 1),
            (aligned([t], i64), order, controls, index, control, factors, J,
             i64(size), i64(rows), i64(numbers)), order=seed,
        )  # fmt: skip
        return index, control, factors, J

    index, control, factors, J = same_in_every_order(call)
    np.testing.assert_array_equal(index, order[t * size : t * size + rows])
    np.testing.assert_array_equal(control, controls[t, :numbers])
    np.testing.assert_array_equal(factors, controls[t, numbers:].astype(real_of(dtype)))
    assert J[0] == 0


def test_end() -> None:
    position, costs = aligned([2], i64), aligned(np.zeros(4))
    end = kernel("end", CATALOGUE["float32"]["step"])
    for J, after in ((0.5, 3), (0.25, 0), (0.125, 1)):
        end((1, 1), (256, 1), (position, aligned([J]), costs, i64(4)))
        assert position.tolist() == [after]
    assert costs.tolist() == [0.125, 0, 0.5, 0.25]


# ---- recording -----------------------------------------------------------------------------------


def calls_of_steps(epochs: int, **settings: Any) -> list[list[str]]:
    """What each step of a fit asks of the device: four of 16 examples and one of 6 an epoch."""
    gpu, steps = in_gpu_room(classifier()), []
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
        assert launches[i][-1].startswith("kernel end in step.cu")
    for i in range(5, 15):  # what is replayed is what was handed in piece by piece
        expected = launches[4] if i % 5 == 4 else launches[1]
        assert launches[i][-len(expected) :] == expected
    # between the steps of an epoch nothing is uploaded, downloaded, allocated or waited for
    for i in (6, 7, 8, 11, 12, 13):
        assert steps[i] == [f"replay of {len(launches[1])}", *launches[1]]


def test_recording_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    bits = []
    for record in (HostDevice.record, lambda device, work: work):
        monkeypatch.setattr(HostDevice, "record", record)
        gpu = in_gpu_room(classifier())
        trainer = trained(gpu, steps=20, clip_norm=0.5)
        bits.append((gpu.theta.flat.values.tobytes(), trainer.history["cost"]))
    assert bits[0] == bits[1]


def test_what_may_not_be_recorded_is_an_error() -> None:
    """A stray wait, upload or allocation in a step shows at once."""
    gpu = in_gpu_room(classifier())
    room, theta = gpu.backend, gpu.theta.flat
    for work in (
        room.synchronize,
        lambda: room.to_host(theta),
        lambda: room.empty((3,)),
        lambda: room.asarray(np.zeros(len(theta)), out=theta),
    ):
        with pytest.raises(KernelError, match="not while a step is recorded"):
            room.record(work)
    room.synchronize()  # and then all is well again


@pytest.mark.parametrize("backend", ["numpy", "harness"])
def test_theta_that_a_callback_assigns_to_is_what_the_next_epoch_starts_from(backend: str) -> None:
    net = classifier()
    net = in_gpu_room(net) if backend == "harness" else net
    x, y, _ = problem(64)
    costs = []

    def end(trainer: gpumlp.Trainer, row: Any) -> None:
        costs.append(row["cost"])
        trainer.net.assign({name: t * 0 for name, t in trainer.net.tensors().items()})

    hook = gpumlp.Callback()
    hook.epoch_end = end  # type: ignore[method-assign,assignment]
    trainer = gpumlp.Trainer(net, "sgd", lr=1e-9, batch_size=16)
    trainer.fit(x, y, 4, callbacks=[hook], progress=False)
    np.testing.assert_allclose(costs[1:], np.log(3), rtol=1e-6)
    assert abs(costs[0] - np.log(3)) > 1e-3
