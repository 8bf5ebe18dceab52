"""One fit of an estimator: `gpumlp.Trainer` or `fit_lbfgs`, and what each epoch notes."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sklearn.metrics import check_scoring

from gpumlp.estimators import settings
from gpumlp.estimators.callbacks import task_callbacks
from gpumlp.estimators.inputs import FitData
from gpumlp.network import MLP
from gpumlp.training import Callback, History, Trainer
from gpumlp.training.lbfgs import fit_lbfgs
from gpumlp.training.monitor import Monitor

LEAST_RATE = 1e-6  # "adaptive" does not lower a smaller learning rate, as in scikit-learn
UserData = tuple[Any, Any, Any]
"""X, y and sample_weight as the user passed them."""


def train(
    e: Any, net: MLP, data: FitData, validation: FitData | None, given: UserData, incremental: bool
) -> History:
    """Train the network of the estimator e.

    Args:
        e: the estimator.
        net: its network.
        data: the training data.
        validation: the validation data, or None.
        given: the training data as the user passed it, for scikit-learn's callbacks.
        incremental: train for one epoch, with the optimizer's state so far.
    """
    unit, weights = settings.loss_unit(net.loss, net.widths[-1]), e._loss_weights(data, incremental)
    rows = settings.batch_size(e, len(data))
    weight_per_batch = rows if weights is None else rows * (float(weights.mean()) or 1.0)
    net.regularizer = settings.regularizer(e, weight_per_batch, unit)
    score = None if validation is None else scorer(e, net, validation)
    lbfgs = e.solver == "lbfgs"
    log = EpochLog(e, net, unit, score, stops=not lbfgs or e.early_stopping)
    named: dict[str, Any] = {
        "sample_weight": weights,
        "callbacks": [log, *(e.callbacks or ()), *task_callbacks(e, net, *given)],
        "metric": None,
    }
    if validation is not None:
        y, y_weights = validation.y, validation.weights
        named["validation"] = (validation.x, validation.targets, y_weights)
        if score is None:
            named["metric"] = lambda _, p: e._score(y, p, y_weights)
    if lbfgs:
        limits = {"max_iter": e.max_iter, "max_fun": e.max_fun, "tol": e.tol / unit}
        history = fit_lbfgs(net, data.x, data.targets, **limits, **named)
    else:
        history = _train_by_minibatches(e, net, data, rows, unit, incremental, named)
    if e.early_stopping and (not incremental or history.stopped == "early"):
        _restore_best(e, net)
    return history


def _train_by_minibatches(
    e: Any, net: MLP, data: FitData, rows: int, unit: float, incremental: bool,
    named: dict[str, Any],
) -> History:  # fmt: skip
    trainer = _trainer(e, net, len(data), rows, unit, incremental)
    epochs = 1 if incremental else e.max_iter
    try:
        history = trainer.fit(data.x, data.targets, epochs, progress=False, **named)
    except FloatingPointError as error:
        raise FloatingPointError(
            f"training diverged after {e.n_iter_} epochs, with learning_rate_init="
            f"{e.learning_rate_init:g}; lower it, pass clip_norm=1.0, or scale X, for example with "
            "sklearn.preprocessing.StandardScaler"
        ) from error
    if incremental:
        state = {"slots": trainer.slots, "scaling": trainer.scaling, "steps": trainer.steps}
        e._optimizer = {"rule": trainer.optimizer, **state}
    if trainer.stop and history.stopped == "finished":
        history.stopped = "early"  # the rule ended the fit in its last epoch
    return history


def _trainer(e: Any, net: MLP, m: int, rows: int, unit: float, incremental: bool) -> Trainer:
    """Return a trainer for m examples; `partial_fit` continues with the optimizer's state."""
    rule = settings.optimizer(e, unit)
    lr = settings.step_length(e, rule, unit) * e._slowed / e.learning_rate_init
    schedule = settings.schedule(e, m, rows, incremental)
    clip_norm = None if e.clip_norm is None else e.clip_norm / unit
    trainer = Trainer(net, rule, lr, rows, schedule, clip_norm, e._seed, shuffle=e.shuffle)
    trainer.epochs = len(e.loss_curve_)  # so that every epoch of all fits has its own order
    if e._optimizer.get("rule") == rule:
        backend = net.backend
        backend.asarray(e._optimizer["slots"], out=trainer.slots)
        backend.asarray(e._optimizer["scaling"], dtype=np.float64, out=trainer.scaling)
        trainer.steps = e._optimizer["steps"]
    return trainer


class EpochLog(Callback):
    """Append each epoch to the estimator's curves, and stop by scikit-learn's rule.

    Training stops after more than `n_iter_no_change` epochs in which the loss or, with early
    stopping, the validation score has not improved by `tol`.

    Args:
        e: the estimator; its curves and best values may have entries of earlier fits.
        net: the network in training.
        unit: scikit-learn's loss over ours, see `settings.loss_unit`.
        score: returns the validation score of a scorer; None uses the training's metric.
        stops: whether the rule stops the training.
    """

    def __init__(
        self, e: Any, net: MLP, unit: float, score: Callable[[], float] | None, stops: bool
    ) -> None:
        self._e, self._net, self._unit, self._scorer, self._stops = e, net, unit, score, stops
        self._loss = Monitor("cost", "min", e.tol, scikit_learn=True)
        self._score = Monitor("val_metric", "max", e.tol, scikit_learn=True)
        self._loss.best, self._score.best = e.best_loss_, e.best_validation_score_
        self._watched = self._score if e.early_stopping else self._loss
        self._watched.waited = e._waited

    def on_epoch_end(self, trainer: Any, row: Mapping[str, float]) -> None:
        """Note the epoch, and set ``trainer.stop`` where it is the last one."""
        e = self._e
        e.n_iter_ += 1
        e.loss_ = self._unit * row["cost"]
        e.loss_curve_.append(e.loss_)
        self._loss.update(e.loss_)
        e.best_loss_ = self._loss.best
        line = f"Epoch {e.n_iter_}: loss {e.loss_:.6g}"
        if "val_cost" in row:
            score = row["val_metric"] if self._scorer is None else self._scorer()
            line += f", validation loss {self._unit * row['val_cost']:.6g}, score {score:.6g}"
            self._note_validation(self._unit * row["val_cost"], score)
        if e.verbose:
            print(line)
        waited_too_long = self._watched.waited > e.n_iter_no_change
        if self._stops and waited_too_long and not self._lower_rate(trainer):
            trainer.stop = True
        e._waited = self._watched.waited

    def _note_validation(self, loss: float, score: float) -> None:
        """Append to the validation curves; with early stopping, copy θ of the best score."""
        e = self._e
        e.validation_loss_curve_.append(loss)
        e.validation_scores_.append(score)
        if e.early_stopping and score > e.best_validation_score_:
            backend = self._net.backend
            out = e._best if backend.owns(e._best) else None  # a copied estimator's is on the host
            e._best = backend.asarray(self._net.theta.flat, out=out)
        self._score.update(score)
        e.best_validation_score_ = self._score.best

    def _lower_rate(self, trainer: Any) -> bool:
        """Divide an "adaptive" learning rate by 5; return False where the training must stop."""
        e = self._e
        if e.learning_rate != "adaptive" or e.solver == "lbfgs" or e._slowed <= LEAST_RATE:
            return False
        trainer.lr /= 5
        e._slowed /= 5
        self._watched.waited = 0
        if e.verbose:
            print(f"Learning rate {e._slowed:.6g}")
        return True


def scorer(e: Any, net: MLP, validation: FitData) -> Callable[[], float] | None:
    """Return a function that computes the score `scoring` of the network; None without `scoring`.

    A scorer without the argument sample_weight gets no weights.
    """
    if e.scoring is None:
        return None
    scored, score = copy.copy(e), check_scoring(e, e.scoring)
    scored.net_ = net
    vars(scored).pop("feature_names_in_", None)  # validation.x is an array without names
    weights = {}
    if validation.weights is not None and "sample_weight" in inspect.signature(score).parameters:
        weights = {"sample_weight": validation.weights}
    return lambda: float(score(scored, validation.x, validation.y, **weights))


def _restore_best(e: Any, net: MLP) -> None:
    """θ ← θ of the epoch with the best validation score."""
    if e._best is not None:
        net.backend.asarray(e._best, out=net.theta.flat)
        net.backend.synchronize()
