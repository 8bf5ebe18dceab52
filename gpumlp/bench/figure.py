"""The results of a benchmark as numbers for `plots.benchmark`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from gpumlp.bench.peers import FLOOR, OURS
from gpumlp.bench.results import TIMED, Result
from gpumlp.plots.benchmark import Measurement, benchmark_figure
from gpumlp.plots.figure import write_png


def plot(results: Sequence[Result], path: str | os.PathLike[str]) -> None:
    """Write `figure` as a PNG file; an error leaves no partial file."""
    write_png(figure(results), path)


def figure(results: Sequence[Result]) -> Any:
    """Draw the time of each competitor's step over ours, and the speeds under the roofline.

    Raises:
        ValueError: no result has a time.
        ImportError: matplotlib is not installed.
    """
    timed = [r for r in results if r.status == TIMED]
    if not timed:
        raise ValueError("nothing was timed, so there is nothing to draw")
    numbers = [
        Measurement(str(r.case), r.competitor, 1 / r.ours_over_this, intensity(r), r.tflops)
        for r in timed
    ]
    roof = _roof([r for r in timed if r.competitor == FLOOR])
    return benchmark_figure(numbers, OURS, FLOOR, roof)


def _roof(floors: Sequence[Result]) -> tuple[float, float] | None:
    """The fastest bare products and the fastest copy of all cases, in 10¹² per second."""
    if not floors:
        return None
    bandwidth = max(r.notes["copy_bytes_per_second"] for r in floors)
    return max(map(_product_tflops, floors)), bandwidth / 1e12


def intensity(result: Result) -> float:
    """FLOPs of the step's products per byte that the step must move at least once."""
    case = result.case
    return case.flops() / (case.product_bytes() + case.rest_bytes())


def _product_tflops(floor: Result) -> float:
    """10¹² FLOPs per second of the floor's products, without the time of its other bytes."""
    other = floor.case.rest_bytes() / float(floor.notes["copy_bytes_per_second"])
    return floor.case.flops() / (floor.timing.median - other) / 1e12
