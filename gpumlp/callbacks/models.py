"""Save the network during a fit: the best one, or one every few epochs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpumlp import checks, storage
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
        min_delta: a change of the column must be larger than this to be an improvement.
        mode: "min" where smaller is better, "max" where larger is better; "auto" is "min" for costs
            and "max" for metrics.
        extra: what `MLP.save` stores with the network, a mapping that JSON can hold.

    Attributes:
        best: the column's value in the last file; None without `monitor`, and before the first.
        saved: the path of the last file that this process wrote, or None.

    Raises:
        ValueError, TypeError: an argument is not valid.  At the start of a fit: `monitor` or a
            field of `path` is not a column of the fit's history.
        FileNotFoundError: at the start of a fit: the folder does not exist.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str | None = None,
        *,
        every: int = 1,
        min_delta: float = 0.0,
        mode: str = "auto",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self._monitor = None if monitor is None else Monitor(monitor, mode, min_delta)
        self.every = checks.positive_int(every, "every")
        self.extra = extra
        self.saved: str | None = None

    @property
    def best(self) -> float | None:
        """The column's value in the last file, or None."""
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
            self._monitor.best = state["best"]
