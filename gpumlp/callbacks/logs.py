"""Callbacks that log numbers: the history as a CSV file, and the learning rate of each step."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.io.types import HostVector
from gpumlp.storage import atomic_write
from gpumlp.training.callbacks import check_rate
from gpumlp.training.events import Callback, Training


class CSVLogger(Callback):
    """Write the history as a CSV file; each epoch's line is on disk when the epoch ends.

    The file is replaced when a fit starts.  A fit that resumes writes the epochs of its checkpoint
    again, so no line remains that a killed run left half written or wrote after its checkpoint.

    Args:
        path: the file; its folder must exist.  The first column is "epoch", from 1.  Numbers have
            all their digits.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file: Any = None

    def on_fit_begin(self, trainer: Training) -> None:
        """Write the header, and the epochs of a resumed fit."""
        history = trainer.history
        done = ([i + 1, *history.row(i).values()] for i in range(history.epochs))
        atomic_write(self.path, _lines([["epoch", *history], *done]).encode())
        self._file = self.path.open("a", encoding="utf-8", newline="")

    def on_epoch_end(self, trainer: Training, row: Mapping[str, float]) -> None:
        """Write the epoch's line."""
        self._file.write(_lines([[trainer.history.epochs, *row.values()]]))
        self._file.flush()

    def on_fit_end(self, trainer: Training) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _lines(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


class LearningRateLogger(Callback):
    """Keep the learning rate of each step of a fit, also of the steps before a checkpoint."""

    def __init__(self) -> None:
        self._lr: list[float] = []
        self._resumed = False

    @property
    def lr(self) -> HostVector:
        """The learning rates, (steps,) float64."""
        return np.array(self._lr, np.float64)

    def on_fit_begin(self, trainer: Training) -> None:
        """Start with an empty list, unless a fit resumes."""
        check_rate("LearningRateLogger", trainer)
        if not self._resumed:
            self._lr = []
        self._resumed = False

    def on_step_end(self, trainer: Training) -> None:
        """Append the step's learning rate."""
        self._lr.append(trainer.last_lr)

    def state(self) -> dict[str, Any]:
        """Return the learning rates so far."""
        return {"lr": self._lr} if self._lr else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue after the learning rates of `state`."""
        self._lr, self._resumed = list(state["lr"]), True
