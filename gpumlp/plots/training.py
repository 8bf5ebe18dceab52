"""Figures of a training: its history, and a learning-rate range test."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpumlp.io.types import HostVector
from gpumlp.plots.figure import (
    GREY,
    TRAINING,
    VALIDATION,
    blank_figure,
    set_axes,
    set_title,
    write_png,
)

LOG_FROM = 30  # a cost that falls by more than this factor gets a logarithmic axis


def plot_history(
    history: Mapping[str, Sequence[float]],
    path: str | os.PathLike[str],
    *,
    metric: str = "metric",
    title: str = "",
) -> None:
    """Write `history_figure` as a PNG file; an error leaves no partial file."""
    write_png(history_figure(history, metric=metric, title=title), path)


def history_figure(
    history: Mapping[str, Sequence[float]], *, metric: str = "metric", title: str = ""
) -> Any:
    """Draw cost and metric over the epochs, in two panels. Return a matplotlib Figure.

    Args:
        history: what `Trainer.fit` returned. A column that it lacks is not drawn.
        metric: the name of the metric. Where the history has no column of this name, its column
            "metric" is drawn and labelled with the name.
        title: the title above both panels.
    """
    figure = blank_figure()
    cost, score = figure.subplots(1, 2)
    _draw_column(cost, history, "cost", "cost J")
    named = metric in history or f"val_{metric}" in history
    _draw_column(score, history, metric if named else "metric", metric)
    values = [*history.get("cost", ()), *history.get("val_cost", ())]
    if values and min(values) > 0 and max(values) > LOG_FROM * min(values):
        cost.set_yscale("log")
    set_title(figure, title)
    return figure


def _draw_column(axes: Any, history: Mapping[str, Sequence[float]], column: str, name: str) -> None:
    """Draw a column for the training data and for the validation data."""
    from matplotlib.ticker import MaxNLocator

    parts = (("training", column, TRAINING), ("validation", f"val_{column}", VALIDATION))
    for label, key, colour in parts:
        values = history.get(key, ())
        if len(values):
            marker = "o" if len(values) < 3 else None  # a line through one point is invisible
            epochs = range(1, len(values) + 1)
            axes.plot(epochs, values, color=colour, label=label, linewidth=1.8, marker=marker)
    best = getattr(history, "best_epoch", None)
    if best is not None:
        axes.axvline(best + 1, color=GREY, linewidth=1, linestyle=":", label="best epoch")
    set_axes(axes, "epoch", name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.has_data():
        axes.legend(frameon=False)


def range_figure(
    lr: HostVector,
    loss: HostVector,
    smoothed: HostVector,
    suggestion: float | None,
    minimum: float,
) -> Any:
    """Draw the result of a learning-rate range test. Return a matplotlib Figure.

    The axis of the loss ends a little above the plateau, so that a loss that explodes does not
    compress the rest of the curve.

    Args:
        lr: (n,) the learning rates, ascending.
        loss: (n,) the loss of each minibatch.
        smoothed: (n,) the smoothed losses.
        suggestion: the learning rate where `smoothed` falls most steeply, or None.
        minimum: the learning rate where `smoothed` is smallest.
    """
    figure = blank_figure()
    axes = figure.subplots()
    axes.plot(lr, loss, color=TRAINING, alpha=0.3, linewidth=1, label="minibatch")
    axes.plot(lr, smoothed, color=TRAINING, linewidth=1.8, label="smoothed")
    for label, x, colour, style in (
        ("steepest descent", suggestion, VALIDATION, "-"),
        ("least cost", minimum, GREY, ":"),
    ):
        if x is not None:
            y = float(np.interp(np.log(x), np.log(lr), smoothed))
            axes.axvline(x, color=colour, linewidth=1.2, linestyle=style)
            axes.plot([x], [y], "o", color=colour, label=f"{label}: {x:.2g}")
    axes.set_xscale("log")
    least = int(smoothed.argmin())
    low, high = float(smoothed[least]), float(smoothed[: least + 1].max())
    fall = high - low or abs(high) or 1.0
    axes.set_ylim(low - 0.1 * fall, high + 0.35 * fall)
    axes.set_xlim(lr[0], lr[-1])
    set_axes(axes, "learning rate", "cost L of a minibatch")
    axes.legend(frameon=False, loc="lower left")
    return figure
