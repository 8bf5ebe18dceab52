"""One rank of the tests of what rank 0 does alone: callbacks, metrics and checkpoints.

    mpiexec -n 2 python first_rank_worker.py FOLDER

Each case is a training in which rank 0 alone does something; no rank may differ afterwards.  Rank 0
prints by case a hash of θ and history, or the error, as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import gpumlp
from gpumlp.callbacks import ReduceOnPlateau
from gpumlp.distributed import world
from gpumlp.training import Callback, EarlyStopping
from tests.support.training_worker import digest

RNG = np.random.default_rng(3)
X, Y = RNG.standard_normal((103, 7)), RNG.integers(0, 3, 103)
VALIDATION = X[:20], Y[:20]


class Assigns(Callback):
    """Assigns to the first W in a hook, once."""

    def __init__(self, hook):
        setattr(self, hook, self.assign)
        self.calls = 0

    def assign(self, trainer, *row):
        self.calls += 1
        if self.calls == 1:
            trainer.net.layers[0].W[...] = 0.25


class Raises(Callback):
    """Raises an error in a hook."""

    def __init__(self, hook):
        setattr(self, hook, self.fail)

    def fail(self, trainer, *row):
        raise KeyError("a key")


class Sets(Callback):
    """Sets the learning rate and the schedule, within an epoch and at the end."""

    def on_step_end(self, trainer):
        if trainer.steps == 9:
            trainer.lr, trainer.schedule = 0.1, "step"

    def on_fit_end(self, trainer):
        trainer.lr, trainer.schedule = 0.02, "constant"


class Decides(Callback):
    """Lowers the learning rate, and stops the fit after a step of the third epoch."""

    def on_step_end(self, trainer):
        trainer.stop = trainer.epochs == 2

    def on_epoch_end(self, trainer, row):
        trainer.lr_factor *= 0.5


def on_first_only(value, other=None):
    """The value on rank 0, the other on all other ranks."""
    return value if world().rank == 0 else other


def noise(y, p):
    """A metric that differs from rank to rank."""
    if world().rank > 0:
        raise ZeroDivisionError("a metric of another rank than 0")
    return float(np.abs(p).sum())


def fitted(epochs=3, settings=None, **arguments):
    """What a training gives: a hash, or its error."""
    net = gpumlp.MLP([7, 9, 8, 3], "gelu", precision="float64", seed=0)
    kept = {"optimizer": "adamw", "batch_size": 16, "shards": 4, "world": world()}
    trainer = gpumlp.Trainer(net, **kept | (settings or {}))
    try:
        return digest(trainer, trainer.fit(X, Y, epochs, **arguments))
    except (KeyError, OSError, ValueError) as error:
        return f"{type(error).__name__} {error}".replace("on rank 0: ", "")


def resumed(path):
    """A training with a callback that has a state, in two parts."""
    for epochs in (3, 6):
        result = fitted(
            epochs, settings={"lr": 0.05}, validation=VALIDATION,
            callbacks=on_first_only([ReduceOnPlateau(patience=1)], []),
            checkpoint=on_first_only(path), resume=on_first_only(True, False),
        )  # fmt: skip
    return result


def twice():
    """Two fits of a trainer with a callback that sets what a fit reads."""
    net = gpumlp.MLP([7, 9, 8, 3], "gelu", precision="float64", seed=0)
    trainer = gpumlp.Trainer(net, batch_size=16, shards=4, world=world())
    for _ in range(2):
        history = trainer.fit(X, Y, 3, callbacks=[Sets()])
    return digest(trainer, history)


def cases(folder):
    """The result of each case, by name."""
    found = {}
    for hook in ("on_fit_begin", "on_step_end", "on_epoch_end", "on_fit_end"):
        for name, settings in (
            ("adamw", {}), ("averaged", {"ema": 0.9}), ("muon", {"optimizer": "muon"}),
        ):  # fmt: skip
            case = f"{hook} assigns to θ, {name}"
            found[case] = fitted(settings=settings, callbacks=[Assigns(hook)])
        found[f"{hook} raises"] = fitted(callbacks=[Raises(hook)])
    found["decisions"] = fitted(5, callbacks=[Decides()])
    found["settings"] = twice()
    found["resumed"] = resumed(folder / "resumed")
    for name, others in (("same", noise), ("none", None), ("unknown", "no scorer")):
        found[f"metric, {name} on others"] = fitted(
            6, validation=VALIDATION, metric=on_first_only(noise, others), train_metric=True,
            early_stopping=EarlyStopping(1, monitor="val_metric"),
        )  # fmt: skip
    found["two metrics"] = fitted(
        2, validation=VALIDATION, metric=on_first_only({"a": noise, "b": "auto"}, "auto"),
    )  # fmt: skip
    found["unknown metric"] = fitted(metric=on_first_only("no scorer", "auto"))
    found["no folder"] = fitted(checkpoint=on_first_only("absent/file"))
    return found


if __name__ == "__main__":
    results = world().share(cases(Path(sys.argv[1])))
    for rank, other in enumerate(results):
        assert other == results[0], f"rank {rank} has {other}, rank 0 {results[0]}"
    if world().rank == 0:
        print(json.dumps(results[0]))
