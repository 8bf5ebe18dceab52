"""ReduceOnPlateau."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.callbacks import LearningRateLogger, ReduceOnPlateau
from tests.support.harness.host_device import HostDevice
from tests.support.kill_worker import STEPS, outcome, run
from tests.support.training_cases import Die, Hook, X, Y, die_at, regression, theta

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


def factors(values, schedule="constant", **rule):
    """The learning rate over that of the schedule, for a metric with these values."""
    script = iter(values)
    trainer = gpumlp.Trainer(regression(), "sgd", 0.5, batch_size=50, schedule=schedule)
    hook = ReduceOnPlateau("val_metric", **rule)
    history = trainer.fit(
        X, Y, len(values), validation=(X, Y), metric=lambda y, p: next(script), callbacks=[hook]
    )
    plain = [trainer.schedule.lr(0.5, t, len(values)) for t in range(len(values))]
    return [lr / base for lr, base in zip(history["lr"], plain, strict=True)]


NAN = math.nan
PLATEAUS = [
    ([1, 1, 1, 1, 1, 1, 1], {"patience": 2}, [1, 1, 1, 0.5, 0.5, 0.25, 0.25]),
    ([1, 0, 2, 0, 3, 3, 3], {"patience": 2}, [1, 1, 1, 1, 1, 1, 1]),
    ([1, 2, 3, 3.05, 3.1, 9, 9], {"patience": 2, "min_delta": 0.2}, [1, 1, 1, 1, 1, 0.5, 0.5]),
    ([NAN, NAN, 1, NAN, NAN, 2, 2], {"patience": 2}, [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]),
    ([3, 2, 1, 1, 0, 0, 0], {"patience": 2, "mode": "min"}, [1] * 7),
    ([1, 1, 1, 1, 1, 1, 1], {"patience": 1, "cooldown": 2}, [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]),
    ([1] * 7, {"patience": 1, "min_lr": 0.2}, [1, 1, 0.5, 0.4, 0.4, 0.4, 0.4]),
    ([1] * 7, {"patience": 1, "min_lr": 9.0}, [1] * 7),
    ([2, 2, 1, 2, 3, 3, 3], {"patience": 3}, [1, 1, 1, 1, 0.5, 0.5, 0.5]),
]  # fmt: skip


@pytest.mark.parametrize("schedule", ["constant", "inverse_sqrt"])
@pytest.mark.parametrize(("values", "rule", "expected"), PLATEAUS)
def test_learning_rate_falls_without_improvement(values, rule, expected, schedule):
    assert factors(values, schedule, factor=0.5, **rule) == pytest.approx(expected, rel=1e-12)


def test_steps_have_the_reduced_learning_rate():
    """Plain SGD changes θ by lr · ∇L, which shows lr."""
    net, seen = regression(), []

    def step(trainer):
        _, gradients = net.cost_and_gradients(X, Y, intermediate=False)
        seen.append((net.layers[0].W.copy(), gradients.W[0].copy()))

    rule = ReduceOnPlateau("cost", 0.1, 1, min_delta=1e9)
    trainer = gpumlp.Trainer(net, "sgd", 0.1, batch_size=50)
    history = trainer.fit(X, Y, 4, callbacks=[rule, Hook(step)])
    assert history["lr"] == pytest.approx([0.1, 0.1, 0.01, 0.001], rel=1e-12)
    for t in (1, 2, 3):
        moved = seen[t - 1][0] - seen[t][0]
        np.testing.assert_allclose(moved, history["lr"][t] * seen[t - 1][1], rtol=1e-9, atol=1e-15)
    again = trainer.fit(X, Y, 1, callbacks=[rule])
    assert again["lr"] == [0.1]  # a new fit starts with factor 1


def plateau():
    return ReduceOnPlateau(factor=0.5, patience=1, min_delta=0.05, cooldown=1)


SETTINGS = {"early_stopping": None, "trainer": {"lr": 0.3}}


@pytest.mark.parametrize("every", [None, 5])
def test_resumed_run_is_bit_identical(path, every):
    whole = run(callbacks=[plateau()], **SETTINGS)
    assert whole.history["lr"][-1] <= run(**SETTINGS).history["lr"][-1] / 8
    for step in (5, 24, 43, 7 * STEPS, 81, 100):
        hooks = [plateau(), die_at(step)]
        with pytest.raises(Die):
            run(path, checkpoint_every=every, callbacks=hooks, resume=True, **SETTINGS)
    assert outcome(run(path, resume=True, callbacks=[plateau()], **SETTINGS)) == outcome(whole)


def test_reduced_learning_rate_on_the_cuda_backend():
    """The factor reaches the table of learning rates that a replayed step reads."""
    settings = {"epochs": 6, **SETTINGS}
    expected = run(net={"precision": "float64"}, callbacks=[plateau()], **settings)
    backend, rates = CudaBackend(HostDevice(), "float64"), LearningRateLogger()
    trainer = run(net={"backend": backend}, callbacks=[plateau(), rates], **settings)
    assert trainer.history["lr"] == expected.history["lr"]
    assert trainer.lr_factor < 1
    assert rates.lr[STEPS - 1 :: STEPS].tolist() == trainer.history["lr"]
    for name, tensor in trainer.net.tensors().items():
        wanted = expected.net.tensors()[name]
        np.testing.assert_allclose(tensor, wanted, rtol=1e-11, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"factor": 1.0}, ValueError), ({"factor": 0}, ValueError), ({"patience": 0}, ValueError),
     ({"cooldown": -1}, ValueError), ({"min_lr": -1}, ValueError), ({"mode": "up"}, ValueError),
     ({"monitor": "lr"}, ValueError), ({"factor": "half"}, TypeError)],
)  # fmt: skip
def test_invalid_argument_raises(arguments, error):
    with pytest.raises(error, match=next(iter(arguments))):
        ReduceOnPlateau(**arguments)


def test_other_settings_raise_and_change_nothing(path):
    def fit(net, rule, **named):
        trainer = gpumlp.Trainer(net, batch_size=16)
        return trainer.fit(X, Y, 3, validation=(X, Y), checkpoint=path, callbacks=[rule], **named)

    fit(regression(), plateau())
    net = regression()
    before = theta(net)
    with pytest.raises(gpumlp.CheckpointError, match="another ReduceOnPlateau: min_delta 0.05"):
        fit(net, ReduceOnPlateau(factor=0.5, patience=1), resume=True)
    assert theta(net) == before
