"""Statistics of columns that are read in pieces of any size agree with NumPy's."""

import dataclasses

import numpy as np
import pytest

from gpumlp import data
from gpumlp.data.fitting import statistics


class TestStatistics:
    @pytest.mark.parametrize("size", [1, 100, 1 << 20])
    def test_pieces_of_any_size_agree_with_numpy(self, monkeypatch, size):
        monkeypatch.setattr("gpumlp.io.chunks.CHUNK_BYTES", size)
        rng = np.random.default_rng(0)
        x = rng.normal(size=(300, 3)) * [1, 50, 0.1] + 1e6
        x[rng.random(x.shape) < [0.4, 0, 0.4]] = np.nan
        found = statistics(x)
        np.testing.assert_array_equal(found.missing, np.isnan(x).sum(axis=0))
        np.testing.assert_array_equal(found.low, np.nanmin(x, axis=0))
        np.testing.assert_array_equal(found.high, np.nanmax(x, axis=0))
        mean, std = found.moments("abc")
        np.testing.assert_allclose(mean, np.nanmean(x, axis=0), rtol=1e-14)
        np.testing.assert_allclose(std, np.nanstd(x, axis=0), rtol=1e-9)

    def test_categories_are_counted(self):
        x = np.array([[0.0, 1], [2, 1], [np.nan, 0], [2, 1]])
        found = statistics(x, ["a", "b"], {"a": ("p", "q", "r")})
        np.testing.assert_array_equal(found.category_counts["a"], [1, 0, 2])


def test_columns_of_arrays_without_values_in_the_training_part_can_be_kept() -> None:
    x = np.where(np.arange(60)[:, None] < [60, 10], 1.5, np.nan) * np.arange(60)[:, None]
    whole = data.Dataset("t", "regression", x, x[:, 0], ("0", "1"))
    rest = dataclasses.replace(whole, x=x[10:], y=whole.y[10:])
    with pytest.raises(ValueError, match="t: 1 of 2 .* no values .*: 1; train on all rows, --vali"):
        data.Preparation.of(rest, x=True, y=True)
    assert data.Preparation.of(whole, x=True, y=True).features == ("0", "1")
