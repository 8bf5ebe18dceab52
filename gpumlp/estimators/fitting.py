"""One fit of an estimator: the training, what each epoch notes, and scikit-learn's callbacks."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import numpy as np
from sklearn.metrics import check_scoring

from gpumlp.errors import DivergenceError
from gpumlp.estimators import settings
from gpumlp.estimators.inputs import FitData
from gpumlp.functions import Loss
from gpumlp.io.types import HostArray
from gpumlp.network import MLP
from gpumlp.training import Callback, History, Trainer, stepping
from gpumlp.training.callbacks import checked
from gpumlp.training.lbfgs import fit_lbfgs
from gpumlp.training.monitor import Monitor
from gpumlp.weights import example_weights

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn < 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Older versions of scikit-learn have no callbacks to support."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method unchanged."""
        return method


__all__ = ["CallbackSupportMixin", "UserData", "ends_by_error", "train", "with_callbacks"]
# whether Ctrl-C ends a fit by KeyboardInterrupt: what is around it needs complete fits
ends_by_error = ContextVar("ends_by_error", default=False)
LEAST_RATE = 1e-6  # "adaptive" does not lower a smaller learning rate, as in scikit-learn
LARGEST_TOL = 1e150  # in place of infinity; its square is finite
UserData = tuple[Any, Any, Any]
"""X, y and sample_weight as the user passed them."""


def train(
    e: Any, net: MLP, data: FitData, validation: FitData | None, given: UserData, incremental: bool
) -> History:
    """Train the network of the estimator e; `given`: the training data as the user passed it.

    `incremental` trains for one epoch, with the optimizer's state so far.
    """
    unit = settings.loss_unit(net.loss, net.widths[-1])
    by_class = e._class_weights(data, incremental)
    of_class = None if by_class is None else by_class[np.searchsorted(e.classes_, data.y)]
    weights = example_weights(len(data.y), data.weights, of_class)
    size = 200 if e.batch_size == "auto" else int(e.batch_size)
    rows = len(data.y) if e.solver == "lbfgs" else min(size, len(data.y))
    net.regularizer = settings.regularizer(e, rows * _mean_weight(data.weights, of_class), unit.J)
    parts = [(data.targets, weights)]
    if validation is not None:
        parts.append((validation.targets, validation.weights))
    own = () if e.callbacks is None else checked(e.callbacks)
    callbacks = [EpochLog(e, net.loss, unit, parts), *own]
    if _has_tasks(e):
        callbacks.append(TaskCallback(e, net, *given))
    named: dict[str, Any] = {"sample_weight": weights, "callbacks": callbacks, "metric": None}
    if net.loss.smooths and by_class is not None:  # the weights apply after the smoothing
        named |= {"sample_weight": data.weights, "class_weight": by_class}
    if validation is not None:
        named["validation"] = (validation.x, validation.targets, validation.weights)
        named["metric"] = _metric(e, net, validation)
    if e.solver == "lbfgs":
        for name in ("dropout", "clip_norm"):
            if np.any(getattr(e, name)):
                warnings.warn(
                    f'{name}={getattr(e, name)!r} has no effect with solver="lbfgs", which '
                    "minimises the loss of all examples as it is; pass another solver, such as "
                    'solver="adam"',
                    UserWarning, stacklevel=6,
                )  # fmt: skip
        named |= {"max_iter": e.max_iter, "max_fun": e.max_fun}
    try:
        if e.solver == "lbfgs":
            tol = min(e.tol, LARGEST_TOL) / unit.J
            history = fit_lbfgs(net, data.x, data.targets, tol=tol, **named)
        else:
            history = _train_by_minibatches(e, net, data, rows, unit.J, incremental, named)
    except DivergenceError as error:
        raise _diverged(e, error, net.loss.target == "real") from error
    ended = not incremental or history.stopped == "early"
    if e.early_stopping and ended and e._best is not None:
        net.backend.asarray(e._best, out=net.theta.whole)
        net.backend.synchronize()
    elif e.early_stopping and ended and e.validation_scores_:
        warnings.warn(
            "the validation score was NaN or infinite in every epoch, so no epoch is the best: the "
            "parameters are those of the last; pass another scoring", RuntimeWarning, stacklevel=6,
        )  # fmt: skip
    return history


def _has_tasks(e: Any) -> bool:
    """Whether callbacks of scikit-learn follow this fit, or a search or pipeline around it."""
    around = getattr(e, "_parent_callback_ctx", None)
    return bool(
        getattr(e, "_skl_callbacks", None) or getattr(around, "_callbacks", around is not None)
    )


def _mean_weight(*factors: HostArray | None) -> float:
    """Return the weight of an example, for alpha; if all are below 1, over the largest of them.

    So whole numbers count as copies, as in scikit-learn, and beside tiny weights, such as
    likelihoods, alpha does not outweigh the loss.
    """
    known = [each for each in factors if each is not None]
    if not known:
        return 1.0
    tops = [float(each.max()) for each in known]
    weights: Any = math.prod(each / top for each, top in zip(known, tops, strict=True))
    top = float(weights.max())
    return max(math.prod(tops) * top, 1.0) * float((weights / top).mean())


def _train_by_minibatches(
    e: Any, net: MLP, data: FitData, rows: int, unit: float, incremental: bool,
    named: dict[str, Any],
) -> History:  # fmt: skip
    """Train with `rows` examples per step; `partial_fit` continues with the optimizer's state.

    unit: that of J, see `settings.Unit`.
    """
    rule = settings.optimizer(e, unit)
    lr = e.learning_rate_init * (unit if rule.name in settings.PROPORTIONAL else 1.0) * e._slowed
    schedule = settings.schedule(e, len(data.y), rows, incremental)
    clip_norm = None if e.clip_norm is None else e.clip_norm / unit
    trainer = Trainer(net, rule, lr, rows, schedule, clip_norm, e._seed, shuffle=e.shuffle)
    trainer.epochs = len(e.loss_curve_)  # so that every epoch of all fits has its own order
    last_rule, steps, arrays = e._optimizer
    if last_rule and (last_rule.name, last_rule.slots) == (rule.name, rule.slots):
        stepping.restore(trainer, arrays, shown=False)
        trainer.steps = steps
    epochs = 1 if incremental else e.max_iter
    history = trainer.fit(data.x, data.targets, epochs, progress=False, **named)
    if incremental:
        e._optimizer = (rule, trainer.steps, stepping.state(trainer))
    if trainer.stop and history.stopped == "finished":
        history.stopped = "early"  # the rule ended the fit in its last epoch
    return history


def _diverged(e: Any, error: DivergenceError, scales_y: bool) -> DivergenceError:
    """The error of an estimator, which names its parameters."""
    steps = e.solver != "lbfgs" and "before the first update" not in error.what
    causes = [f"learning_rate_init={e.learning_rate_init:g}"] * steps
    causes += [f"alpha={e.alpha:g}"] * (e.alpha > 1 and e.regularizer is None)
    given = f", with {' and '.join(causes)}" if causes else ""
    lower = "lower it, " if len(causes) == 1 else "lower one of them, " * bool(causes)
    other = "pass clip_norm=1.0, " * (steps and e.clip_norm is None)
    other += "fit anew with warm_start=False, " * (not steps and hasattr(e, "net_"))
    return DivergenceError(
        f"training diverged: {error.what}{given}; {lower}{other}{'or ' * bool(lower + other)}scale "
        f"X{' and y' * scales_y}, for example with sklearn.preprocessing.StandardScaler",
        error.what,
    )


def _metric(e: Any, net: MLP, validation: FitData) -> Callable[[Any, Any], float]:
    """Return the validation score; a scorer without the argument sample_weight gets no weights."""
    y, given = validation.y, validation.weights
    # relative to the largest, so that no sum of them overflows
    weights = {"sample_weight": None if given is None else given / (given.max() or 1.0)}
    if e.scoring is None:
        return lambda _, p: e._usual_score(y, e._decide(p), **weights)
    scored, score = copy.copy(e), check_scoring(e, e.scoring)
    scored.net_, scored._given = net, e._codes  # validation.x has codes
    vars(scored).pop("feature_names_in_", None)  # validation.x is an array without names
    if validation.weights is None or "sample_weight" not in inspect.signature(score).parameters:
        weights = {}
    return lambda *_: score(scored, validation.x, y, **weights)


class EpochLog(Callback):
    """Append each epoch to the curves of the estimator e, and stop by the rule of `tol`.

    The curves and best values may be those of earlier fits.  parts: targets and weights of the
    training data and, where there is one, of the validation data.
    """

    def __init__(self, e: Any, loss: Loss, unit: settings.Unit, parts: list[Any]) -> None:
        self._e, self._unit, self._loss_entry, self._parts = e, unit, loss, parts
        tol = min(e.tol, LARGEST_TOL)
        self._loss = Monitor("cost", "min", tol, scikit_learn=True)
        self._score = Monitor("val_metric", "max", tol, scikit_learn=True)
        self._loss.best, self._score.best = e.best_loss_, e.best_validation_score_
        self._watched = self._score if e.early_stopping else self._loss
        self._watched.waited = e._waited

    def on_fit_begin(self, trainer: Any) -> None:
        """Compute the constants of the losses; the targets have been checked now."""
        self._constants = [settings.loss_constant(self._loss_entry, *p) for p in self._parts]

    def _shown(self, net: MLP, cost: float, constant: float) -> float:
        """Return a cost of `net` in scikit-learn's unit."""
        J, L = self._unit
        rest = 0.0 if J == L else (J - L) * (cost - net.penalty())
        return J * cost - rest + constant

    def on_epoch_end(self, trainer: Any, row: Mapping[str, float]) -> None:
        """Note the epoch, and set ``trainer.stop`` where it is the last one."""
        e = self._e
        e.n_iter_ += 1
        e.loss_ = self._shown(trainer.net, row["cost"], self._constants[0])
        e.loss_curve_.append(e.loss_)
        self._loss.update(e.loss_)
        e.best_loss_ = None if e.early_stopping else self._loss.best
        line = f"Epoch {e.n_iter_}: loss {e.loss_:.6g}"
        if "val_cost" in row:
            score = row["val_metric"]
            loss = self._shown(trainer.net, row["val_cost"], self._constants[1])
            line += f", validation loss {loss:.6g}, score {score:.6g}"
            self._note_validation(trainer.net, loss, score)
        if e.verbose:
            print(line)
        e._waited = self._watched.waited
        stops = e.solver != "lbfgs" or e.early_stopping
        if stops and e._waited > e.n_iter_no_change:
            if e.early_stopping:
                self._score.check_ranked("early_stopping", "pass another scoring")
            trainer.stop = not self._lower_rate(trainer) or trainer.stop

    def _note_validation(self, net: MLP, loss: float, score: float) -> None:
        """Append to the validation curves; with early stopping, copy θ of the best score."""
        e = self._e
        e.validation_loss_curve_.append(loss)
        e.validation_scores_.append(score)
        if e.early_stopping and score > e.best_validation_score_:
            out = e._best if net.backend.owns(e._best) else None  # a copied e's is on the host
            e._best = net.backend.asarray(net.theta.whole, out=out)
        self._score.update(score)
        e.best_validation_score_ = self._score.best

    def _lower_rate(self, trainer: Any) -> bool:
        """Divide an "adaptive" learning rate by 5; return False where the training must stop."""
        e = self._e
        if e.learning_rate != "adaptive" or e.solver == "lbfgs":
            return False
        if e.learning_rate_init * e._slowed <= LEAST_RATE:
            return False
        trainer.lr_factor /= 5
        e._slowed /= 5
        e._waited = self._watched.waited = 0
        if e.verbose:
            print(f"Learning rate {e.learning_rate_init * e._slowed:.6g}")
        return True


class TaskCallback(Callback):
    """Report a fit to scikit-learn's own callbacks: a task "fit" with a task "epoch" per epoch.

    A callback that asks for a fitted estimator gets one with a copy of the network.
    """

    def __init__(self, e: Any, net: MLP, X: Any, y: Any, sample_weight: Any) -> None:
        self._e, self._net = e, net
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        self._data = {"estimator": e, "X": X, "y": y, "metadata": metadata}
        self._fit = e._init_callback_context(max_subtasks=e.max_iter)
        self._epoch: Any = None

    def on_fit_begin(self, trainer: Any) -> None:
        """Begin the fit and its first epoch."""
        self._fit.call_on_fit_task_begin(**self._data)
        self._begin_epoch()

    def on_epoch_end(self, trainer: Any, row: Mapping[str, float]) -> bool:
        """End the epoch and begin the next; return True if a callback stops the fit."""
        stop = self._end(self._epoch)
        self._epoch = None
        if not stop and not trainer.stop and self._e.n_iter_ < self._e.max_iter:
            self._begin_epoch()
        return stop

    def on_fit_end(self, trainer: Any) -> None:
        """End the fit, and before it an epoch that was interrupted."""
        if self._epoch is not None:
            self._end(self._epoch)
        self._end(self._fit)

    def _begin_epoch(self) -> None:
        self._epoch = self._fit.subcontext(task_name="epoch")
        self._epoch.call_on_fit_task_begin(**self._data)

    def _end(self, task: Any) -> bool:
        fitted = {"reconstruction_attributes": lambda: {"net_": copy.deepcopy(self._net)}}
        return bool(task.call_on_fit_task_end(**self._data, **fitted))
