"""What a benchmark found as a picture: bars of ratios, and a roofline."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

from gpumlp.bench.peers import FLOOR, OURS
from gpumlp.bench.results import TIMED, Result
from gpumlp.plots.training import GREY, TRAINING, blank_figure
from gpumlp.storage import atomic_write

# Okabe and Ito's, after the blue that is ours: told apart by all
COLOURS = ("#D55E00", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442")
MARKERS, SIGNS = "osD^vPX*", "●■◆▲▼✚✖★"  # a case's, for matplotlib and for readers


def plot(results: Sequence[Result], path: str | os.PathLike[str]) -> None:
    """Write `figure` as a PNG file, whole or not at all."""
    image = io.BytesIO()
    figure(results).savefig(image, format="png", dpi=144)
    atomic_write(path, image.getvalue())


def figure(results: Sequence[Result]) -> Any:
    """Two panels: each competitor's time over ours, and their speed under the roofline.

    Raises:
        ValueError: nothing was timed.
        ImportError: matplotlib is missing.
    """
    timed = [r for r in results if r.status == TIMED]
    if not timed:
        raise ValueError("nothing was timed, so there is nothing to draw")
    cases = list(dict.fromkeys(str(r.case) for r in timed))
    bars = sum(r.competitor != OURS for r in timed)
    drawn = blank_figure(height=max(3.8, 1.4 + 0.28 * (bars + len(cases))))
    names = [n for n in dict.fromkeys(r.competitor for r in timed) if n != OURS]
    colours = {OURS: TRAINING, FLOOR: GREY}
    others = [name for name in names if name != FLOOR]
    colours |= {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(others)}
    ratios, roof = drawn.subplots(1, 2)
    _bars(ratios, timed, cases, colours)
    _roofline(roof, timed, cases, colours)
    return drawn


def _bars(axes: Any, timed: Sequence[Result], cases: list[str], colours: dict[str, str]) -> None:
    """Each competitor's time over ours: longer is slower, 1 is ours."""
    y, ticks = 0.0, []
    for case in cases:
        sign = SIGNS[cases.index(case) % len(SIGNS)]
        axes.text(
            0.005, y, f"{sign} {case}", fontsize=7, va="center",
            transform=axes.get_yaxis_transform(), bbox={"color": "white", "pad": 0.5},
        )  # fmt: skip
        for result in (r for r in timed if str(r.case) == case and r.competitor != OURS):
            y += 1
            ratio = 1 / result.ours_over_this
            axes.barh(y, ratio, color=colours[result.competitor], height=0.75)
            box = {"color": "white", "pad": 0.5, "alpha": 0.8}
            axes.annotate(
                f"{ratio:.2f}", (ratio, y), (3, 0), textcoords="offset points", fontsize=7,
                va="center", bbox=box,
            )  # fmt: skip
            ticks.append((y, result.competitor))
        y += 1.3
    axes.axvline(1, color=TRAINING, linewidth=1.8)
    axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks], fontsize=7)
    axes.set_ylim(y - 0.5, -0.8)
    axes.margins(x=0.12)
    axes.set_xlabel("time of a step over gpumlp's (line)")
    axes.spines[["top", "right"]].set_visible(False)


def _roofline(
    axes: Any, timed: Sequence[Result], cases: list[str], colours: dict[str, str]
) -> None:
    """TFLOP/s over FLOPs a byte, below what a copy's bandwidth and the best bare products allow."""
    for result in timed:
        if result.competitor == FLOOR:
            continue  # it is the roof
        marker = MARKERS[cases.index(str(result.case)) % len(MARKERS)]
        axes.plot(
            intensity(result), result.tflops, linestyle="none", marker=marker,
            color=colours[result.competitor], label=result.competitor,
        )  # fmt: skip
    from matplotlib.ticker import NullFormatter

    xs = sorted(intensity(r) for r in timed)
    floors = [r for r in timed if r.competitor == FLOOR]
    if floors:
        bandwidth = max(r.notes["copy_bytes_per_second"] for r in floors)
        peak = max(product_tflops(r) for r in floors)
        knee = peak * 1e12 / bandwidth
        grid = [min(xs[0], knee) / 5, knee, max(xs[-1], knee) * 5]
        roof = [min(peak, x * bandwidth / 1e12) for x in grid]
        axes.plot(grid, roof, color=GREY, linewidth=1.2, label="a copy's speed; bare products")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("FLOPs a byte that the step must move")
    axes.set_ylabel("TFLOP/s")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    axes.legend(once.values(), once.keys(), frameon=False, fontsize=7)


def intensity(result: Result) -> float:
    """FLOPs a byte: of the products, over all that a step must move at least once."""
    case = result.case
    return case.flops() / (case.product_bytes() + case.rest_bytes())


def product_tflops(floor: Result) -> float:
    """10¹² FLOPs a second of the floor's products, without its other bytes."""
    other = floor.case.rest_bytes() / float(floor.notes["copy_bytes_per_second"])
    return floor.case.flops() / (floor.timing.median - other) / 1e12
