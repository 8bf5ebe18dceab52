"""Figure of a step: its operations on streams, and its buffers in the arena."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpumlp.plots.figure import GREY, TRAINING, VALIDATION, blank_figure, set_axes, set_title

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
