"""The figure of a benchmark is drawn from the numbers of its results."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from gpumlp.bench.cases import Case
from gpumlp.bench.figure import figure, intensity
from gpumlp.bench.results import Result
from gpumlp.plots import write_png

CASE = Case("c", (100, 200, 50), 64)
OURS = Result(CASE, "numpy", "gpumlp", "timed", seconds=[0.002, 0.002])
PEER = replace(OURS, competitor="torch eager", seconds=[0.006, 0.008], ours=[0.002, 0.002])
FLOOR = replace(
    OURS, competitor="floor", seconds=[0.001, 0.001], ours=[0.002, 0.002],
    notes={"copy_bytes_per_second": 1e9},
)  # fmt: skip
LOST = replace(OURS, competitor="jax", status="missing", seconds=[])


def test_bars_are_time_ratios_to_ours():
    ratios, _ = figure([OURS, FLOOR, PEER, LOST]).axes
    assert [label.get_text() for label in ratios.get_yticklabels()] == ["floor", "torch eager"]
    # round by round: our step takes 1/3 and 1/4 of torch's time
    widths = [bar.get_width() for bar in ratios.patches]
    np.testing.assert_allclose(widths, [0.5, 1 / np.mean([1 / 3, 1 / 4])])


def test_roofline_points_and_roof_are_at_the_measured_speeds():
    _, roof = figure([OURS, FLOOR, PEER]).axes
    lines = {line.get_label(): line.get_xydata() for line in roof.lines}
    flops = 2 * 64 * (2 * 100 * 200 + 3 * 200 * 50)
    moved = CASE.product_bytes() + CASE.rest_bytes()
    np.testing.assert_allclose(lines["gpumlp"], [[flops / moved, flops / 0.002 / 1e12]])
    np.testing.assert_allclose(lines["torch eager"], [[flops / moved, flops / 0.007 / 1e12]])
    products = 0.001 - CASE.rest_bytes() / 1e9  # the floor's time without its other bytes
    corner = lines["limit by copies and products"]
    peak = flops / products / 1e12
    np.testing.assert_allclose(corner[:, 1].max(), peak)
    np.testing.assert_allclose(corner[0, 1], corner[0, 0] * 1e9 / 1e12)  # the slope
    assert intensity(OURS) == flops / moved
    assert (roof.get_xscale(), roof.get_yscale()) == ("log", "log")


def test_plot_writes_a_png_or_raises_without_times(tmp_path):
    path = tmp_path / "bench.png"
    write_png(figure([OURS, PEER]), path)  # without a floor, and so without a roof
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(ValueError, match="nothing was timed"):
        write_png(figure([LOST]), tmp_path / "none.png")
    assert [p.name for p in tmp_path.iterdir()] == ["bench.png"]
