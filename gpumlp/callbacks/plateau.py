"""The learning rate lowered where a column of the history no longer improves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gpumlp import checks
from gpumlp.errors import CheckpointError
from gpumlp.training.callbacks import check_rate
from gpumlp.training.events import Callback
from gpumlp.training.monitor import Monitor

if TYPE_CHECKING:
    from gpumlp.training.events import Training


class ReduceOnPlateau(Callback):
    """lr ← factor · lr after `patience` epochs in which a column has not improved.

    The factors multiply what the schedule gives, from the next epoch to the end of the fit, and
    show in the history's "lr".  A run that resumes goes on with them bit for bit.

    Args:
        monitor: the column of the history.
        factor: between 0 and 1.
        patience: the number of epochs without improvement after which the learning rate falls, and
            falls again.
        min_delta: a change must be larger than this to count as one.
        min_lr: the base learning rate times the factors does not fall below it.
        cooldown: epochs after a fall that do not count as without improvement.
        mode: "min" where the column is to fall, "max" where it is to rise; "auto": costs fall,
            metrics rise.

    Attributes:
        best: the column's best value so far, None before the first epoch.
        waited: epochs without improvement that count.
        cooling: epochs that will not count.

    Raises:
        ValueError, TypeError: an argument is not as said; at the start of a fit, `monitor` is no
            column of its history.
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
        self._start()

    def _start(self) -> None:
        self.best: float | None = None
        self.waited = self.cooling = 0

    def on_fit_begin(self, trainer: Training) -> None:
        """Start anew, but where a fit goes on that has done epochs."""
        check_rate("ReduceOnPlateau", trainer)
        self._monitor.check("ReduceOnPlateau", trainer.history)
        if trainer.history.epochs == 0:
            self._start()

    def on_epoch_end(self, trainer: Training, row: Mapping[str, float]) -> None:
        """Lower the learning rate where patience is at its end."""
        value = row[self._monitor.column]
        if self._monitor.improves(value, self.best):
            self.best, self.waited = value, 0
        elif not self.cooling:
            self.waited += 1
        self.cooling = max(self.cooling - 1, 0)
        if self.waited >= self.patience:
            least = min(self.min_lr / trainer.lr, trainer.lr_factor)
            trainer.lr_factor = max(self.factor * trainer.lr_factor, least)
            self.waited, self.cooling = 0, self.cooldown

    def _settings(self) -> dict[str, Any]:
        rule = {"factor": self.factor, "patience": self.patience, "min_lr": self.min_lr}
        return {**vars(self._monitor), **rule, "cooldown": self.cooldown}

    def state(self) -> dict[str, Any]:
        """`best`, `waited`, `cooling`, and the settings; the factor is the trainer's."""
        now = {"best": self.best, "waited": self.waited, "cooling": self.cooling}
        return {"settings": self._settings(), **now}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there.

        Raises:
            CheckpointError: it was another rule's.
        """
        ours, theirs = self._settings(), state["settings"]
        for name, value in ours.items():
            if theirs.get(name) != value:
                raise CheckpointError(
                    f"the checkpoint is of a run with another ReduceOnPlateau: {name} "
                    f"{theirs.get(name)}, here {value}; pass what that run had, or resume=False"
                )
        self.best, self.waited, self.cooling = state["best"], state["waited"], state["cooling"]
