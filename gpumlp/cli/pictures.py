"""evaluate --plot: the confusion matrix of classes, or values and their residuals, as a PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.data import Dataset
from gpumlp.plots import blank_figure, confusion_figure, residual_figure, write_png
from gpumlp.storage import check_place


def check(path: Path | None) -> None:
    """Raise before the work begins where --plot could not be written; None is no picture."""
    if path is not None:
        if path.suffix.lower() != ".png":
            raise ValueError(f"--plot must end in .png, got {path}")
        check_place(path)
        blank_figure()


class Picture:
    """What is drawn of a model's predictions, gathered part by part.

    Args:
        path: of the file; None for no picture.

    Raises:
        ValueError, OSError, ImportError: it could not be written: told before the work begins.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._title = path, ""
        self._classes: tuple[str, ...] | None = None
        self._target = "target"
        self._y: list[npt.NDArray[Any]] = []
        self._p: list[npt.NDArray[Any]] = []
        check(path)

    def add(self, part: Dataset, p: npt.NDArray[Any]) -> None:
        """Take these examples, too, with what `Preparation.outputs` gave of them."""
        if self._path is not None:
            self._title, self._classes = part.name, part.classes
            self._target = part.target or self._target
            self._y.append(part.y if part.classes else part.y.reshape(len(p), -1))
            self._p.append(p.argmax(axis=1) if part.classes else p)

    def draw(self) -> None:
        """Write the file."""
        if self._path is None:
            return
        y, p = np.concatenate(self._y), np.concatenate(self._p)
        odd = int((~np.isfinite(p)).any(axis=-1).sum())
        if odd:
            raise ValueError(
                f"--plot: {odd} of {len(p)} predictions are not finite and cannot be drawn; leave "
                "it out, or look for values far from those that the model was trained on"
            )
        if self._classes:
            figure = confusion_figure(y, p, self._classes, self._title)
        else:
            figure = residual_figure(y, p, self._target, self._title)
        write_png(figure, self._path)
