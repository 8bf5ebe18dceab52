"""The figure of a training is drawn from the numbers of its history."""

import io

import pytest

pytest.importorskip("matplotlib")

from gpumlp.plots.training import history_figure, plot_history

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


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("members", [1, 2])
def test_plot_writes_a_png(epochs, members, tmp_path):
    each = [{name: column[:epochs] for name, column in HISTORY.items()}] * members
    plot_history(each if members > 1 else each[0], tmp_path / "h.png", title="$t")
    assert (tmp_path / "h.png").read_bytes().startswith(b"\x89PNG")


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


def test_several_histories_have_thin_lines_and_their_mean():
    each = [HISTORY, {name: [2 * v for v in values] for name, values in HISTORY.items()}]
    each.append({name: values[:2] for name, values in HISTORY.items()})
    cost, _ = history_figure(each, metric="accuracy").axes
    lines = [
        (line.get_label(), line.get_ydata().tolist(), line.get_linewidth()) for line in cost.lines
    ]
    for column, part in (("cost", "training"), ("val_cost", "validation")):
        thin = [values for _, values, width in lines if width < 1]
        assert all(one[column] in thin for one in each)
        mean = [sum(one[column][i] for one in each) / 3 for i in range(2)]  # while all have values
        [(values, width)] = [(v, w) for label, v, w in lines if label == f"{part}, mean of 3"]
        assert values == pytest.approx(mean)
        assert width > 1


def test_the_best_epochs_of_several_are_points():
    class Ended(dict):
        best_epoch = 1

    each = [Ended(HISTORY), Ended({**HISTORY, "val_cost": [5.0, 4.0, 3.0]})]
    cost, _ = history_figure(each).axes
    [points] = [line for line in cost.lines if line.get_label() == "best epochs"]
    assert points.get_xydata().tolist() == [[2, 0.7], [2, 4.0]]
