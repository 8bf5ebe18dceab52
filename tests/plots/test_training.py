"""The figure of a training is drawn from the numbers of its history."""

import io

import pytest

pytest.importorskip("matplotlib")

from gpumlp.plots.training import history_figure

HISTORY = {
    "cost": [2.0, 0.5, 0.02], "val_cost": [2.1, 0.7, 0.4], "metric": [0.3, 0.8, 1.0],
    "val_metric": [0.2, 0.7, 0.9], "lr": [1.0, 1.0, 1.0],
}  # fmt: skip


def test_history_figure_draws_cost_and_metric():
    cost, score = history_figure(HISTORY, metric="accuracy", title="t").axes
    for axes, column in ((cost, "cost"), (score, "metric")):
        lines = {line.get_label(): line.get_xydata().T.tolist() for line in axes.lines}
        assert lines == {
            "training": [[1, 2, 3], HISTORY[column]],
            "validation": [[1, 2, 3], HISTORY[f"val_{column}"]],
        }
        assert axes.get_xlabel() == "epoch"
    assert (cost.get_ylabel(), score.get_ylabel()) == ("cost J", "accuracy")
    assert (cost.get_yscale(), score.get_yscale()) == ("log", "linear")


def test_history_figure_draws_a_metric_by_its_name():
    score = history_figure({"cost": [1.0], "val_f1": [0.5, 0.6]}, metric="f1").axes[1]
    (line,) = score.lines
    assert line.get_ydata().tolist() == [0.5, 0.6]
    assert score.get_ylabel() == "f1"


@pytest.mark.parametrize("cost", [[2.0, 1.0], [2.0, -1.0], [2.0, 0.0]])
def test_small_changes_or_negative_costs_have_a_linear_axis(cost):
    axes = history_figure({"cost": cost}).axes[0]
    assert axes.get_yscale() == "linear"
    assert len(axes.lines) == 1


def test_empty_history_draws_no_lines():
    figure = history_figure({"cost": [], "metric": []})
    figure.savefig(io.BytesIO())
    assert not any(axes.lines for axes in figure.axes)
