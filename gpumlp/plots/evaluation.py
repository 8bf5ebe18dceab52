"""How a model's predictions compare with the truth, as a picture: confusions, residuals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.io.types import HostArray
from gpumlp.plots.training import GREY, TRAINING, VALIDATION, blank_figure, entitle

COUNTED = 20  # classes up to which each field shows its count
NAMED = 40  # class names that an axis has space for
SHORT = 18  # signs of a class's name
DENSITY = ("#C6DDED", TRAINING, "#00263D")
POINTS = 4000  # points up to which each is drawn; above, their density
OUTPUTS = 6  # of a regression; there is no space for more


def confusion_figure(
    y: HostArray, predicted: HostArray, classes: Sequence[str], title: str = ""
) -> Any:
    """The confusion matrix: a row for each true class, a column for each predicted one.

    A field's shade is its share of the row, so that classes of unlike size compare; where there is
    no space for counts, small shares are darkened to be seen.

    Args:
        y: true labels (m,), 0 … n − 1.
        predicted: labels (m,), too.
        classes: the n names.
        title: above it, with the accuracy.

    Raises:
        ImportError: matplotlib is missing.
    """
    from matplotlib.colors import PowerNorm

    n = len(classes)
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
    entitle(figure, f"{title}: {right:,} of {len(y):,} right, accuracy {right / len(y):.4f}")
    return figure


def residual_figure(y: HostArray, p: HostArray, name: str = "target", title: str = "") -> Any:
    """Predicted over true values, and residuals y − p over predicted ones: a row for each output.

    Args:
        y: true values (m, k); of more than six outputs the first six are drawn.
        p: predicted values (m, k).
        name: of the target.
        title: above all panels.

    Raises:
        ImportError: matplotlib is missing.
    """
    k = min(y.shape[1], OUTPUTS)
    figure = blank_figure(3.8 * k)
    for j, (fit, rest) in enumerate(figure.subplots(k, 2, squeeze=False)):
        label = f"{name}[{j}]" if y.shape[1] > 1 else name
        residuals = y[:, j] - p[:, j]
        _scatter(fit, y[:, j], p[:, j])
        ends = [min(y[:, j].min(), p[:, j].min()), max(y[:, j].max(), p[:, j].max())]
        fit.plot(ends, ends, color=VALIDATION, linewidth=1.2, label="predicted = true")
        fit.set_xlabel(f"true {label}", parse_math=False)  # a $ in a name is a $
        fit.set_ylabel(f"predicted {label}", parse_math=False)
        _scatter(rest, p[:, j], residuals)
        rest.axhline(0, color=VALIDATION, linewidth=1.2)
        for q in np.quantile(residuals, [0.05, 0.95]):
            line = rest.axhline(q, color=GREY, linewidth=1, linestyle=":")
        line.set_label("5 % and 95 % of the residuals")
        rest.set_xlabel(f"predicted {label}", parse_math=False)
        rest.set_ylabel("residual, true − predicted")
        for axes in (fit, rest):
            axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderpad=0)
    entitle(figure, title)
    return figure


def _scatter(axes: Any, x: HostArray, y: HostArray) -> None:
    """The points, fainter the more there are; of very many their density."""
    if len(x) <= POINTS:
        faint = float(np.clip(30 / np.sqrt(len(x)), 0.25, 0.8))
        axes.scatter(x, y, s=12, color=TRAINING, alpha=faint, linewidths=0)
    else:
        axes.hexbin(x, y, gridsize=60, mincnt=1, bins="log", linewidths=0, cmap=_shades(*DENSITY))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _shades(*colours: str) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shades", colours)


def _name_classes(axes: Any, classes: Sequence[str]) -> None:
    """As many of the names as there is space for, evenly spread."""
    every = -(-len(classes) // NAMED)
    places = range(0, len(classes), every)
    names = [classes[i] if len(classes[i]) <= SHORT else f"{classes[i][:SHORT]}…" for i in places]
    turned = 90 if max(map(len, names)) > 3 and len(classes) > 3 else 0
    size = 9 if len(classes) <= 10 else 7
    axes.set_xticks(places, names, rotation=turned, fontsize=size, parse_math=False)
    axes.set_yticks(places, names, fontsize=size, parse_math=False)
    axes.set(xlabel="predicted", ylabel="true")
