"""Figures from arrays. Each raises ImportError where matplotlib is not installed."""

from gpumlp.plots.evaluation import confusion_figure, residual_figure
from gpumlp.plots.figure import blank_figure, write_png
from gpumlp.plots.search import search_figure
from gpumlp.plots.training import history_figure, plot_history, range_figure, step_figure

__all__ = [
    "blank_figure", "confusion_figure", "history_figure", "plot_history", "range_figure",
    "residual_figure", "search_figure", "step_figure", "write_png",
]  # fmt: skip
