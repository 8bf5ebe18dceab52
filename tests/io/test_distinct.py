"""The different values of an array, and the time that they take."""

import numpy as np
import pytest

from gpumlp.io.distinct import distinct
from tests.support.timing import slowdown


@pytest.mark.parametrize("dtype", ["int64", "int8", "float32", "bool", "U3"])
def test_values_are_those_of_numpy(dtype):
    values = np.random.default_rng(0).integers(0, 9, (20, 3)).astype(dtype)
    np.testing.assert_array_equal(distinct(values), np.unique(values))
    assert np.isnan(distinct(np.array([np.nan, 1.0, np.nan]))).sum() == 1


def test_time_of_many_whole_numbers():
    """In proportion to their number, nearly; NumPy's own function takes four times as long."""

    def prepared(n):
        numbers = np.random.default_rng(0).permutation(n)
        return lambda: distinct(numbers)

    assert slowdown(prepared, 20_000, 400_000, most=2.5) < 2.5
