"""Monitor: the best value of a column, and the epochs since then."""

import math

import pytest

from gpumlp.training.monitor import Monitor

NAN = math.nan
# values; then after each value: whether it is an improvement, the best value, the epochs since
CASES = [
    ({"column": "cost"}, [3, 2, 2, NAN, 1], "ttfft", [3, 2, 2, 2, 1], [0, 0, 1, 2, 0]),
    ({"column": "val_f1"}, [NAN, 1, 0, 2], "ftft", [None, 1, 1, 2], [1, 0, 1, 0]),
    ({"column": "f1", "mode": "min"}, [1, 2, 0], "tft", [1, 1, 0], [0, 1, 0]),
    ({"min_delta": 1.0}, [0, 1, 1.5, 2], "tftf", [0, 0, 1.5, 1.5], [0, 1, 0, 1]),
    ({"min_delta": 1.0, "scikit_learn": True}, [0, 0.5, 1.5, 2, NAN], "tftff",
     [0, 0.5, 1.5, 2, 2], [0, 1, 0, 1, 2]),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "values", "improved", "best", "waited"), CASES)
def test_monitor_tracks_the_best_value(settings, values, improved, best, waited):
    monitor = Monitor(**{"column": "val_metric", **settings})
    for value, *expected in zip(values, improved, best, waited, strict=True):
        improves = monitor.improves(value)
        assert monitor.update(value) is improves
        assert ["ft"[improves], monitor.best, monitor.waited] == expected
    monitor.reset()
    assert (monitor.best, monitor.waited) == (None, 0)
