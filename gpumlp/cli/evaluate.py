"""gpumlp evaluate: the cost and the metrics of a model on data, as numbers and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

from gpumlp.cli import options as shared
from gpumlp.cli import output
from gpumlp.cli.models import Model, load_model
from gpumlp.cli.options import option
from gpumlp.cli.predict import check_outputs, prepared_parts
from gpumlp.data import Dataset, Preparation
from gpumlp.io.types import HostArray
from gpumlp.plots import write_png
from gpumlp.plots.evaluation import confusion_figure, residual_figure
from gpumlp.training.metrics import r2_of_sums


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """The options of evaluate."""

    model: Path = shared.model()
    data: list[str] = shared.new_data()
    target: str | None = shared.target()
    drop_missing_target: bool = shared.drop_missing_target()
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
    model was trained on.  An ensemble of train --models is evaluated by the mean of its networks.
    """
    read = {"the data": options.data, "the model": options.model}
    output.check_outputs({f"--plot {options.plot}": options.plot}, read)
    output.check_plot(options.plot)
    net, known = load_model(options.model, options.backend)
    measures, points = Measures(net, known), list[Points]()
    parts = prepared_parts(
        options.data, known, net, target=options.target,
        drop_missing_target=options.drop_missing_target,
    )  # fmt: skip
    for part, x in parts:
        found = measures.add(part, x)
        if options.plot is not None:
            points.append(found)
    if options.plot is not None:
        write_png(figure_of(part, points), options.plot)
    results = measures.results()
    if options.json:
        result = {output.METRIC_KEYS.get(name, name): value for name, value in results.items()}
        about = output.describe(part.name, measures.examples, known, net)
        output.print_json({**about, "result": result})
        return
    target = f"{len(known.classes)} classes" if known.classes else "real target"
    typer.echo(
        f"{part.name}: {measures.examples:,} examples, {len(known.features)} features, "
        f"{known.task}, {target}"
    )
    typer.echo(repr(net))
    unit = "" if known.y_shift is None else " (of the standardised target)"
    shown = {f"cost{unit}": results.pop("cost"), **results}
    width = max(map(len, shown)) + 2
    for name, value in shown.items():
        typer.echo(f"{name:<{width}}{value:.6g}")


Points = tuple[HostArray, HostArray]
"""True and predicted labels (m,), or values (m, k)."""


class Measures:
    """The cost, and the accuracy, or R² and the errors in the target's unit, summed over parts."""

    def __init__(self, net: Model, preparation: Preparation) -> None:
        self._net, self._preparation = net, preparation
        self.examples = 0
        self._cost = self._right = 0.0
        # the mean of y, and sums over the examples, for each output
        self._mean: Any = np.zeros(1)
        self._total = self._residual = self._absolute = self._mean

    def add(self, part: Dataset, x: HostArray) -> Points:
        """Add examples with the inputs x."""
        with np.errstate(over="ignore", invalid="ignore"):
            J, p = self._net.cost_and_prediction(x, self._preparation.targets(part.y))
            p = self._preparation.outputs(p)
        check_outputs(p, self.examples)
        self._cost += len(x) * (J - self._net.penalty())
        if part.classes:
            y, p = part.y, p.argmax(axis=1)
            self._right += float((p == y).sum())
        else:
            y = part.y.reshape(len(x), -1)
            self._add_values(y, p)
        self.examples += len(x)
        return y, p

    def results(self) -> dict[str, float]:
        """The cost J = L + λΩ(θ), and each metric."""
        cost = self._cost / self.examples + self._net.penalty()
        if self._preparation.classes:
            return {"cost": cost, "accuracy": self._right / self.examples}
        return {
            "cost": cost,
            "R²": r2_of_sums(self._residual, self._total),
            "RMSE": float(np.sqrt(self._residual.mean() / self.examples)),
            "MAE": float(self._absolute.mean() / self.examples),
        }

    def _add_values(self, y: HostArray, p: HostArray) -> None:
        """Add the sums of a part to those so far (Chan, Golub and LeVeque, 1983)."""
        m, k = self.examples, len(y)
        mean = y.mean(axis=0)
        gap = mean - self._mean
        self._total = self._total + np.square(y - mean).sum(axis=0) + gap**2 * (m * k / (m + k))
        self._mean = self._mean + gap * (k / (m + k))
        self._residual = self._residual + np.square(y - p).sum(axis=0)
        self._absolute = self._absolute + np.abs(y - p).sum(axis=0)


def figure_of(data: Dataset, points: Sequence[Points]) -> Any:
    """The figure of a model's predictions of data, of which `points` has part by part."""
    y, p = map(np.concatenate, zip(*points, strict=True))
    if data.classes:
        return confusion_figure(y, p, data.classes, data.name)
    return residual_figure(y, p, data.target or "target", data.name)
