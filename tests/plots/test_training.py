"""The picture of a training holds the history's numbers."""

import io

import pytest

pytest.importorskip("matplotlib")

from gpumlp.plots.training import history_figure


class TestPlot:
    HISTORY = {  # noqa: RUF012
        "cost": [2.0, 0.5, 0.02], "val_cost": [2.1, 0.7, 0.4], "metric": [0.3, 0.8, 1.0],
        "val_metric": [0.2, 0.7, 0.9], "lr": [1.0, 1.0, 1.0],
    }  # fmt: skip

    def test_draws_the_history(self):
        cost, score = history_figure(self.HISTORY, metric="accuracy", title="t").axes
        for axes, column in ((cost, "cost"), (score, "metric")):
            lines = {line.get_label(): line.get_xydata().T.tolist() for line in axes.lines}
            assert lines == {
                "training": [[1, 2, 3], self.HISTORY[column]],
                "validation": [[1, 2, 3], self.HISTORY[f"val_{column}"]],
            }
            assert axes.get_xlabel() == "epoch"
        assert (cost.get_ylabel(), score.get_ylabel()) == ("cost J", "accuracy")
        assert (cost.get_yscale(), score.get_yscale()) == ("log", "linear")

    def test_draws_a_metric_by_its_name(self):
        score = history_figure({"cost": [1.0], "val_f1": [0.5, 0.6]}, metric="f1").axes[1]
        (line,) = score.lines
        assert line.get_ydata().tolist() == [0.5, 0.6]
        assert score.get_ylabel() == "f1"

    @pytest.mark.parametrize("cost", [[2.0, 1.0], [2.0, -1.0], [2.0, 0.0]])
    def test_a_cost_that_stays_near_or_is_negative_has_a_linear_axis(self, cost):
        axes = history_figure({"cost": cost}).axes[0]
        assert axes.get_yscale() == "linear"
        assert len(axes.lines) == 1

    def test_nothing_to_draw(self):
        figure = history_figure({"cost": [], "metric": []})
        figure.savefig(io.BytesIO())
        assert not any(axes.lines for axes in figure.axes)
