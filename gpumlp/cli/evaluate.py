"""gpumlp evaluate: the cost and the metrics of a model on data, as numbers and as a figure."""

from __future__ import annotations

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
    picture = Picture(options.plot)
    net, known = load_model(options.model, options.backend)
    measures = Measures(net, known)
    parts = prepared_parts(
        options.data, known, net, target=options.target,
        drop_missing_target=options.drop_missing_target,
    )  # fmt: skip
    for part, x in parts:
        picture.add(part, measures.add(part, x))
    picture.draw()
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


class Measures:
    """The cost, and the accuracy, or R² and the errors in the target's unit, summed over parts."""

    def __init__(self, net: Model, preparation: Preparation) -> None:
        self._net, self._preparation = net, preparation
        self.examples = 0
        self._cost = self._right = 0.0
        # the mean of y, and sums over the examples, for each output
        self._mean: Any = np.zeros(1)
        self._total = self._residual = self._absolute = self._mean

    def add(self, part: Dataset, x: HostArray) -> HostArray:
        """Add examples with the inputs x.  Returns predictions, as `Preparation.outputs` does."""
        with np.errstate(over="ignore", invalid="ignore"):
            J, p = self._net.cost_and_prediction(x, self._preparation.targets(part.y))
            p = self._preparation.outputs(p)
        check_outputs(p, self.examples)
        self._cost += len(x) * (J - self._net.penalty())
        if part.classes:
            self._right += float((p.argmax(axis=1) == part.y).sum())
        else:
            self._add_values(part.y.reshape(len(x), -1), p)
        self.examples += len(x)
        return p

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


class Picture:
    """A figure of a model's predictions, which are added part by part; none if `path` is None."""

    def __init__(self, path: Path | None) -> None:
        output.check_plot(path)
        self._path = path
        self._parts: list[tuple[HostArray, HostArray]] = []

    def add(self, part: Dataset, p: HostArray) -> None:
        """Add examples and their predictions, as `Preparation.outputs` returns them."""
        if self._path is not None:
            self._last = part
            y = part.y if part.classes else part.y.reshape(len(p), -1)
            self._parts.append((y, p.argmax(axis=1) if part.classes else p))

    def draw(self) -> None:
        """Write the file."""
        if self._path is None:
            return
        y, p = map(np.concatenate, zip(*self._parts, strict=True))
        last = self._last
        if last.classes:
            figure = confusion_figure(y, p, last.classes, last.name)
        else:
            figure = residual_figure(y, p, last.target or "target", last.name)
        write_png(figure, self._path)
