"""The figure of a search: the scores of all candidates, over each option that was tried."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpumlp.io.types import HostArray
from gpumlp.plots.figure import GREY, TRAINING, VALIDATION, blank_figure, set_axes, set_title

COLUMNS, LARGEST = 3, 9  # panels in a row; options that get a panel
FEW = 8  # so many different numbers stand side by side, as texts do; more have an axis
BELOW = 3  # times the distance from the best to the median: lower scores lie below the axis
LOG_FROM = 8  # numbers whose largest is more than this factor of the smallest: a logarithmic one


def search_figure(
    tried: Mapping[str, Sequence[Any]], scores: HostArray, *, metric: str, title: str = ""
) -> Any:
    """Draw the scores over the values of each option. Return a matplotlib Figure.

    A panel has a point for each candidate, with the standard deviation over the folds.  A line
    joins the best candidates of each number, where there are few numbers.  Candidates that are far
    below the others are triangles at the lower end.

    Args:
        tried: for each option, by name, its value in each candidate: numbers or texts.
        scores: (candidates, folds); NaN where there is none.
        metric: the name of the score.
        title: the title above all panels.
    """
    shown = dict(list(tried.items())[:LARGEST])
    columns = 2 if len(shown) == 4 else min(len(shown), COLUMNS) or 1
    rows = math.ceil(len(shown) / columns) or 1
    figure = blank_figure(3.4 * rows, 3.4 * columns if columns > 1 else 5.2)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    whole = np.isfinite(scores).all(axis=1)
    mean, std = np.full(len(scores), np.nan), np.zeros(len(scores))
    mean[whole], std[whole] = scores[whole].mean(axis=1), scores[whole].std(axis=1)
    low = _lower_end(mean[whole], std[whole])
    for j, (axes, (name, values)) in enumerate(zip(panels, shown.items(), strict=False)):
        _draw(axes, values, mean, std, low)
        set_axes(axes, name, "" if j % columns else metric)
    if low is not None:
        top = (mean + std)[whole].max()
        panels[0].set_ylim(low, top + 0.05 * (top - low))
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if handles:
        figure.legend(
            handles.values(), handles, frameon=False, loc="outside lower left", ncols=columns
        )
    set_title(figure, title)
    return figure


def _lower_end(mean: HostArray, std: HostArray) -> float | None:
    """Where the axis of the scores begins; None: below all of them."""
    if len(mean) < 2:
        return None
    best = mean.max()
    low = float(best - BELOW * (best - np.median(mean)) - std[mean.argmax()])
    return low if low > mean.min() else None


def _draw(
    axes: Any, values: Sequence[Any], mean: HostArray, std: HostArray, low: float | None
) -> None:
    """Draw one panel; candidates without a score are left out."""
    x, few = _places(axes, values)
    known = np.flatnonzero(np.isfinite(mean))
    if not len(known):
        return
    top = known[mean[known].argmax()]
    axes.plot(x[top], mean[top], "o", color=VALIDATION, markersize=9, label="best candidate")
    axes.errorbar(
        x[known], mean[known], std[known], fmt="o", color=TRAINING, markersize=4, alpha=0.55,
        elinewidth=0.8, ecolor=GREY, label="candidate, ± standard deviation",
    )  # fmt: skip
    below = known[mean[known] < low] if low is not None else known[:0]
    if len(below):
        end = np.full(len(below), 0.02)
        axes.plot(
            x[below], end, "v", color=GREY, transform=axes.get_xaxis_transform(),
            label="candidate below the axis",
        )  # fmt: skip
    if few and _numbers(values):
        places = np.unique(x[known])
        best = [mean[known][x[known] == place].max() for place in places]
        axes.plot(places, best, color=TRAINING, linewidth=1.5, label="best of each value")


def _numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)


def _places(axes: Any, values: Sequence[Any]) -> tuple[HostArray, bool]:
    """Where the values are on the axis, and whether they stand side by side."""
    numbers = _numbers(values)
    if numbers and len(set(values)) > FEW:
        x = np.array(values, float)
        if x.min() > 0 and x.max() > LOG_FROM * x.min():
            axes.set_xscale("log")
        return x, False
    different = sorted(set(values)) if numbers else list(dict.fromkeys(values))
    names = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in different]
    axes.set_xticks(
        range(len(names)), names, rotation=30 * (sum(map(len, names)) > 24), parse_math=False
    )
    axes.set_xlim(-0.5, len(names) - 0.5)
    return np.array([different.index(value) for value in values], float), True
