"""One fit of an estimator: `gpumlp.Trainer` or `fit_lbfgs`, and what of the optimizer is kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.estimators import settings
from gpumlp.estimators.callbacks import tasks
from gpumlp.estimators.inputs import Examples
from gpumlp.estimators.watch import Watch, restore, scorer
from gpumlp.network import MLP
from gpumlp.training import History, Trainer
from gpumlp.training.lbfgs import fit_lbfgs

Given = tuple[Any, Any, Any]
"""X, y and sample_weight as the user gave them."""


def train(
    e: Any, net: MLP, data: Examples, held: Examples | None, given: Given, incremental: bool
) -> History:
    """Train the estimator's network; incremental: one epoch, with the optimizer's state so far."""
    of, weights = settings.unit(net.loss, net.widths[-1]), e._weights(data, incremental)
    rows = settings.batch_size(e, len(data))
    counted = rows if weights is None else rows * (float(weights.mean()) or 1.0)
    net.regularizer = settings.regularizer(e, counted, of)
    score = None if held is None else scorer(e, net, held)
    lbfgs = e.solver == "lbfgs"
    watch = Watch(e, net, of, score, ends=not lbfgs or e.early_stopping)
    keywords: dict[str, Any] = {
        "validation": held and (held.x, held.t, held.weights),
        "metric": (lambda y, p: e._measure(held.y, p, held.weights))
        if held and not score
        else None,
        "sample_weight": weights,
        "callbacks": [watch, *(e.callbacks or ()), *tasks(e, net, *given)],
    }
    if lbfgs:
        limits = {"max_iter": e.max_iter, "max_fun": e.max_fun, "tol": e.tol / of}
        history = fit_lbfgs(net, data.x, data.t, **limits, **keywords)
    else:
        trainer = _trainer(e, net, len(data), rows, of, incremental)
        epochs = 1 if incremental else e.max_iter
        try:
            history = trainer.fit(data.x, data.t, epochs, progress=False, **keywords)
        except FloatingPointError as error:
            raise FloatingPointError(
                f"{str(error).partition(', with lr')[0]}, with learning_rate_init="
                f"{e.learning_rate_init:g}; lower it, pass clip_norm=1.0, or scale X, by "
                "sklearn.preprocessing.StandardScaler say"
            ) from error
        if incremental:
            _keep(e, trainer)
        if trainer.stop and history.stopped == "finished":
            history.stopped = "early"  # at the last epoch
    if e.early_stopping and (not incremental or history.stopped == "early"):
        restore(e, net)
    return history


def _trainer(e: Any, net: MLP, m: int, rows: int, of: float, incremental: bool) -> Trainer:
    """A trainer of m examples, with the optimizer's state where that goes on."""
    rule = settings.optimizer(e, of)
    lr = settings.step_length(e, rule, of) * e._slowed / e.learning_rate_init
    pace = settings.schedule(e, m, rows, incremental)
    clip = None if e.clip_norm is None else e.clip_norm / of
    trainer = Trainer(net, rule, lr, rows, pace, clip, e._seed, shuffle=e.shuffle)
    trainer.epochs = len(e.loss_curve_)  # another order for every epoch, over all fits
    if e._optimizer.get("rule") == rule:
        backend = net.backend
        backend.asarray(e._optimizer["slots"], out=trainer.slots)
        backend.asarray(e._optimizer["scaling"], dtype=np.float64, out=trainer.scaling)
        trainer.steps = e._optimizer["steps"]
    return trainer


def _keep(e: Any, trainer: Trainer) -> None:
    """The optimizer's state for the next `partial_fit`."""
    kept = {"slots": trainer.slots, "scaling": trainer.scaling, "steps": trainer.steps}
    e._optimizer = {"rule": trainer.optimizer, **kept}
