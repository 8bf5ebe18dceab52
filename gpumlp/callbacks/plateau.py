"""Lower the learning rate when a column of the history stops improving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpumlp import checks
from gpumlp.errors import CheckpointError
from gpumlp.training.callbacks import check_rate
from gpumlp.training.events import Callback, Training
from gpumlp.training.monitor import Monitor


class ReduceOnPlateau(Callback):
    """lr ← factor · lr after `patience` epochs in which a column has not improved.

    The factors multiply the schedule's learning rate, from the next epoch to the end of the fit,
    and show in the history's "lr".  A run that resumes continues with them bit for bit.

    Args:
        monitor: the column of the history.
        factor: between 0 and 1.
        patience: the number of epochs without improvement after which the learning rate falls, and
            falls again.
        min_delta: a change must be larger than this to be an improvement.
        min_lr: the base learning rate times the factors does not fall below this.
        cooldown: this number of epochs after a fall do not count as epochs without improvement.
        mode: "min" where smaller is better, "max" where larger is better; "auto" is "min" for costs
            and "max" for metrics.

    Attributes:
        best: the column's best value so far; None before the first epoch.
        waited: the epochs without improvement that count.
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
        min_lr: float = 0.0,
        cooldown: int = 0,
        mode: str = "auto",
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
        monitor = self._monitor
        return {
            "column": monitor.column, "mode": monitor.mode, "min_delta": monitor.min_delta,
            "factor": self.factor, "patience": self.patience, "min_lr": self.min_lr,
            "cooldown": self.cooldown,
        }  # fmt: skip

    def state(self) -> dict[str, Any]:
        """Return the settings, `best`, `waited` and `cooling`; the trainer keeps the factor."""
        now = {"best": self.best, "waited": self.waited, "cooling": self.cooling}
        return {"settings": self._settings(), **now}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`.

        Raises:
            CheckpointError: the state is of a callback with other settings.
        """
        ours, theirs = self._settings(), state["settings"]
        for name, value in ours.items():
            if theirs.get(name) != value:
                raise CheckpointError(
                    f"the checkpoint is of a run with another ReduceOnPlateau: {name} "
                    f"{theirs.get(name)}, here {value}; pass what that run had, or resume=False"
                )
        self._monitor.best, self._monitor.waited = state["best"], state["waited"]
        self.cooling = state["cooling"]
