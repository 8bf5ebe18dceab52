"""Figures drawn from arrays, with matplotlib."""

from gpumlp.plots.evaluation import confusion_figure, residual_figure
from gpumlp.plots.training import (
    blank_figure,
    history_figure,
    plot_history,
    range_figure,
    write_png,
)

__all__ = [
    "blank_figure", "confusion_figure", "history_figure", "plot_history", "range_figure",
    "residual_figure", "write_png",
]  # fmt: skip
