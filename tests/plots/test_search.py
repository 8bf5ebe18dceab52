"""The figure of a search is drawn from the values and the scores."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from gpumlp.plots import search_figure, write_png

SCORES = np.array([[0.5, 0.7], [0.8, 0.9], [0.6, 0.6], [np.nan, 0.9]])


def panels(figure):
    return {axes.get_xlabel(): axes for axes in figure.axes if axes.get_visible()}


def lines(axes):
    return {line.get_label(): line.get_xydata().T.tolist() for line in axes.lines}


def test_a_panel_shows_each_candidate_its_spread_and_the_best(tmp_path):
    tried = {"lr": [0.01, 0.1, 0.01, 0.1], "hidden": ["8", "8", "8x8", "8x8"], "$": ["$x_$"] * 4}
    figure = search_figure(tried, SCORES, metric="accuracy", title="t")
    names = [text.get_text() for text in figure.axes[2].get_xticklabels()]
    assert (names, figure.axes[2].get_xticklabels()[0].get_parse_math()) == (["$x_$"], False)
    found = panels(figure)
    assert list(found) == ["lr", "hidden", "$"]
    for name, x in (("lr", [0, 1, 0]), ("hidden", [0, 0, 1])):
        (points,) = found[name].containers
        assert points.lines[0].get_xdata().tolist() == x
        np.testing.assert_allclose(points.lines[0].get_ydata(), [0.6, 0.85, 0.6])
        (bars,) = points.lines[2]
        ends = [segment[:, 1] for segment in bars.get_segments()]
        np.testing.assert_allclose(ends, [[0.5, 0.7], [0.8, 0.9], [0.6, 0.6]])
        assert lines(found[name])["best candidate"][1] == pytest.approx([0.85])
    best = lines(found["lr"])["best of each value"]
    np.testing.assert_allclose(best, [[0, 1], [0.6, 0.85]])
    assert "best of each value" not in lines(found["hidden"])
    assert [t.get_text() for t in found["lr"].get_xticklabels()] == ["0.01", "0.1"]
    assert [t.get_text() for t in found["hidden"].get_xticklabels()] == ["8", "8x8"]
    assert found["lr"].get_ylabel() == "accuracy"
    write_png(figure, tmp_path / "s.png")
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def test_many_numbers_have_an_axis_and_outliers_lie_at_its_end():
    x = np.geomspace(1e-4, 1, 20)
    scores = np.repeat(np.linspace(0.8, 0.9, 20)[:, None], 3, axis=1)
    scores[0] = -50
    axes = panels(search_figure({"lr": x.tolist()}, scores, metric="R²"))["lr"]
    assert axes.get_xscale() == "log"
    assert lines(axes)["candidate below the axis"][0] == [x[0]]
    assert axes.get_ylim()[0] > 0.5
    assert "best of each value" not in lines(axes)
    axes = panels(search_figure({"seed": [*range(20, 40)]}, scores, metric="R²"))["seed"]
    assert axes.get_xscale() == "linear"


@pytest.mark.parametrize("count", [1, 3, 4, 7, 12])
def test_each_option_has_a_panel_up_to_nine(count):
    tried = {f"option {i}": [1, 2, 3, 4] for i in range(count)}
    assert len(panels(search_figure(tried, SCORES, metric="R²"))) == min(count, 9)
    assert panels(search_figure(tried, np.full((4, 2), np.nan), metric="R²"))
