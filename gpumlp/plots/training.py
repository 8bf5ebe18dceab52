"""The course of a training, and of a range test, as pictures."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumlp.storage import atomic_write

if TYPE_CHECKING:
    from gpumlp.training.lr_range import LRCurve

TRAINING, VALIDATION = "#0072B2", "#D55E00"  # Okabe and Ito's blue and vermilion: told apart by all
GREY = "#666666"
LOG_FROM = 30  # a cost that falls by more than this factor is drawn on a logarithmic axis


def plot_history(
    history: Mapping[str, Sequence[float]],
    path: str | os.PathLike[str],
    *,
    metric: str = "metric",
    title: str = "",
) -> None:
    """Write `history_figure` as a PNG file, whole or not at all."""
    write_png(history_figure(history, metric=metric, title=title), path)


def history_figure(
    history: Mapping[str, Sequence[float]], *, metric: str = "metric", title: str = ""
) -> Any:
    """Cost and metric over the epochs: a matplotlib Figure of two panels.

    Args:
        history: what `Trainer.fit` returned; columns that it lacks are left out.
        metric: the metric's name; where the history has a column of it, that is drawn.
        title: above both panels.

    Raises:
        ImportError: matplotlib is missing.
    """
    figure = blank_figure()
    cost, score = figure.subplots(1, 2)
    _panel(cost, history, "cost", "cost J")
    named = metric in history or f"val_{metric}" in history
    _panel(score, history, metric if named else "metric", metric)
    values = [*history.get("cost", ()), *history.get("val_cost", ())]
    if values and min(values) > 0 and max(values) > LOG_FROM * min(values):
        cost.set_yscale("log")
    entitle(figure, title)
    return figure


def entitle(figure: Any, title: str) -> None:
    """Put the title at the top left."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, parse_math=False)


def _panel(axes: Any, history: Mapping[str, Sequence[float]], column: str, name: str) -> None:
    """One quantity of the training and the validation data."""
    from matplotlib.ticker import MaxNLocator

    parts = (("training", column, TRAINING), ("validation", f"val_{column}", VALIDATION))
    for label, key, colour in parts:
        values = history.get(key, ())
        if len(values):
            marker = "o" if len(values) < 3 else None  # a line of one point is invisible
            epochs = range(1, len(values) + 1)
            axes.plot(epochs, values, color=colour, label=label, linewidth=1.8, marker=marker)
    best = getattr(history, "best_epoch", None)
    if best is not None:
        axes.axvline(best + 1, color=GREY, linewidth=1, linestyle=":", label="best epoch")
    axes.set_xlabel("epoch")
    axes.set_ylabel(name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.has_data():
        axes.legend(frameon=False)


def range_figure(curve: LRCurve) -> Any:
    """Cost over learning rate, with the suggestion and the minimum: a matplotlib Figure.

    The axis of the cost ends a little above its plateau: what explodes leaves the picture.

    Raises:
        ImportError: matplotlib is missing.
    """
    figure = blank_figure()
    axes = figure.subplots()
    axes.plot(curve.lr, curve.loss, color=TRAINING, alpha=0.3, linewidth=1, label="minibatch")
    axes.plot(curve.lr, curve.smoothed, color=TRAINING, linewidth=1.8, label="smoothed")
    for label, lr, colour, style in (
        ("steepest descent", curve.suggestion, VALIDATION, "-"),
        ("least cost", curve.minimum, GREY, ":"),
    ):
        if lr is not None:
            at = float(np.interp(np.log(lr), np.log(curve.lr), curve.smoothed))
            axes.axvline(lr, color=colour, linewidth=1.2, linestyle=style)
            axes.plot([lr], [at], "o", color=colour, label=f"{label}: {lr:.2g}")
    axes.set_xscale("log")
    least = int(curve.smoothed.argmin())
    low, high = float(curve.smoothed[least]), float(curve.smoothed[: least + 1].max())
    fall = high - low or abs(high) or 1.0
    axes.set_ylim(low - 0.1 * fall, high + 0.35 * fall)
    axes.set_xlim(curve.lr[0], curve.lr[-1])
    axes.set_xlabel("learning rate")
    axes.set_ylabel("cost L of a minibatch")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower left")
    return figure


def write_png(figure: Any, path: str | os.PathLike[str]) -> None:
    """The figure as a PNG file, whole or not at all."""
    image = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names may be in any script
        figure.savefig(image, format="png", dpi=144)
    atomic_write(path, image.getvalue())


def blank_figure(height: float = 3.8, width: float = 9.6) -> Any:
    """A figure that needs no display: the one place where matplotlib is imported."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('for plots: pip install "gpumlp[cli]"') from error
    return Figure(figsize=(width, height), layout="constrained")
