"""Save the network, or lower the learning rate, as a column of the history improves or does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpumlp import checks, storage
from gpumlp.errors import CheckpointError
from gpumlp.io.paths import PathLike, checked_path
from gpumlp.training.callbacks import check_rate
from gpumlp.training.events import Callback, Training
from gpumlp.training.monitor import Monitor


class ModelCheckpoint(Callback):
    """Save the network as a model file, for `MLP.load`, after some of the epochs.

    With `monitor` it is saved after each epoch that is better than all epochs before.  A path
    without fields then holds the best network.  An error leaves no partial file.  To resume a
    training, use ``fit(checkpoint=…)`` instead.

    Args:
        path: the file; its folder must exist.  ``{epoch}``, from 1, and the history's columns are
            filled in, as in "epoch-{epoch:03d}-{val_cost:.4f}.safetensors".
        monitor: a column of the history; None saves the network every `every` epochs.
        every: only consider every so many epochs.
        min_delta, mode: what an improvement is, as in `EarlyStopping`.
        extra: what `MLP.save` stores with the network, a mapping that JSON can hold.

    Attributes:
        saved: the path of the last file that this process wrote, or None.

    Raises:
        ValueError, TypeError: an argument is not valid.  At the start of a fit: `monitor` or a
            field of `path` is not a column of the fit's history.
        FileNotFoundError: at the start of a fit: the folder does not exist.
    """

    def __init__(
        self,
        path: PathLike,
        monitor: str | None = None,
        *,
        every: int = 1,
        min_delta: float = 0.0,
        mode: str = "auto",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = checked_path(path)
        rule = Monitor("val_cost" if monitor is None else monitor, mode, min_delta)  # checks all
        self._monitor = None if monitor is None else rule
        self.every = checks.positive_int(every, "every")
        storage.extra_of(extra)  # raises now what saving would raise
        self.extra = extra
        self.saved: str | None = None

    @property
    def best(self) -> float | None:
        """The column's value in the last file; None without `monitor`, and before the first."""
        return None if self._monitor is None else self._monitor.best

    def on_fit_begin(self, trainer: Training) -> None:
        """Check monitor and path; forget the best value, unless a fit resumes after an epoch."""
        if self._monitor is not None:
            self._monitor.check("ModelCheckpoint", trainer.history)
            if trainer.history.epochs == 0:
                self._monitor.reset()
        storage.check_writable(self._filled(1, dict.fromkeys(trainer.history, 0.0)))

    def on_epoch_end(self, trainer: Training, row: Mapping[str, float]) -> None:
        """Save the network, unless it is not better, or θ is not finite: then the fit raises."""
        epoch, monitor = trainer.history.epochs, self._monitor
        if epoch % self.every or (monitor and not monitor.improves(row[monitor.column])):
            return
        if all(np.isfinite(tensor).all() for tensor in trainer.net.tensors().values()):
            path = self._filled(epoch, row)
            trainer.net.save(path, self.extra)
            self.saved = path
            if monitor:
                monitor.update(row[monitor.column])

    def _filled(self, epoch: int, row: Mapping[str, float]) -> str:
        fields = {"epoch": epoch, **row}
        try:
            return self.path.format(**fields)
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise ValueError(
                f"path {self.path!r} cannot be filled in ({error}); use the fields "
                f"{', '.join(fields)}, and {{{{ for a {{"
            ) from error

    def state(self) -> dict[str, Any]:
        """Return `best`, if there is one."""
        return {} if self.best is None else {"best": self.best}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with the `best` of `state`."""
        if self._monitor is not None:
            self._monitor.best = checks.real_number(state["best"], "best")


class ReduceOnPlateau(Callback):
    """lr ← factor · lr after `patience` epochs in which a column has not improved.

    The factors multiply the schedule's learning rate, from the next epoch to the end of the fit,
    and show in the history's "lr".  A run that resumes continues with them bit for bit.

    Args:
        monitor: the column of the history.
        factor: between 0 and 1.
        patience: the number of epochs without improvement after which the learning rate falls, and
            falls again.
        min_delta, mode: what an improvement is, as in `EarlyStopping`.
        min_lr: the base learning rate times the factors does not fall below this.
        cooldown: this number of epochs after a fall do not count as epochs without improvement.

    Attributes:
        cooling: the following epochs that will not count.

    Raises:
        ValueError, TypeError: an argument is not valid.  At the start of a fit: `monitor` is not a
            column of the fit's history.
    """

    def __init__(
        self,
        monitor: str = "val_cost",
        factor: float = 0.1,
        patience: int = 10,
        *,
        min_delta: float = 0.0,
        mode: str = "auto",
        min_lr: float = 0.0,
        cooldown: int = 0,
    ) -> None:
        self._monitor = Monitor(monitor, mode, min_delta)
        self.factor = checks.positive_number(factor, "factor")
        if factor >= 1:
            raise ValueError(f"factor must be less than 1, got {factor}")
        self.patience = checks.positive_int(patience, "patience")
        self.min_lr = checks.positive_number(min_lr, "min_lr", least=0)
        self.cooldown = checks.positive_int(cooldown, "cooldown", least=0)
        self.cooling = 0

    @property
    def best(self) -> float | None:
        """The column's best value so far; None before the first epoch."""
        return self._monitor.best

    @property
    def waited(self) -> int:
        """The epochs without improvement that count."""
        return self._monitor.waited

    def on_fit_begin(self, trainer: Training) -> None:
        """Forget all epochs, unless a fit resumes after an epoch."""
        check_rate("ReduceOnPlateau", trainer)
        self._monitor.check("ReduceOnPlateau", trainer.history)
        if trainer.history.epochs == 0:
            self._monitor.reset()
            self.cooling = 0

    def on_epoch_end(self, trainer: Training, row: Mapping[str, float]) -> None:
        """Lower the learning rate after `patience` epochs without improvement."""
        monitor = self._monitor
        monitor.update(row[monitor.column])
        if self.cooling:
            self.cooling -= 1
            monitor.waited = 0
        if monitor.waited >= self.patience:
            least = min(self.min_lr / trainer.lr, trainer.lr_factor)
            trainer.lr_factor = max(self.factor * trainer.lr_factor, least)
            monitor.waited, self.cooling = 0, self.cooldown

    def _settings(self) -> dict[str, Any]:
        rule = {name: getattr(self._monitor, name) for name in ("column", "mode", "min_delta")}
        names = "factor", "patience", "min_lr", "cooldown"
        return rule | {name: getattr(self, name) for name in names}

    def state(self) -> dict[str, Any]:
        """Return the settings, `best`, `waited` and `cooling`; the trainer keeps the factor."""
        now = {"best": self.best, "waited": self.waited, "cooling": self.cooling}
        return {"settings": self._settings(), **now}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`; CheckpointError if it is of a callback with other settings."""
        for name, ours in self._settings().items():
            theirs = state["settings"].get(name)
            if theirs != ours:
                raise CheckpointError(
                    "the checkpoint is of a run with another ReduceOnPlateau: "
                    f"{name} {theirs}, here {ours}; pass what that run had, or resume=False"
                )
        best = state["best"]
        self._monitor.best = None if best is None else checks.real_number(best, "best")
        self._monitor.waited = checks.positive_int(state["waited"], "waited", least=0)
        self.cooling = checks.positive_int(state["cooling"], "cooling", least=0)
