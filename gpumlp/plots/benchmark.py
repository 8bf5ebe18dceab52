"""The figure of a benchmark: bars of time ratios, and a roofline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpumlp.plots.figure import GREY, TRAINING, blank_figure, set_axes

# Okabe and Ito's colours after the first, which is ours; colour-blind readers distinguish them
COLOURS = ("#D55E00", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442")
MARKERS, SIGNS = "osD^vPX*", "●■◆▲▼✚✖★"  # one per case: for matplotlib, and for its name


@dataclass(frozen=True)
class Measurement:
    """The training step of one competitor on one case.

    Attributes:
        case: the name of the case.
        competitor: the name of the competitor.
        ratio: the time of its step over the time of our step.
        intensity: the FLOPs of the step per byte that it must move.
        tflops: the speed of the step, in 10¹² FLOPs per second.
    """

    case: str
    competitor: str
    ratio: float
    intensity: float
    tflops: float


def benchmark_figure(
    measurements: Sequence[Measurement], ours: str, floor: str, roof: tuple[float, float] | None
) -> Any:
    """Draw each competitor's time over ours, and the roofline. Return a matplotlib Figure.

    Args:
        measurements: at least one.
        ours: the competitor that the others are compared with.
        floor: the competitor that stands for the lower bound of the time; it has a bar, no point.
        roof: the limits of the machine in 10¹² FLOPs and in 10¹² bytes per second, or None.

    Raises:
        ImportError: matplotlib is not installed.
    """
    cases = list(dict.fromkeys(m.case for m in measurements))
    others = list(dict.fromkeys(m.competitor for m in measurements))
    others = [name for name in others if name not in (ours, floor)]
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(others)}
    colours |= {ours: TRAINING, floor: GREY}
    compared = [m for m in measurements if m.competitor != ours]
    height = max(3.8, 1.4 + 0.28 * (len(compared) + len(cases)))
    figure = blank_figure(height)
    bars, points = figure.subplots(1, 2)
    _draw_bars(bars, compared, cases, colours)
    _draw_roofline(points, [m for m in measurements if m.competitor != floor], cases, colours, roof)
    return figure


def _draw_bars(
    axes: Any, compared: Sequence[Measurement], cases: list[str], colours: dict[str, str]
) -> None:
    """Draw each competitor's time over ours: longer is slower, and the line at 1 is ours."""
    y, ticks = 0.0, []
    for i, case in enumerate(cases):
        axes.text(
            0.005, y, f"{SIGNS[i % len(SIGNS)]} {case}", fontsize=7, va="center",
            transform=axes.get_yaxis_transform(), bbox={"color": "white", "pad": 0.5},
        )  # fmt: skip
        for m in (m for m in compared if m.case == case):
            y += 1
            axes.barh(y, m.ratio, color=colours[m.competitor], height=0.75)
            box = {"color": "white", "pad": 0.5, "alpha": 0.8}
            axes.annotate(
                f"{m.ratio:.2f}", (m.ratio, y), (3, 0), textcoords="offset points", fontsize=7,
                va="center", bbox=box,
            )  # fmt: skip
            ticks.append((y, m.competitor))
        y += 1.3
    axes.axvline(1, color=TRAINING, linewidth=1.8)
    axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks], fontsize=7)
    axes.set_ylim(y - 0.5, -0.8)
    axes.margins(x=0.12)
    set_axes(axes, "time of a step, relative to gpumlp (line)", "", grid=False)


def _draw_roofline(
    axes: Any, points: Sequence[Measurement], cases: list[str], colours: dict[str, str],
    roof: tuple[float, float] | None,
) -> None:  # fmt: skip
    """Draw TFLOP/s over FLOPs per byte, under what the machine allows."""
    from matplotlib.ticker import NullFormatter

    for m in points:
        marker = MARKERS[cases.index(m.case) % len(MARKERS)]
        axes.plot(
            m.intensity, m.tflops, linestyle="none", marker=marker, color=colours[m.competitor],
            label=m.competitor,
        )  # fmt: skip
    if roof is not None:
        tflops, bandwidth = roof
        knee = tflops / bandwidth
        xs = [knee, *(m.intensity for m in points)]
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
