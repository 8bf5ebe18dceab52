"""Figures of a training: its history, a learning-rate range test, and a step."""

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

Columns = Mapping[str, Sequence[float]]
COSTS = ("cost", "val_cost")
LOG_FROM = 30  # a cost that falls by more than this factor gets a logarithmic axis


def plot_history(
    history: Columns | Sequence[Columns],
    path: str | os.PathLike[str],
    *,
    metric: str = "metric",
    title: str = "",
) -> None:
    """Write `history_figure` as a PNG file; an error leaves no partial file."""
    write_png(history_figure(history, metric=metric, title=title), path)


def history_figure(
    history: Columns | Sequence[Columns], *, metric: str = "metric", title: str = ""
) -> Any:
    """Draw cost and metric over the epochs, in two panels. Return a matplotlib Figure.

    Args:
        history: what `Trainer.fit` returned. A column that it lacks is not drawn. Of an ensemble
            each member has a thin line, and their mean a thick one, up to the first member's end.
        metric: the name of the metric. Where the history has no column of this name, its column
            "metric" is drawn and labelled with the name.
        title: the title above both panels.
    """
    figure = blank_figure()
    cost, score = figure.subplots(1, 2)
    each = [history] if isinstance(history, Mapping) else list(history)
    _draw_column(cost, each, "cost", "cost J")
    named = any(metric in one or f"val_{metric}" in one for one in each)
    _draw_column(score, each, metric if named else "metric", metric)
    values = [value for one in each for name in COSTS for value in one.get(name, ())]
    if values and min(values) > 0 and max(values) > LOG_FROM * min(values):
        cost.set_yscale("log")
    set_title(figure, title)
    return figure


def _draw_column(axes: Any, each: Sequence[Columns], column: str, name: str) -> None:
    """Draw a column of one or several histories, for the training and for the validation data."""
    from matplotlib.ticker import MaxNLocator

    parts = (("training", column, TRAINING), ("validation", f"val_{column}", VALIDATION))
    for label, key, colour in parts:
        lines = [list(one[key]) for one in each if len(one.get(key, ()))]
        if len(each) > 1:
            for line in lines:
                _draw_line(axes, line, color=colour, linewidth=0.8, alpha=0.35)
            complete = min(map(len, lines), default=0)
            lines = [np.mean([line[:complete] for line in lines], axis=0)] if lines else []
            label = f"{label}, mean of {len(each)}"
        for line in lines:
            _draw_line(axes, line, color=colour, label=label, linewidth=1.8)
    _draw_best(axes, each, f"val_{column}")
    set_axes(axes, "epoch", name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.has_data():
        axes.legend(frameon=False)


def _draw_line(axes: Any, values: Sequence[float], **style: Any) -> None:
    marker = "o" if len(values) < 3 else None  # a line through one point is invisible
    axes.plot(range(1, len(values) + 1), values, marker=marker, **style)


def _draw_best(axes: Any, each: Sequence[Columns], key: str) -> None:
    """Mark the best epoch: of one history by a line, of several by a point on each one's line."""
    epochs = [(one, getattr(one, "best_epoch", None)) for one in each]
    best = [(one, epoch) for one, epoch in epochs if epoch is not None]
    if len(each) == 1:
        for _, epoch in best:
            axes.axvline(epoch + 1, color=GREY, linewidth=1, linestyle=":", label="best epoch")
        return
    points = [(epoch + 1, one[key][epoch]) for one, epoch in best if key in one]
    if points:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, "o", color=GREY, markersize=3.5, label="best epochs")


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


FORWARD, REST = "#009E73", "#E69F00"  # Okabe and Ito's green and orange
COLOURS = {
    "affine_activation": FORWARD, "output_gradient": VALIDATION, "hidden_gradient": VALIDATION,
    "weight_gradient": TRAINING, "weight_update": TRAINING, "update": REST,
}  # fmt: skip
LABELS = {FORWARD: "forward", VALIDATION: "gz", TRAINING: "∇W", REST: "update", GREY: "other"}


def step_figure(explanation: Mapping[str, Any], title: str = "") -> Any:
    """Draw a timeline of streams and the memory of the arena. Return a matplotlib Figure.

    Args:
        explanation: what `Explanation.to_dict` of a step returns. Without a device, each operation
            takes one unit of time.
        title: the title above both panels.
    """
    operations, timed = explanation["operations"], explanation["device"] is not None
    figure = blank_figure(height=6.4)
    streams, memory = figure.subplots(2, 1)
    spans = [
        (1e6 * op["begin"], 1e6 * op["seconds"]) if timed else (float(i), 1.0)
        for i, op in enumerate(operations)
    ]
    drawn: dict[str, Any] = {}
    for op, span in zip(operations, spans, strict=True):
        colour = COLOURS.get(op["operation"], GREY)
        bars = streams.broken_barh(
            [span], (op["stream"] - 0.4, 0.8), facecolor=colour, edgecolor="white", linewidth=0.5
        )
        drawn.setdefault(colour, bars)
    number = max(op["stream"] for op in operations)
    streams.set_yticks(range(number + 1), [f"stream {i}" for i in range(number + 1)])
    streams.set_ylim(number + 0.6, -0.6)
    handles = [drawn[colour] for colour in LABELS if colour in drawn]
    streams.legend(
        handles, [LABELS[colour] for colour in LABELS if colour in drawn], frameon=False,
        ncols=len(handles), loc="lower left", bbox_to_anchor=(0, 1),
    )  # fmt: skip
    where = f"µs, at least, on {explanation['device']}" if timed else "operation"
    set_axes(streams, where, "", grid=False)
    most = max((b["bytes"] for b in explanation["buffers"]), default=1)
    for b in explanation["buffers"]:
        first, width = b["first"], max(b["last"], 0) - b["first"] + 1
        memory.broken_barh(
            [(first, width)], (b["place"] / 1e6, b["bytes"] / 1e6), facecolor=TRAINING, alpha=0.35,
            edgecolor=TRAINING, linewidth=0.6,
        )  # fmt: skip
        if b["bytes"] > most / 12:
            middle = first + width / 2, (b["place"] + b["bytes"] / 2) / 1e6
            memory.text(*middle, b["name"], ha="center", va="center", fontsize=8)
    memory.set_xlim(-1, len(operations))
    memory.set_ylim(0, max(explanation["arena"] / 1e6, 1e-6))
    set_axes(memory, "operation", "place in the arena, MB", grid=False)
    set_title(figure, title)
    return figure
