"""The network saved as the fit goes on: the best, or every few epochs."""

from __future__ import annotations

import os
import string
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumlp import checks, storage
from gpumlp.training.events import Callback
from gpumlp.training.monitor import Monitor

if TYPE_CHECKING:
    from gpumlp.training.events import Training


class ModelCheckpoint(Callback):
    """The network as a model file after an epoch, whole or not at all, for `MLP.load`.

    With `monitor`, after the epochs that are better than all before; so a path without fields holds
    the best network.  To resume a training, use ``fit(checkpoint=…)`` instead.

    Args:
        path: the file; its folder must exist.  ``{epoch}``, from 1, and the history's columns are
            filled in, as in "epoch-{epoch:03d}-{val_cost:.4f}.safetensors".
        monitor: a column of the history; None: every `every` epochs, whatever their numbers.
        every: look at each so many epochs alone.
        min_delta: a change of the column must be larger than this to count as one.
        mode: "min" where the column is to fall, "max" where it is to rise; "auto": costs fall,
            metrics rise.
        extra: what `MLP.save` keeps with the network, a mapping that JSON can hold.

    Attributes:
        best: the column's value in the last file; None without `monitor`, and before the first.
        saved: the path of the last file of this process, or None.

    Raises:
        ValueError, TypeError: an argument is not as said; at the start of a fit, `monitor` or a
            field of `path` is no column of its history.
        FileNotFoundError: at the start of a fit, the folder does not exist.
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
        self.best: float | None = None
        self.saved: str | None = None

    def on_fit_begin(self, trainer: Training) -> None:
        """Check monitor and path; start anew, but where a fit goes on that has done epochs."""
        if self._monitor is not None:
            self._monitor.check("ModelCheckpoint", trainer.history)
        _check_fields(self.path, ["epoch", *trainer.history])
        storage.check_writable(self._filled(1, dict.fromkeys(trainer.history, 0.0)))
        if trainer.history.epochs == 0:
            self.best = None

    def on_epoch_end(self, trainer: Training, row: Mapping[str, float]) -> None:
        """Save the network where it is its turn, and θ is finite: a fit raises where it is not."""
        epoch, value = trainer.history.epochs, None
        if epoch % self.every:
            return
        if self._monitor is not None:
            value = row[self._monitor.column]
            if not self._monitor.improves(value, self.best):
                return
        if all(np.isfinite(tensor).all() for tensor in trainer.net.tensors().values()):
            path = self._filled(epoch, row)
            trainer.net.save(path, self.extra)
            self.best, self.saved = value, path

    def _filled(self, epoch: int, row: Mapping[str, float]) -> str:
        try:
            return self.path.format(**{**row, "epoch": epoch})
        except (ValueError, IndexError, KeyError, AttributeError) as error:
            raise ValueError(f"path {self.path!r} cannot be filled in: {error}") from error

    def state(self) -> dict[str, Any]:
        """`best`, where there is one."""
        return {} if self.best is None else {"best": self.best}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.best = state["best"]


def _check_fields(path: str, known: Iterable[str]) -> None:
    """Raise unless the path's fields are known."""
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(path) if name is not None}
    except ValueError as error:
        raise ValueError(f"path {path!r} cannot be read: {error}; write {{{{ for a {{") from error
    for name in sorted(fields - set(known)):
        raise ValueError(f"path has the field {name!r}; it can have: {', '.join(known)}")
