"""Figures that compare predictions with true values: a confusion matrix, and residuals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.io.types import HostArray
from gpumlp.plots.figure import (
    GREY,
    TRAINING,
    VALIDATION,
    blank_figure,
    fallbacks,
    set_axes,
    set_title,
    warn_missing,
)

COUNTED = 20  # with more classes than this, the cells show no counts
NAMED = 40  # the class names that an axis has space for
NAME_LENGTH = 18  # the characters of a class name that are shown
DENSITY = ("#C6DDED", TRAINING, "#00263D")
POINTS = 4000  # with more points than this, their density is drawn
OUTPUTS = 6  # the outputs of a regression that the figure has space for


def confusion_figure(
    y: HostArray, predicted: HostArray, classes: Sequence[str], title: str = ""
) -> Any:
    """Draw the confusion matrix. Return a matplotlib Figure.

    It has a row for each true class and a column for each predicted class. The shade of a cell is
    its share of the row, so that classes of different sizes can be compared. Where there is no
    space for counts, small shares are drawn darker, so that they can be seen.

    Args:
        y: (m,) the true labels, 0 … n − 1.
        predicted: (m,) the predicted labels.
        classes: the n class names.
        title: the title; the accuracy is added to it.

    Raises:
        ValueError: y or predicted is not as described.
    """
    from matplotlib.colors import PowerNorm

    n, y, predicted = len(classes), np.asarray(y), np.asarray(predicted)
    for named, labels in (("y", y), ("predicted", predicted)):
        whole = labels.dtype.kind in "iu" and labels.shape == (len(y),) != (0,)
        if not whole or labels.min() < 0 or labels.max() >= n:
            raise ValueError(
                f"{named} must be ({len(y)},) labels from 0 to {n - 1}, the positions in classes; "
                f"got {labels.dtype} of shape {labels.shape}"
            )
    counts = np.zeros((n, n), np.int64)
    np.add.at(counts, (y, predicted), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = float(np.clip(2.6 + 0.42 * n, 3.8, 9.6))
    figure = blank_figure(size, size + 1.2)
    axes = figure.subplots()
    gamma = 1 if n <= COUNTED else 0.4
    image = axes.imshow(share, cmap=_shades("white", TRAINING), norm=PowerNorm(gamma, 0, 1))
    if n <= COUNTED:
        for i, j in np.argwhere(counts):
            axes.text(
                j, i, f"{counts[i, j]:,}", ha="center", va="center", fontsize=9 if n <= 10 else 7,
                color="white" if share[i, j] > 0.5 else "black",
            )  # fmt: skip
    _name_classes(axes, classes)
    figure.colorbar(
        image, ax=axes, label="share of the true class", shrink=0.8, aspect=30, pad=0.02,
        format="{x:.0%}",
    )  # fmt: skip
    right = np.trace(counts)
    set_title(figure, f"{title}: {right:,} of {len(y):,} right, accuracy {right / len(y):.4f}")
    return figure


def _name_classes(axes: Any, classes: Sequence[str]) -> None:
    """Write as many class names as there is space for, evenly spaced."""
    every = -(-len(classes) // NAMED)
    places = range(0, len(classes), every)
    names = [" ".join(name.split()) for name in classes[::every]]
    if missing := fallbacks(names)[1]:
        numbers = [str(i) for i in places]
        legend = ", ".join(f"{i} {name}" for i, name in zip(numbers, names, strict=True))
        unclear = [name for name in names if missing.intersection(name)]
        warn_missing(unclear, f"the figure numbers the classes, {legend}")
        names = numbers
    names = [name if len(name) <= NAME_LENGTH else f"{name[:NAME_LENGTH]}…" for name in names]
    rotation = 90 if max(map(len, names)) > 3 and len(classes) > 3 else 0
    size = 9 if len(classes) <= 10 else 7
    axes.set_xticks(places, names, rotation=rotation, fontsize=size, parse_math=False)
    axes.set_yticks(places, names, fontsize=size, parse_math=False)
    axes.set(xlabel="predicted", ylabel="true")


def residual_figure(y: HostArray, p: HostArray, name: str = "target", title: str = "") -> Any:
    """Draw predicted over true values, and residuals y − p. Return a matplotlib Figure.

    Each output has a row of two panels.

    Args:
        y: (m, k) or (m,) the true values. With more than six outputs, the first six are drawn.
        p: of the same shape, the predicted values.
        name: the name of the target.
        title: the title above all panels.

    Raises:
        ValueError: y and p are empty, or of different shapes.
    """
    y, p = (a[:, None] if a.ndim == 1 else a for a in map(np.asarray, (y, p)))
    if y.shape != p.shape or not y.size:
        raise ValueError(f"y has shape {y.shape} and p {p.shape}; pass a prediction for each value")
    k = min(y.shape[1], OUTPUTS)
    figure = blank_figure(3.8 * k)
    for j, (fit, rest) in enumerate(figure.subplots(k, 2, squeeze=False)):
        label = f"{name}[{j}]" if y.shape[1] > 1 else name
        residuals = y[:, j] - p[:, j]
        _scatter(fit, y[:, j], p[:, j])
        ends = [min(y[:, j].min(), p[:, j].min()), max(y[:, j].max(), p[:, j].max())]
        fit.plot(ends, ends, color=VALIDATION, linewidth=1.2, label="predicted = true")
        set_axes(fit, f"true {label}", f"predicted {label}")
        _scatter(rest, p[:, j], residuals)
        rest.axhline(0, color=VALIDATION, linewidth=1.2)
        for q in np.quantile(residuals, [0.05, 0.95]):
            line = rest.axhline(q, color=GREY, linewidth=1, linestyle=":")
        line.set_label("5 % and 95 % of the residuals")
        set_axes(rest, f"predicted {label}", "residual, true − predicted")
        for axes in (fit, rest):
            axes.locator_params(axis="x", nbins=6)  # more numbers of 7 digits would overlap
            axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderpad=0)
    set_title(figure, title)
    return figure


def _scatter(axes: Any, x: HostArray, y: HostArray) -> None:
    """Draw the points, fainter the more there are. Above `POINTS` points draw their density."""
    if len(x) <= POINTS:
        alpha = float(np.clip(30 / np.sqrt(len(x)), 0.25, 0.8))
        axes.scatter(x, y, s=12, color=TRAINING, alpha=alpha, linewidths=0)
    else:
        axes.hexbin(x, y, gridsize=60, mincnt=1, bins="log", linewidths=0, cmap=_shades(*DENSITY))


def _shades(*colours: str) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shades", colours)
