"""Checkpoints: runs that died, stopped or were killed resume bit for bit."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from fractions import Fraction

import numpy as np
import pytest

import gpumlp
from gpumlp import storage
from tests.support.kill_worker import EPOCHS, STEPS, outcome, run


class Die(Exception):
    pass


class DieAt(gpumlp.Callback):
    """Raises after a step, or at the end of an epoch."""

    def __init__(self, step=None, epoch=None):
        self.step, self.epoch = step, epoch

    def on_step_end(self, trainer):
        if trainer.steps == self.step:
            raise Die

    def on_epoch_end(self, trainer, row):
        if trainer.epochs == self.epoch:
            raise Die


class CtrlCAt(gpumlp.Callback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, trainer):
        if trainer.steps == self.step:
            signal.raise_signal(signal.SIGINT)


class Steps(gpumlp.Callback):
    """Records the numbers of the steps."""

    def __init__(self):
        self.steps = []

    def on_step_end(self, trainer):
        self.steps.append(trainer.steps)


pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


@pytest.fixture(scope="module")
def whole():
    """The outcome of a run that nothing stops."""
    return outcome(run())


def test_writing_checkpoints_changes_nothing(path, whole):
    assert outcome(run(path, checkpoint_every=2)) == whole


@pytest.mark.parametrize("every", [None, 1, 5])
@pytest.mark.parametrize("step", [1, STEPS - 1, STEPS, STEPS + 1, 6 * STEPS + 4, EPOCHS * STEPS])
def test_dead_run_resumes_bit_for_bit(path, whole, step, every):
    with pytest.raises(Die):
        run(path, checkpoint_every=every, callbacks=[DieAt(step)])
    assert outcome(run(path, checkpoint_every=every, resume=True)) == whole


def test_run_that_dies_several_times_resumes_bit_for_bit(path, whole):
    for step in range(3, EPOCHS * STEPS, 7):
        with pytest.raises(Die):
            run(path, checkpoint_every=2, callbacks=[DieAt(step)], resume=True)
    assert outcome(run(path, resume=True)) == whole


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr_factor", 0.1), ("lr", 0.0123), ("schedule", gpumlp.SCHEDULES["step"].set(gamma=0.5))],
)
@pytest.mark.parametrize("step", [STEPS + 2, STEPS + 4, 2 * STEPS + 1, 3 * STEPS + 1])
def test_what_a_step_assigns_to_the_learning_rate_is_that_of_the_next_epoch(
    path, step, name, value
):
    """Also if the run is resumed before that epoch, or after it."""

    class Assigns(gpumlp.Callback):
        def on_step_end(self, trainer):
            if trainer.steps == STEPS + 2:
                setattr(trainer, name, value)

    with pytest.raises(Die):
        run(path, checkpoint_every=1, callbacks=[Assigns(), DieAt(step + 1)])
    resumed = run(path, resume=True, callbacks=[Assigns()])
    assert outcome(resumed) == outcome(run(callbacks=[Assigns()])) != outcome(run())
    assert getattr(resumed, name) == value


def test_an_own_schedule_that_a_callback_assigned_is_refused_unless_the_trainer_has_it(path):
    """It cannot be made from the file."""
    own = gpumlp.Schedule("own", factor=lambda t, steps: 0.5)

    class Assigns(gpumlp.Callback):
        def on_epoch_end(self, trainer, row):
            trainer.schedule = own if trainer.epochs == 1 else "constant"

    with pytest.raises(Die):
        run(path, callbacks=[Assigns(), DieAt(STEPS + 2)])
    with pytest.raises(gpumlp.CheckpointError, match=r"position.schedule must be the trainer's"):
        run(path, resume=True, callbacks=[Assigns()])
    path.unlink()
    kept = {"trainer": {"schedule": own}}
    with pytest.raises(Die):
        run(path, callbacks=[Assigns(), DieAt(STEPS + 2)], **kept)
    resumed = run(path, resume=True, callbacks=[Assigns()], **kept)
    assert outcome(resumed) == outcome(run(callbacks=[Assigns()], **kept))


@pytest.mark.parametrize("step", [1, 2 * STEPS, 2 * STEPS + 5])
def test_run_resumes_at_the_step_of_ctrl_c(path, whole, step):
    stopped = run(path, callbacks=[CtrlCAt(step)])
    assert (stopped.history.stopped, stopped.steps) == ("interrupted", step)
    seen = Steps()
    assert outcome(run(path, resume=True, callbacks=[seen])) == whole
    assert seen.steps == list(range(step + 1, EPOCHS * STEPS + 1))


@pytest.mark.parametrize(("every", "last"), [(None, 2 * STEPS), (20, 20), (7, 21), (8, 16 + 2)])
def test_checkpoint_every_and_epoch_ends_write(path, every, last):
    with pytest.raises(Die):
        run(path, checkpoint_every=every, callbacks=[DieAt(2 * STEPS + 4)])
    seen = Steps()
    run(path, resume=True, callbacks=[seen])
    assert seen.steps[0] == last + 1


def test_no_step_is_written_twice(path, monkeypatch):
    write, times = storage.write, []
    monkeypatch.setattr(storage, "write", lambda *a: times.append(write(*a)))
    run(path, checkpoint_every=3, epochs=2)
    assert len(times) == 2 * STEPS // 3


def test_early_stopping_resumes_with_its_patience_and_its_best(path):
    rule = gpumlp.EarlyStopping(patience=3)
    kept = {"trainer": {"lr": 0.3}, "early_stopping": rule, "epochs": 60}
    expected = outcome(run(**kept))
    assert expected[3][0] == "early"
    last = expected[3][3]
    for epoch in range(1, last + 1):
        with pytest.raises(Die):
            run(path, callbacks=[DieAt(epoch=epoch)], resume=True, **kept)
    assert outcome(run(path, resume=True, **kept)) == expected
    assert outcome(run(path, resume=True, **kept)) == expected  # what has stopped stays so


def test_finished_run_resumes_unchanged_or_longer(path):
    constant = {"trainer": {"schedule": "constant"}}
    longer = outcome(run(epochs=9, **constant))
    done = outcome(run(path, epochs=5, **constant))
    assert outcome(run(path, epochs=5, resume=True, **constant)) == done
    assert outcome(run(path, epochs=9, resume=True, **constant)) == longer


def test_resume_without_file_starts_anew_and_no_resume_replaces_it(path, whole):
    assert outcome(run(path, resume=True)) == whole
    run(path, data_seed=1)
    assert outcome(run(path)) == whole


def test_numbers_of_numpy_and_fractions_are_written(path):
    """In all that a checkpoint holds."""
    x, y, small = np.ones((8, 3)), np.arange(8) % 2, np.float32(0.5)
    for epochs in (1, 3):
        trainer = gpumlp.Trainer(gpumlp.MLP([3, 2], backend="numpy"), lr=small, seed=np.uint8(1))
        trainer.fit(
            x, y, np.int64(epochs), checkpoint=path, checkpoint_every=np.int64(1),
            resume=np.True_, early_stopping=gpumlp.EarlyStopping(
                np.int64(5), Fraction(1, 9), "cost", np.False_
            ),
            callbacks=[gpumlp.callbacks.ReduceOnPlateau("cost", small, min_delta=small)],
        )  # fmt: skip
    assert trainer.history.epochs == 3


def test_a_second_fit_resumes_with_the_first_ones_steps(path):
    def second(checkpoint=None, **fit):
        trainer = run(epochs=2)
        rng = np.random.default_rng(5)
        x, y = rng.standard_normal((30, 5)), rng.integers(0, 3, 30)
        trainer.fit(x, y, 4, checkpoint=checkpoint, **fit)
        return trainer

    expected = outcome(second())
    with pytest.raises(Die):
        second(path, checkpoint_every=1, callbacks=[DieAt(2 * STEPS + 7)])
    assert outcome(second(path, resume=True)) == expected


@pytest.mark.slow
def test_checkpoints_of_killed_processes_load_and_resume(tmp_path, whole):
    rng, found = random.Random(4), set()
    for i in range(12):
        path = tmp_path / f"{i}.safetensors"
        steps = rng.randrange(1, 40)
        worker = [sys.executable, "-m", "tests.support.kill_worker", str(path), str(steps + 3)]
        with subprocess.Popen(worker, stdout=subprocess.PIPE, text=True) as child:
            times = [float(child.stdout.readline()) for _ in range(1 + steps)]
            # anywhere in the next two steps and the writing of their checkpoints
            time.sleep(rng.uniform(0, 2) * (times[-1] - times[0]) / steps)
            child.kill()
        assert child.returncode == -signal.SIGKILL
        if path.exists():
            gpumlp.MLP.load(path, backend="numpy")
            found.add(json.loads(storage.read(path)[1]["training"])["position"]["steps_ever"])
        assert outcome(run(path, resume=True)) == whole
        assert [file.name for file in tmp_path.glob(f"{i}.*")] == [path.name]
    assert len(found) >= 6  # the kills fell all over the training
