"""Early stopping, the progress display, and the checks of callbacks."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp import checks
from gpumlp.errors import did_you_mean, renamed
from gpumlp.io.types import Array
from gpumlp.network import MLP
from gpumlp.training.events import Callback, Training
from gpumlp.training.monitor import Monitor

HOOKS = [name for name in vars(Callback) if name.startswith("on_")]


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when a column of the history has not improved for some epochs.

    Args:
        patience: the fit stops after this number of epochs without improvement.
        min_delta: a change must be larger than this to be an improvement.
        monitor: the column.
        restore_best: leave the network with the θ of the best epoch, however the fit ends (but
            not where it ends with an error).
        mode: "min" where smaller is better, "max" where larger is better; "auto" is "min" for costs
            and "max" for metrics.
    """

    patience: int = 10
    min_delta: float = 0.0
    monitor: str = "val_cost"
    restore_best: bool = True
    mode: str = "auto"

    def __post_init__(self) -> None:
        numbers = {  # Python's, which JSON can hold
            "patience": checks.positive_int(self.patience, "patience"),
            "restore_best": checks.boolean(self.restore_best, "restore_best"),
            "min_delta": self.column_rule.min_delta,
        }
        vars(self).update(numbers)

    @property
    def column_rule(self) -> Monitor:
        """The monitored column, and the rule for an improvement."""
        return Monitor(self.monitor, self.mode, self.min_delta)

    watched = renamed("watched", "column_rule")


class Watch(Monitor):
    """Early stopping in one fit: the monitored column, and θ of its best epoch.

    Attributes:
        best_epoch: the epoch of the best value, from 0; None before the first.
        theta: a copy of `net.theta.whole` of that epoch, where it is to be restored; else None.
    """

    def __init__(self, rule: EarlyStopping, net: MLP) -> None:
        super().__init__(rule.monitor, rule.mode, rule.min_delta)
        self.rule = rule
        self.best_epoch: int | None = None
        # zeros, since a checkpoint leaves out the padding, which must stay zero in θ
        shape = net.theta.whole.shape
        self.theta: Array = net.backend.full(shape, 0) if rule.restore_best else None

    @property
    def done(self) -> bool:
        """Whether there were `patience` epochs without improvement."""
        return self.waited >= self.rule.patience

    def note(self, net: MLP, epoch: int, value: float) -> None:
        """Note the value of an epoch, and copy θ where the value is the best so far."""
        if self.update(value):
            self.best_epoch = epoch
            if self.theta is not None:
                net.backend.asarray(net.theta.whole, out=self.theta)

    def restore(self, net: MLP) -> None:
        """θ ← θ of the best epoch, where there is a copy of it; warn if no epoch is the best."""
        if self.unranked:
            warnings.warn(
                f"early_stopping watched {self.column!r}, which was NaN or infinite in every "
                "epoch: the network has the parameters of the last", RuntimeWarning, stacklevel=2,
            )  # fmt: skip
        if self.theta is not None and self.best is not None:
            net.backend.asarray(self.theta, out=net.theta.whole)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds besides `theta`."""
        return {"best": self.best, "best_epoch": self.best_epoch, "waited": self.waited}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.waited = state["waited"]


def stopping_rule(rule: int | EarlyStopping | None, columns: Sequence[str]) -> EarlyStopping | None:
    """Return the rule, or that of a patience, if the history has its column."""
    if rule is None:
        return None
    if not isinstance(rule, EarlyStopping):
        rule = EarlyStopping(patience=checks.positive_int(rule, "early_stopping"))
    rule.column_rule.check("early_stopping", columns)
    return rule


def checked(callbacks: Sequence[Callback]) -> list[Callback]:
    """The callbacks as a list; TypeError unless they are a list of `Callback` objects."""
    if not isinstance(callbacks, (list, tuple)):
        raise TypeError(f"callbacks must be a list of Callback objects, got {callbacks!r}")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            place = "; pass it as early_stopping" if isinstance(callback, EarlyStopping) else ""
            raise TypeError(f"callbacks must be Callback objects, got {callback!r}{place}")
        for name in dir(type(callback)):
            hint = did_you_mean(name, HOOKS) if name.startswith("on_") and name not in HOOKS else ""
            if hint:
                raise TypeError(
                    f"{type(callback).__name__}.{name} would never be called; {hint}the hooks are "
                    f"{', '.join(HOOKS)}"
                )
    return list(callbacks)


def check_rate(who: str, trainer: Training) -> None:
    """Raise ValueError if the callback `who` needs a learning rate and there is none."""
    if trainer.lr == 0:  # in `fit_lbfgs`
        raise ValueError(
            f"{who} needs a learning rate, which L-BFGS does not have; leave it out, or train by "
            "gpumlp.Trainer, an estimator by another solver"
        )


def stops(callbacks: Sequence[Callback], hook: str, trainer: Training, *arguments: Any) -> bool:
    """Call a hook of every callback; whether one of them stops the fit.

    All work on the backend's arrays is done before and after it, unless it is `on_step_end`.

    TypeError: one returned something else than a truth value or None.
    """
    wait = hook != "on_step_end"
    if wait:
        trainer.net.backend.synchronize()
    results = [getattr(callback, hook)(trainer, *arguments) for callback in callbacks]
    if wait:
        trainer.net.backend.synchronize()
    for callback, result in zip(callbacks, results, strict=True):
        if result is not None and not isinstance(result, (bool, np.bool_)):
            raise TypeError(
                f"{type(callback).__name__}.{hook} returned {result!r}; return True to stop the "
                "fit, else None"
            )
    return any(results)


def end(callbacks: Sequence[Callback], trainer: Training) -> None:
    """Call every callback's `on_fit_end`, even if one fails, so that each closes its files."""
    with ExitStack() as rest:
        for callback in reversed(callbacks):
            rest.callback(callback.on_fit_end, trainer)
        trainer.net.backend.synchronize()


UNWRITABLE = (OSError, ValueError)  # stderr's disk is full, its reader has gone, it is closed


class ProgressBar(Callback):
    """A bar on a terminal that counts steps and shows the numbers of the last epoch.

    `show` shows the bar, of tqdm, and returns it.
    """

    def __init__(self, show: Callable[[], Any]) -> None:
        self._show = show
        self._bar: Any = None
        self._steps = 0

    def on_fit_begin(self, trainer: Training) -> None:
        """Show the bar."""
        self._steps = trainer.steps
        with suppress(*UNWRITABLE):
            self._bar = self._show()

    def on_step_end(self, trainer: Training) -> None:
        """Move the bar by the steps since the last call."""
        self._draw("update", trainer.steps - self._steps)
        self._steps = trainer.steps

    def on_epoch_end(self, trainer: Training, row: Mapping[str, float]) -> None:
        """Show the epoch's numbers."""
        self._draw("set_postfix", {"epoch": trainer.history.epochs, **_shown(row)})

    def on_fit_end(self, trainer: Training) -> None:
        """Leave the bar on the terminal as it is."""
        self._draw("close")

    def _draw(self, method: str, *arguments: Any) -> None:
        """Call a method of the bar. A terminal that has gone does not end the fit."""
        if self._bar is not None:
            try:
                getattr(self._bar, method)(*arguments)
            except UNWRITABLE:
                self._bar = None


class ProgressLines(Callback):
    """One line per epoch on stderr, in place of the bar if stderr is not a terminal."""

    def on_epoch_end(self, trainer: Training, row: Mapping[str, float]) -> None:
        """Print the epoch's numbers."""
        numbers = ", ".join(f"{name} {value}" for name, value in _shown(row).items())
        with suppress(*UNWRITABLE):
            print(f"epoch {trainer.history.epochs}: {numbers}", file=sys.stderr, flush=True)


def may_assign(callbacks: Sequence[Callback]) -> bool:
    """Whether there is a callback that may assign to θ: any but the display of the progress."""
    return any(not isinstance(each, (ProgressBar, ProgressLines)) for each in callbacks)


def _shown(row: Mapping[str, float]) -> dict[str, str]:
    """The numbers of an epoch that the progress display shows."""
    return {k: f"{v:.4g}" for k, v in row.items() if k not in ("lr", "seconds")}


def progress_display(progress: bool | None, total: int, done: Callable[[], int]) -> list[Callback]:
    """The callbacks that show the progress, of `total` steps of which `done()` are done.

    On a terminal they show a bar; for progress=None only if tqdm is installed.  If stderr is not a
    terminal, they print one line per epoch; for None nothing.
    """
    if progress is not None:
        progress = checks.boolean(progress, "progress")
    if progress is False or not sys.stderr:
        return []
    if not sys.stderr.isatty():
        return [ProgressLines()] if progress else []
    try:
        from tqdm import tqdm
    except ImportError as error:
        if progress:
            raise ImportError('for progress=True: pip install tqdm, or "gpumlp[cli]"') from error
        return []
    # a resumed fit begins at the step where it goes on
    return [ProgressBar(lambda: tqdm(total=total, initial=done(), unit="step"))]
