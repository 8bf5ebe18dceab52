"""The states of callbacks in a checkpoint, and callbacks at the end of a fit."""

from __future__ import annotations

import numpy as np
import pytest

import gpumlp
from tests.support.kill_worker import EPOCHS, STEPS, outcome, run
from tests.support.training_cases import Die, Hook, X, Y, die_at, regression

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


class Counter(gpumlp.Callback):
    def __init__(self, start=0):
        self.n = start

    def on_step_end(self, trainer):
        self.n += 1

    def state(self):
        return {"n": self.n}

    def restore(self, state):
        self.n = state["n"]


def test_each_callback_gets_its_own_state_back(path):
    first, second = Counter(), Counter(100)
    with pytest.raises(Die):
        run(path, checkpoint_every=4, callbacks=[first, second, die_at(14)])
    again, other = Counter(), Counter()
    run(path, resume=True, callbacks=[gpumlp.Callback(), again, other])
    assert (again.n, other.n) == (EPOCHS * STEPS, 100 + EPOCHS * STEPS)


def test_resume_without_a_callback_warns(path):
    run(path, epochs=1, callbacks=[Counter(), Hook()], trainer={"schedule": "constant"})
    named = {"resume": True, "trainer": {"schedule": "constant"}}
    assert run(path, epochs=2, callbacks=[Counter()], **named).epochs == 2  # the hook has no state
    with pytest.warns(RuntimeWarning, match="of a run with the callback Counter, without which"):
        assert run(path, epochs=3, callbacks=[Hook()], **named).epochs == 3


def test_state_that_json_cannot_hold_raises(path):
    class Unserializable(gpumlp.Callback):
        def state(self):
            return {"theta": np.zeros(3)}

    with pytest.raises(TypeError, match=r"Unserializable.state\(\) gave what JSON cannot hold"):
        run(path, epochs=1, callbacks=[Unserializable()])


def test_every_callback_ends_even_if_another_raises():
    log = []

    class Ends(gpumlp.Callback):
        def __init__(self, name):
            self.name = name

        def on_fit_end(self, trainer):
            log.append(self.name)
            if self.name == "b":
                raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        gpumlp.Trainer(regression()).fit(X, Y, 1, callbacks=[Ends(name) for name in "abc"])
    assert log == ["a", "b", "c"]


def test_resumed_run_continues_unless_a_callback_stops_it_again(path):
    """For example, a callback that limits the hours of each job."""

    class Limit(gpumlp.Callback):
        def on_fit_begin(self, trainer):
            trainer.stop = trainer.history.epochs >= 4

        def on_epoch_end(self, trainer, row):
            return trainer.history.epochs % 2 == 0

    constant = {"trainer": {"schedule": "constant"}}
    ends = []
    for _ in range(3):
        trainer = run(path, resume=True, callbacks=[Limit()], **constant)
        ends.append((trainer.history.epochs, trainer.history.stopped))
    assert ends == [(2, "early"), (4, "early"), (4, "early")]
    whole = outcome(run(epochs=4, **constant))
    assert outcome(trainer)[:3] == whole[:3]
