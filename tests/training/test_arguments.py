"""Invalid arguments raise one error each, and nothing is trained."""

from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pytest

import gpumlp
from tests.support.training_cases import WEIGHTS, Hook, X, Y, regression, theta

BAD_TRAINERS = [
    ({"net": "mlp"}, TypeError, "net must be a gpumlp.MLP"),
    ({"optimizer": "adm"}, ValueError, "did you mean 'adam'"),
    ({"optimizer": 3}, TypeError, "optimizer must be a name or an entry"),
    ({"schedule": "cosine"}, ValueError, "unknown schedule"),
    ({"lr": 0}, ValueError, "lr must be finite and more than 0, got 0"),
    ({"lr": 10**400}, ValueError, "lr must be finite and more than 0, got 10000"),
    ({"lr": -1e-3}, ValueError, "lr must be finite"),
    ({"lr": float("nan")}, ValueError, "lr must be finite"),
    ({"lr": "fast"}, TypeError, "lr must be a number, got 'fast'"),
    ({"clip_norm": 0.0}, ValueError, "clip_norm must be finite and more than 0"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
    ({"batch_size": 2.5}, TypeError, "batch_size must be a whole number"),
    ({"seed": -1}, ValueError, "seed must be at least 0"),
    ({"shuffle": "yes"}, TypeError, "shuffle must be True or False"),
    ({"shuffle": 1}, TypeError, "shuffle must be True or False"),
    ({"fold": "no"}, TypeError, "fold must be True, False or None"),
    ({"lr": True}, TypeError, "lr must be a number, got True"),
    ({"batch_size": "64"}, TypeError, "batch_size must be a whole number"),
    ({"seed": True}, TypeError, "seed must be a whole number"),
    ({"ema": True}, ValueError, "ema must be a number between 0 and 1"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_TRAINERS)
def test_invalid_trainer_argument_raises(arguments, error, message):
    with pytest.raises(error, match=message):
        gpumlp.Trainer(**{"net": regression(), **arguments})


class Misspelt(gpumlp.Callback):
    def on_epoch_begin(self, trainer):
        """A hook of another library."""

    def on_disk(self):
        """No hook, nor like one."""


NAN = np.where(np.arange(200).reshape(50, 4) == 17, np.nan, X)
BAD_FITS = [
    ({"x": X[:, :3]}, ValueError, "x has 3 columns"),
    ({"x": X[:0], "y": Y[:0]}, ValueError, "x has no rows"),
    ({"x": NAN}, ValueError, r"x\[4, 1\] is nan"),
    ({"x": X.astype(str)}, TypeError, "x has dtype"),
    ({"y": Y[:9]}, ValueError, "y has shape"),
    ({"y": NAN[:, :2]}, ValueError, r"y\[4, 1\] is nan"),
    ({"epochs": 0}, ValueError, "epochs must be at least 1"),
    ({"epochs": 1.5}, TypeError, "epochs must be a whole number"),
    ({"sample_weight": -WEIGHTS}, ValueError, "sample_weight has values that are negative"),
    ({"sample_weight": WEIGHTS[:3]}, ValueError, "sample_weight has shape"),
    ({"class_weight": "balanced"}, ValueError, "class_weight needs"),
    ({"validation": X}, ValueError, r"validation must be \(x_val, y_val\)"),
    ({"validation": (X, Y, WEIGHTS, 1)}, ValueError, r"validation must be \(x_val, y_val\)"),
    ({"validation": (X[:, :2], Y)}, ValueError, "x_val has 2 columns"),
    ({"validation": (X[:-1], Y)}, ValueError, "but x_val has .* rows"),
    ({"validation": (X, Y[:3])}, ValueError, "y_val has shape"),
    ({"validation": (NAN, Y)}, ValueError, r"x_val\[4, 1\] is nan"),
    ({"validation": (X, Y, WEIGHTS[:3])}, ValueError, "validation: sample_weight has shape"),
    ({"early_stopping": 3}, ValueError, "early_stopping watches 'val_cost'.*pass validation="),
    ({"early_stopping": 0}, ValueError, "early_stopping must be at least 1"),
    ({"early_stopping": "yes"}, TypeError, "early_stopping must be a whole number"),
    ({"early_stopping": gpumlp.EarlyStopping(monitor="metric")}, ValueError, "watches 'metric'"),
    ({"callbacks": [print]}, TypeError, "callbacks must be Callback objects"),
    ({"callbacks": [gpumlp.EarlyStopping()]}, TypeError, "pass it as early_stopping"),
    (
        {"callbacks": [Misspelt()]},
        TypeError,
        "Misspelt.on_epoch_begin would never .* did you mean 'on_epoch_end'",
    ),
    ({"train_metric": "no"}, TypeError, "train_metric must be True or False, got 'no'"),
    ({"progress": "False"}, TypeError, "progress must be True or False, got 'False'"),
    ({"progress": 0}, TypeError, "progress must be True or False"),
    ({"resume": "yes"}, TypeError, "resume must be True or False"),
    ({"early_stopping": True}, TypeError, "early_stopping must be a whole number"),
    ({"metric": 3}, ValueError, "metric must be"),
    ({"metric": None, "train_metric": True}, ValueError, "train_metric needs a metric"),
    ({"resume": True}, ValueError, "resume needs a file"),
    ({"checkpoint_every": 3}, ValueError, "checkpoint_every needs a file"),
    ({"checkpoint": "no/such/folder/c"}, FileNotFoundError, "the folder .*no/such/folder does not"),
    ({"checkpoint": "."}, IsADirectoryError, "it is a folder"),
    ({"checkpoint": "c", "checkpoint_every": 0}, ValueError, "checkpoint_every must be at least"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_FITS)
def test_invalid_fit_argument_raises_before_training(arguments, error, message):
    net = regression()
    before = theta(net)
    trainer = gpumlp.Trainer(net)
    with pytest.raises(error, match=message):
        trainer.fit(**{"x": X, "y": Y, **arguments})
    assert theta(net) == before
    assert trainer.steps == 0


@pytest.mark.parametrize(
    "arguments",
    [{"patience": 0}, {"min_delta": -1.0}, {"monitor": "lr"}, {"monitor": 3}, {"mode": "up"}],
)
def test_invalid_early_stopping_raises(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        gpumlp.EarlyStopping(**arguments)


WRONG_TYPES = [
    {"patience": True}, {"patience": "3"}, {"min_delta": "0.1"}, {"min_delta": False},
    {"restore_best": "no"}, {"restore_best": 0},
]  # fmt: skip


@pytest.mark.parametrize("arguments", WRONG_TYPES, ids=str)
def test_texts_and_truth_values_are_no_numbers_in_early_stopping(arguments):
    with pytest.raises(TypeError, match=f"{next(iter(arguments))} must be "):
        gpumlp.EarlyStopping(**arguments)


def test_values_beyond_the_dtype_raise():
    net = regression(precision="float32")
    with pytest.raises(ValueError, match="x has values up to 1e\\+300, beyond the network's float"):
        gpumlp.Trainer(net).fit(np.full((3, 4), 1e300), Y[:3])


@pytest.mark.parametrize(
    ("f", "loss"),
    [("softmax", "softmax_cross_entropy"), ("sigmoid", "binary_cross_entropy"),
     ("exponential", "poisson")],
)  # fmt: skip
def test_an_output_activation_that_the_loss_applies_itself_is_warned_of(f, loss):
    net = gpumlp.MLP([4, 2], output_activation=f, loss=loss, backend="numpy")
    said = f'{loss} takes logits and applies {f} itself.*without output_activation="{f}"'
    with pytest.warns(UserWarning, match=said):
        gpumlp.Trainer(net)
    gpumlp.Trainer(gpumlp.MLP([4, 2], loss=loss, backend="numpy"))


CHANGES = {
    "lr": 0.5, "batch_size": 5, "seed": 9, "shuffle": False, "schedule": gpumlp.SCHEDULES["step"],
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_may_change_between_fits_is_that_of_a_new_trainer(name, rng):
    """Of plain SGD, which has no state."""
    x, y = rng.normal(size=(20, 3)), rng.normal(size=(20, 2))
    nets = [gpumlp.MLP([3, 4, 2], loss="squared_error", backend="numpy") for _ in range(2)]
    given = {"lr": 0.01, "batch_size": 8}
    changed = gpumlp.Trainer(nets[0], "sgd", **given)
    setattr(changed, name, CHANGES[name])
    for trainer in (changed, gpumlp.Trainer(nets[1], "sgd", **{**given, name: CHANGES[name]})):
        trainer.fit(x, y, 3, progress=False)
    np.testing.assert_array_equal(nets[0].theta.flat, nets[1].theta.flat)


@pytest.mark.parametrize(
    "name", [name for name in inspect.signature(gpumlp.Trainer).parameters if name not in CHANGES]
)
def test_what_the_recorded_step_has_cannot_change(name):
    trainer = gpumlp.Trainer(gpumlp.MLP([3, 2], backend="numpy"))
    before = getattr(trainer, name, None)
    for each in (trainer, copy.deepcopy(trainer), pickle.loads(pickle.dumps(trainer))):
        with pytest.raises(AttributeError, match=f"{name} of a trainer cannot change"):
            setattr(each, name, 0.5)
    assert getattr(trainer, name, None) == before


@pytest.mark.parametrize("name", ["batch_size", "seed", "shuffle"])
@pytest.mark.parametrize("hook", ["step", "epoch"])
def test_what_a_fit_reads_when_it_begins_cannot_change_within(name, hook):
    """It had no effect, and the checkpoint had the new value."""
    trainer, value = gpumlp.Trainer(regression(), batch_size=16), CHANGES[name]
    assign = {hook: lambda trainer, *_: setattr(trainer, name, value)}
    with pytest.raises(AttributeError, match=f"{name} of a trainer cannot change during a fit"):
        trainer.fit(X, Y, 2, callbacks=[Hook(**assign)])
    copied = {hook: lambda trainer, *_: setattr(copy.deepcopy(trainer), name, value)}
    trainer.fit(X, Y, 2, callbacks=[Hook(**copied)])
    setattr(trainer, name, value)


def test_networks_cannot_get_another_regularizer_than_the_recorded_step():
    net = regression()
    trainer = gpumlp.Trainer(net)
    net.regularizer = gpumlp.L2(0.1)
    with pytest.raises(ValueError, match="make a new Trainer, or assign this one again"):
        trainer.fit(X, Y, 1)
    gpumlp.Trainer(net).fit(X, Y, 1)
    net.regularizer = gpumlp.REGULARIZERS["none"]
    assert trainer.fit(X, Y, 1).stopped == "finished"
    hook = Hook(step=lambda trainer: setattr(trainer.net, "regularizer", "l2"))
    with pytest.raises(ValueError, match="make a new Trainer, or assign this one again"):
        trainer.fit(X, Y, 1, callbacks=[hook])


ASSIGNED = [
    (name, value, error, match)
    for given, error, match in BAD_TRAINERS
    for name, value in given.items()
    if len(given) == 1 and name in CHANGES
]


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize(
    ("name", "value", "error", "match"),
    [
        *ASSIGNED,
        ("lr_factor", -1, ValueError, "lr_factor"),
        ("lr_factor", "a", TypeError, "lr_f"),
        ("stop", "False", TypeError, "stop must be True or"),
    ],
)
def test_invalid_attributes_raise_as_arguments_do(ensemble, name, value, error, match):
    trainer = gpumlp.Trainer(regression())
    if ensemble:
        trainer = gpumlp.EnsembleTrainer(gpumlp.Ensemble.of([regression()])).trainers[0]
    before = getattr(trainer, name)
    with pytest.raises(error, match=match):
        setattr(trainer, name, value)
    assert getattr(trainer, name) == before


def test_a_schedule_is_assigned_by_name():
    trainer = gpumlp.Trainer(regression())
    trainer.schedule = "one_cycle"
    assert trainer.schedule is gpumlp.SCHEDULES["one_cycle"]
