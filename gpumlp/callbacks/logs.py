"""The course of a fit as a table in a file, and the learning rate of each step."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import numpy.typing as npt

from gpumlp.storage import atomic_write
from gpumlp.training.callbacks import check_rate
from gpumlp.training.events import Callback

if TYPE_CHECKING:
    from gpumlp.training.events import Training


class CSVLogger(Callback):
    """A CSV file with the history's columns, a line an epoch, on the disk after each.

    A fit replaces the file, and one that resumes writes the epochs that were done again: what a
    killed run left half done, or had written after its checkpoint, is not left behind.

    Args:
        path: the file; its folder must exist.  The first column is "epoch", from 1; numbers have
            all their digits.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file: TextIO | None = None

    def on_fit_begin(self, trainer: Training) -> None:
        """Write the header, and the epochs of a fit that goes on."""
        history = trainer.history
        done = ([i + 1, *history.row(i).values()] for i in range(history.epochs))
        atomic_write(self.path, _lines([["epoch", *history], *done]).encode())
        self._file = self.path.open("a", encoding="utf-8", newline="")

    def on_epoch_end(self, trainer: Training, row: Mapping[str, float]) -> None:
        """Write a line."""
        if self._file is not None:
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
    """The learning rate of each step of a fit, those before a resumed checkpoint included.

    Attributes:
        lr: (steps,) float64.
    """

    def __init__(self) -> None:
        self._lr: list[float] = []
        self._resumed = False

    @property
    def lr(self) -> npt.NDArray[np.float64]:
        """(steps,) float64."""
        return np.array(self._lr, np.float64)

    def on_fit_begin(self, trainer: Training) -> None:
        """Start anew, but where a fit goes on."""
        check_rate("LearningRateLogger", trainer)
        if not self._resumed:
            self._lr = []
        self._resumed = False

    def on_step_end(self, trainer: Training) -> None:
        """Note the step's."""
        self._lr.append(trainer.last_lr)

    def state(self) -> dict[str, Any]:
        """The learning rates so far."""
        return {"lr": self._lr} if self._lr else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on after them."""
        self._lr, self._resumed = list(state["lr"]), True
