"""What may watch a fit and end it: callbacks, early stopping, the progress bar, Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from gpumlp import checks
from gpumlp.io.types import Array
from gpumlp.network import MLP
from gpumlp.training.events import Callback, Training
from gpumlp.training.monitor import Monitor

if TYPE_CHECKING:
    from gpumlp.training.fit import Fit


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
        checks.positive_int(self.patience, "patience")
        Monitor(self.monitor, self.mode, self.min_delta)


class Watch(Monitor):
    """Early stopping in one fit: the monitored column, and θ of its best epoch.

    Attributes:
        best_epoch: the epoch of the best value, from 0; None before the first.
        theta: a copy of the flat θ of that epoch, where it is to be restored; else None.
    """

    def __init__(self, rule: EarlyStopping, net: MLP) -> None:
        super().__init__(rule.monitor, rule.mode, rule.min_delta)
        self.rule = rule
        self.best_epoch: int | None = None
        # zeros, since a checkpoint leaves out the padding, which must stay zero in θ
        self.theta: Array = net.backend.full(net.theta.flat.shape, 0) if rule.restore_best else None

    @property
    def done(self) -> bool:
        """Whether there were `patience` epochs without improvement."""
        return self.waited >= self.rule.patience

    def note(self, net: MLP, epoch: int, value: float) -> None:
        """Note the value of an epoch, and copy θ where the value is the best so far."""
        if self.update(value):
            self.best_epoch = epoch
            if self.theta is not None:
                net.backend.asarray(net.theta.flat, out=self.theta)

    def restore(self, net: MLP) -> None:
        """θ ← θ of the best epoch, where there is a copy of it."""
        if self.theta is not None and self.best is not None:
            net.backend.asarray(self.theta, out=net.theta.flat)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds besides `theta`."""
        return {"best": self.best, "best_epoch": self.best_epoch, "waited": self.waited}


def watching(rule: int | EarlyStopping | None, net: MLP, columns: Sequence[str]) -> Watch | None:
    """Return the `Watch` of a rule, or of a patience, if the history has its column."""
    if rule is None:
        return None
    if not isinstance(rule, EarlyStopping):
        rule = EarlyStopping(patience=checks.positive_int(rule, "early_stopping"))
    watch = Watch(rule, net)
    watch.check("early_stopping", columns)
    return watch


def checked(callbacks: Sequence[Callback]) -> list[Callback]:
    """The hooks as a list, if they are hooks."""
    if not isinstance(callbacks, (list, tuple)):
        raise TypeError(f"callbacks must be a list of Callback objects, got {callbacks!r}")
    for hook in callbacks:
        if not isinstance(hook, Callback):
            place = "; pass it as early_stopping" if isinstance(hook, EarlyStopping) else ""
            raise TypeError(f"callbacks must be Callback objects, got {hook!r}{place}")
    return list(callbacks)


def check_rate(who: str, trainer: Training) -> None:
    """Raise where a callback wants the learning rate and there is none: in `fit_lbfgs`."""
    if not hasattr(trainer, "lr_factor"):
        raise ValueError(
            f"{who} needs a learning rate, which L-BFGS does not have; leave it out, or train by "
            "gpumlp.Trainer, an estimator by another solver"
        )


def end(callbacks: Sequence[Callback], trainer: Training) -> None:
    """Every callback's `on_fit_end`, so that each closes its files, though another fails."""
    with ExitStack() as rest:
        for callback in reversed(callbacks):
            rest.callback(callback.on_fit_end, trainer)
        trainer.net.backend.synchronize()


class ProgressBar(Callback):
    """A tqdm bar on stderr that counts steps; the costs stand behind it after each epoch."""

    def __init__(self, tqdm: Any, fit: Fit) -> None:
        self._tqdm, self._fit = tqdm, fit
        self._bar: Any = None

    def on_fit_begin(self, trainer: Training) -> None:
        """Show the bar, from where a resumed fit stands."""
        self._bar = self._tqdm(total=self._fit.total, initial=self._fit.done, unit="step")

    def on_step_end(self, trainer: Training) -> None:
        """One step further."""
        self._bar.update()

    def on_epoch_end(self, trainer: Training, row: Mapping[str, float]) -> None:
        """Show the epoch's numbers."""
        shown = {k: f"{v:.4g}" for k, v in row.items() if k not in ("lr", "seconds")}
        self._bar.set_postfix({"epoch": trainer.history.epochs, **shown})

    def on_fit_end(self, trainer: Training) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


def progress_bar(asked: bool | None, fit: Fit) -> list[Callback]:
    """The bar, or nothing: asked None shows it where tqdm is installed and stderr is a terminal."""
    if asked is False or (asked is None and not (sys.stderr and sys.stderr.isatty())):
        return []
    try:
        from tqdm import tqdm
    except ImportError as error:
        if asked:
            raise ImportError('for progress=True: pip install tqdm, or "gpumlp[cli]"') from error
        return []
    return [ProgressBar(tqdm, fit)]


class Interrupt:
    """Within it, the first Ctrl-C sets `asked`, so that no step is left half done; the second
    raises KeyboardInterrupt at once.

    Python handles signals in the main thread alone: elsewhere this does nothing.  Nor does it
    where Ctrl-C is ignored, as in a shell's background job.
    """

    def __init__(self) -> None:
        self.asked = False
        self._previous: Any = None

    def __enter__(self) -> Self:
        main = threading.current_thread() is threading.main_thread()
        # a handler of None was installed outside Python and could not be put back
        if main and signal.getsignal(signal.SIGINT) not in (None, signal.SIG_IGN):
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
