"""The figure of a benchmark: bars of time ratios, and a roofline."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

from gpumlp.bench.peers import FLOOR, OURS
from gpumlp.bench.results import TIMED, Result
from gpumlp.plots.figure import GREY, TRAINING, blank_figure, set_axes

# Okabe and Ito's colours after the first, which is ours; colour-blind readers distinguish them
COLOURS = ("#D55E00", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442")
MARKERS, SIGNS = "osD^vPX*", "●■◆▲▼✚✖★"  # one per case: for matplotlib, and for its name


def figure(results: Sequence[Result]) -> Any:
    """Draw the time of each competitor's step over ours, and the speeds under the roofline.

    Raises:
        ValueError: no result has a time.
    """
    timed = [r for r in results if r.status == TIMED]
    if not timed:
        raise ValueError("nothing was timed, so there is nothing to draw")
    cases = list(dict.fromkeys(str(r.case) for r in timed))
    others = dict.fromkeys(r.competitor for r in timed if r.competitor not in (OURS, FLOOR))
    colours = dict(zip(others, cycle(COLOURS), strict=False)) | {OURS: TRAINING, FLOOR: GREY}
    compared = [r for r in timed if r.competitor != OURS]
    drawing = blank_figure(max(3.8, 1.4 + 0.28 * (len(compared) + len(cases))))
    bars, roofline = drawing.subplots(1, 2)
    _draw_bars(bars, compared, cases, colours)
    floors = [r for r in timed if r.competitor == FLOOR]
    points = [r for r in timed if r.competitor != FLOOR]
    _draw_roofline(roofline, points, floors, cases, colours)
    return drawing


def _draw_bars(
    axes: Any, compared: Sequence[Result], cases: list[str], colours: dict[str, str]
) -> None:
    """Draw each competitor's time over ours: longer is slower, and the line at 1 is ours."""
    y, ticks = 0.0, []
    for i, case in enumerate(cases):
        axes.text(
            0.005, y, f"{SIGNS[i % len(SIGNS)]} {case}", fontsize=7, va="center",
            transform=axes.get_yaxis_transform(), bbox={"color": "white", "pad": 0.5},
        )  # fmt: skip
        for r in (r for r in compared if str(r.case) == case):
            y += 1
            ratio = 1 / r.ours_over_this
            axes.barh(y, ratio, color=colours[r.competitor], height=0.75)
            box = {"color": "white", "pad": 0.5, "alpha": 0.8}
            axes.annotate(
                f"{ratio:.2f}", (ratio, y), (3, 0), textcoords="offset points", fontsize=7,
                va="center", bbox=box,
            )  # fmt: skip
            ticks.append((y, r.competitor))
        y += 1.3
    axes.axvline(1, color=TRAINING, linewidth=1.8)
    axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks], fontsize=7)
    axes.set_ylim(y - 0.5, -0.8)
    axes.margins(x=0.12)
    set_axes(axes, "time of a step, relative to gpumlp (line)", "", grid=False)


def _draw_roofline(
    axes: Any, points: Sequence[Result], floors: Sequence[Result], cases: list[str],
    colours: dict[str, str],
) -> None:  # fmt: skip
    """Draw TFLOP/s over FLOPs per byte, under what the machine allows."""
    from matplotlib.ticker import NullFormatter

    for r in points:
        axes.plot(
            intensity(r), r.tflops, linestyle="none", color=colours[r.competitor],
            marker=MARKERS[cases.index(str(r.case)) % len(MARKERS)], label=r.competitor,
        )  # fmt: skip
    if floors:  # the fastest bare products and the fastest copy of all cases, in 10¹² per second
        tflops = max(map(_product_tflops, floors))
        bandwidth = max(r.notes["copy_bytes_per_second"] for r in floors) / 1e12
        knee = tflops / bandwidth
        xs = [knee, *map(intensity, points)]
        grid = [min(xs) / 5, knee, max(xs) * 5]
        limits = [min(tflops, x * bandwidth) for x in grid]
        axes.plot(grid, limits, color=GREY, linewidth=1.2, label="limit by copies and products")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    set_axes(axes, "FLOPs per byte that the step must move", "TFLOP/s")
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    axes.legend(once.values(), once.keys(), frameon=False, fontsize=7)


def intensity(result: Result) -> float:
    """FLOPs of the step's products per byte that the step must move at least once."""
    case = result.case
    return case.flops() / (case.product_bytes() + case.rest_bytes())


def _product_tflops(floor: Result) -> float:
    """10¹² FLOPs per second of the floor's products, without the time of its other bytes."""
    other = floor.case.rest_bytes() / float(floor.notes["copy_bytes_per_second"])
    return floor.case.flops() / (floor.timing.median - other) / 1e12
