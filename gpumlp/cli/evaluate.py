"""gpumlp evaluate: the cost and the metrics of a model on data, as numbers and as a figure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import typer

from gpumlp import data as datasets
from gpumlp.cli import models, output
from gpumlp.cli import options as shared
from gpumlp.cli.measures import Measures
from gpumlp.cli.options import option
from gpumlp.cli.run_folder import METRIC_KEYS
from gpumlp.data import Dataset
from gpumlp.io.types import HostArray
from gpumlp.plots import write_png
from gpumlp.plots.evaluation import confusion_figure, residual_figure


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """The options of evaluate."""

    model: Path = shared.model()
    data: str = shared.new_data()
    target: str | None = shared.target()
    plot: Path | None = option(
        None, "FILE",
        "Draw a .png file: the confusion matrix for classes, or the predictions and residuals for "
        "numbers.",
    )  # fmt: skip
    backend: str = shared.backend()
    json: bool = shared.json()


def evaluate(options: EvaluateOptions) -> None:
    """Compute a model's cost and metrics on data.

    The metrics are in the unit of the target.  All rows of the data count, also those that the
    model was trained on.
    """
    picture = Picture(options.plot)
    net, preparation = models.load(options.model, options.backend)
    measures, unseen = Measures(net, preparation), models.UnseenValues(preparation)
    for part in datasets.pieces(options.data, preparation, options.target):
        unseen.add(part)
        picture.add(part, measures.add(part))
    unseen.print()
    picture.draw()
    cost, metrics = measures.cost(), measures.metrics()
    if options.json:
        result = {METRIC_KEYS.get(name, name): value for name, value in metrics.items()}
        about = output.describe(measures.name, measures.examples, preparation, net)
        output.print_json({**about, "result": {"cost": cost, **result}})
        return
    typer.echo(repr(measures))
    typer.echo(repr(net))
    unit = "" if preparation.y_shift is None else " (of the standardised target)"
    shown = {f"cost{unit}": cost, **metrics}
    width = max(map(len, shown)) + 2
    for name, value in shown.items():
        typer.echo(f"{name:<{width}}{value:.6g}")


class Picture:
    """A figure of a model's predictions, which are added part by part.

    Args:
        path: the .png file; None for no figure.

    Raises:
        ValueError, OSError, ImportError: the file could not be written. This is checked before any
            prediction is computed.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._title = path, ""
        self._classes: tuple[str, ...] | None = None
        self._target = "target"
        self._y: list[HostArray] = []
        self._p: list[HostArray] = []
        output.check_plot(path)

    def add(self, part: Dataset, p: HostArray) -> None:
        """Add examples and their predictions, as `Preparation.outputs` returns them."""
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
        count = int((~np.isfinite(p)).any(axis=-1).sum())
        if count:
            raise ValueError(
                f"--plot: {count} of {len(p)} predictions are not finite and cannot be drawn; "
                "leave out --plot, or look for inputs far from those of the training data"
            )
        if self._classes:
            figure = confusion_figure(y, p, self._classes, self._title)
        else:
            figure = residual_figure(y, p, self._target, self._title)
        write_png(figure, self._path)
