"""What an estimator writes down after each epoch, and scikit-learn's rule of when it is enough."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from sklearn.metrics import check_scoring

from gpumlp.estimators.inputs import Examples
from gpumlp.network import MLP
from gpumlp.training.events import Callback

LEAST_STEP = 1e-6  # "adaptive" does not go on below it, as in scikit-learn


class Watch(Callback):
    """Appends to the estimator's curves and ends the fit where they no longer improve by `tol`.

    Unlike `gpumlp.EarlyStopping` it compares with the best value so far even where that was no
    improvement by `tol`, and waits for one epoch more than `n_iter_no_change`.

    Args:
        e: the estimator; its curves and best values are there already, perhaps of fits before.
        net: what is trained.
        unit: scikit-learn's loss over ours, see `settings.unit`.
        score: the validation score where a scorer gives it, not the training's metric.
        ends: whether training is ended by the rule.
    """

    def __init__(
        self, e: Any, net: MLP, unit: float, score: Callable[[], float] | None, ends: bool
    ) -> None:
        self._e, self._net, self._unit, self._score, self._ends = e, net, unit, score, ends

    def on_epoch_end(self, trainer: Any, row: Mapping[str, float]) -> None:
        """Note the epoch, and set ``trainer.stop`` where no more are wanted."""
        e = self._e
        e.n_iter_ += 1
        e.loss_ = self._unit * row["cost"]
        e.loss_curve_.append(e.loss_)
        better = not e.loss_ > e.best_loss_ - e.tol
        e.best_loss_ = min(e.best_loss_, e.loss_)
        told = f"Epoch {e.n_iter_}: loss {e.loss_:.6g}"
        if "val_cost" in row:
            score = row["val_metric"] if self._score is None else self._score()
            told += f", validation loss {self._unit * row['val_cost']:.6g}, score {score:.6g}"
            improved = self._validated(self._unit * row["val_cost"], score)
            better = improved if e.early_stopping else better
        if e.verbose:
            print(told)
        e._waited = 0 if better else e._waited + 1
        if self._ends and e._waited > e.n_iter_no_change and not self._slower(trainer):
            trainer.stop = True

    def _validated(self, loss: float, score: float) -> bool:
        """Note how the validation data fares; whether the score rose by `tol`."""
        e = self._e
        e.validation_loss_curve_.append(loss)
        e.validation_scores_.append(score)
        better = score >= e.best_validation_score_ + e.tol
        if score > e.best_validation_score_:
            e.best_validation_score_ = score
            if e.early_stopping:
                backend = self._net.backend
                out = e._best if backend.owns(e._best) else None  # a copy's lies on the host
                e._best = backend.asarray(self._net.theta.flat, out=out)
        return bool(better)

    def _slower(self, trainer: Any) -> bool:
        """Whether the training goes on with a fifth of the learning rate."""
        e = self._e
        if e.learning_rate != "adaptive" or e.solver == "lbfgs" or e._slowed <= LEAST_STEP:
            return False
        trainer.lr /= 5
        e._slowed /= 5
        e._waited = 0
        if e.verbose:
            print(f"Learning rate {e._slowed:.6g}")
        return True


def nameless(e: Any) -> Any:
    """A shallow copy of the estimator that takes checked arrays without asking for their names."""
    twin = copy.copy(e)
    vars(twin).pop("feature_names_in_", None)
    return twin


def scorer(e: Any, net: MLP, held: Examples) -> Callable[[], float] | None:
    """The validation score by `scoring`; None where that is None.

    A scorer that has no sample_weight gets none.
    """
    if e.scoring is None:
        return None
    twin, found = nameless(e), check_scoring(e, e.scoring)
    twin.net_ = net
    weights = {}
    if held.weights is not None and "sample_weight" in inspect.signature(found).parameters:
        weights = {"sample_weight": held.weights}
    return lambda: float(found(twin, held.x, held.y, **weights))


def restore(e: Any, net: MLP) -> None:
    """θ ← the best epoch's, where it was kept."""
    if e._best is not None:
        net.backend.asarray(e._best, out=net.theta.flat)
        net.backend.synchronize()
