"""The course of a training as a picture."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from gpumlp.storage import atomic_write

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
    save_figure(history_figure(history, metric=metric, title=title), path)


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure as a PNG file, whole or not at all."""
    image = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names may be in any script
        figure.savefig(image, format="png", dpi=144)
    atomic_write(path, image.getvalue())


def history_figure(
    history: Mapping[str, Sequence[float]], *, metric: str = "metric", title: str = ""
) -> Any:
    """Cost and metric over the epochs: a matplotlib Figure of two panels.

    Args:
        history: what `Trainer.fit` returned; columns that it lacks are left out.
        metric: the metric's name.
        title: above both panels.

    Raises:
        ImportError: matplotlib is missing.
    """
    figure = blank_figure()
    cost, score = figure.subplots(1, 2)
    _panel(cost, history, "cost", "cost J")
    _panel(score, history, "metric", metric)
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


def blank_figure(height: float = 3.8, width: float = 9.6) -> Any:
    """A figure that needs no display: the one place where matplotlib is imported."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('for plots: pip install "gpumlp[cli]"') from error
    return Figure(figsize=(width, height), layout="constrained")
