"""Confusion matrices and residuals are drawn from the numbers they were given."""

import io
import itertools

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("typer")

from gpumlp.cli.evaluate import figure_of
from gpumlp.data import Dataset
from gpumlp.plots import confusion_figure, residual_figure, write_png


def labels(rng, n, m=500):
    y = rng.integers(0, n, m)
    return y, np.where(rng.random(m) < 0.7, y, rng.integers(0, n, m))


@pytest.mark.parametrize("n", [2, 10, 20])
def test_confusion_cells_show_counts_and_shares_of_the_row(n, rng):
    from sklearn.metrics import confusion_matrix

    y, p = labels(rng, n)
    y[y == n - 1], names = 0, [f"class {i}" for i in range(n)]  # a class without examples
    axes = confusion_figure(y, p, names, "iris").axes[0]
    counts = confusion_matrix(y, p, labels=range(n))
    shown = np.zeros_like(counts)
    for text in axes.texts:
        column, row = text.get_position()
        shown[row, column] = int(text.get_text().replace(",", ""))
    np.testing.assert_array_equal(shown, counts)
    shares = confusion_matrix(y, p, labels=range(n), normalize="true")
    np.testing.assert_allclose(axes.images[0].get_array(), shares)
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    accuracy = np.mean(y == p)
    assert axes.figure.get_suptitle() == (
        f"iris: {(y == p).sum()} of 500 right, accuracy {accuracy:.4f}"
    )


def test_many_classes_have_shades_and_some_names(rng):
    figure = confusion_figure(*labels(rng, 100), [f"class {i}" for i in range(100)])
    axes = figure.axes[0]
    assert not axes.texts
    names = {tick: label.get_text() for tick, label in zip(
        axes.get_xticks(), axes.get_xticklabels(), strict=True)}  # fmt: skip
    assert len(names) <= 40
    assert all(name == f"class {tick}" for tick, name in names.items())
    image = axes.images[0]
    assert image.norm(0.01) > 0.1  # a hundredth of a row can be seen
    assert max(figure.get_size_inches()) < 12


@pytest.mark.parametrize("m", [1, 200, 10_000])
def test_residual_points_are_values_and_residuals(m, rng):
    y = 100 * rng.normal(size=(m, 1))
    p = y + rng.normal(size=y.shape)
    fit, rest = residual_figure(y, p, "price", "houses").axes
    assert (fit.get_xlabel(), fit.get_ylabel()) == ("true price", "predicted price")
    assert rest.get_xlabel() == "predicted price"
    points = np.hstack([y, p])
    for axes, expected in ((fit, points), (rest, np.hstack([p, y - p]))):
        offsets = axes.collections[0].get_offsets()
        if m <= 4000:
            np.testing.assert_allclose(offsets, expected)
        else:
            assert axes.collections[0].get_array().sum() == m  # each point is in one hexagon
    lines = [line.get_ydata()[0] for line in rest.lines]
    np.testing.assert_allclose(lines, [0, *np.quantile(y - p, [0.05, 0.95])])
    np.testing.assert_allclose(fit.lines[0].get_xdata(), [points.min(), points.max()])


def test_numbers_of_many_digits_do_not_overlap(rng):
    y = rng.uniform(8e4, 7.5e5, (200, 1))
    figure = residual_figure(y, y + rng.normal(0, 2e4, y.shape), "price")
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        ends = sorted((box.x0, box.x1) for box in boxes)
        assert all(right < left for (_, right), (left, _) in itertools.pairwise(ends))


def test_wrong_shapes_and_labels_raise():
    y = np.arange(9) % 3
    for bad in (y - 1, y[:-1], y / 2, y[:, None]):
        with pytest.raises(ValueError, match=r"predicted must be \(9,\) labels from 0 to 2"):
            confusion_figure(y, bad, list("abc"))
    with pytest.raises(ValueError, match=r"y must be \(9,\) labels from 0 to 1"):
        confusion_figure(y, y, ["a", "b"])
    assert len(residual_figure(y, y + 0.5).axes) == 2
    with pytest.raises(ValueError, match=r"y has shape \(9, 1\) and p \(8, 1\)"):
        residual_figure(y, y[1:])


def test_each_output_has_its_own_row(rng):
    y = rng.normal(size=(30, 9))
    axes = residual_figure(y, y + 1, "y").axes
    assert [panel.get_xlabel() for panel in axes[::2]] == [f"true y[{j}]" for j in range(6)]
    np.testing.assert_allclose(axes[4].collections[0].get_offsets(), np.c_[y[:, 2], y[:, 2] + 1])


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_figure_from_parts_equals_figure_of_the_whole(task, rng):
    seen = []
    x, classes = rng.normal(size=(60, 2)), ("a", "b", "c") if task == "classification" else None
    y = rng.integers(0, 3, 60) if classes else rng.normal(size=60)
    y, p = (y, rng.integers(0, 3, 60)) if classes else (y[:, None], rng.random((60, 1)))
    for size in (60, 17):
        parts = [slice(start, start + size) for start in range(0, 60, size)]
        last = Dataset("d", task, x[parts[-1]], y[parts[-1]], ("u", "v"), classes)
        seen.append(figure_of(last, [(y[rows], p[rows]) for rows in parts]))
    if classes:
        expected = confusion_figure(y, p, classes, "d")
        drawn = [figure.axes[0].images[0].get_array() for figure in (expected, *seen)]
    else:
        expected = residual_figure(y, p)
        drawn = [figure.axes[1].collections[0].get_offsets() for figure in (expected, *seen)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[0], drawn[2])


def test_class_names_are_drawn_literally(tmp_path):
    names = [r"$\broken$", "τ", "a name that is far too long"]
    figure = confusion_figure(np.array([0, 1, 2]), np.array([0, 1, 1]), names, "$x")
    write_png(figure, tmp_path / "c.png")
    shown = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert shown == [*names[:2], "a name that is far…"]
    residual_figure(np.ones((3, 1)), np.ones((3, 1)), r"$\nothing$").savefig(io.BytesIO())
