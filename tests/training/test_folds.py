"""Folds: pairs of rows to train on and to validate on."""

from __future__ import annotations

import numpy as np
import pytest

import gpumlp
from gpumlp.training.folds import checked
from tests.support.refusal import refusal


@pytest.mark.parametrize(("m", "n"), [(10, 2), (11, 3), (7, 7), (100, 9)])
def test_each_row_is_left_out_once(m: int, n: int) -> None:
    pairs = gpumlp.k_folds(m, n, seed=4)
    assert len(pairs) == n
    assert sorted(np.concatenate([left for _, left in pairs])) == list(range(m))
    sizes = [len(left) for _, left in pairs]
    assert max(sizes) - min(sizes) <= 1
    for train, left in pairs:
        assert sorted([*train, *left]) == list(range(m))
        assert (np.diff(train) > 0).all()
        assert (np.diff(left) > 0).all()


def test_seeds_deal_the_rows_out_differently() -> None:
    left = [gpumlp.k_folds(50, 5, seed=s)[0][1].tolist() for s in (0, 0, 1)]
    assert left[0] == left[1] != left[2]


def test_invalid_folds_raise() -> None:
    refusal(ValueError, lambda: gpumlp.k_folds(5, 6), "folds=6", "5 rows", "folds=5")
    refusal(ValueError, lambda: gpumlp.k_folds(5, 1), "folds must be at least 2")
    refusal(TypeError, lambda: checked("five", 9, 0), "folds must be", "folds=5")  # type: ignore[arg-type]
    refusal(TypeError, lambda: checked([], 9, 0), "folds must be")
    refusal(TypeError, lambda: checked([([1], [2], [3])], 9, 0), "folds[0]", "pair")  # type: ignore[list-item]
    refusal(ValueError, lambda: checked([([1], [9])], 9, 0), "folds[0]", "from 9 to 9", "0 to 8")
    refusal(ValueError, lambda: checked([([1], [])], 9, 0), "folds[0]")
    refusal(ValueError, lambda: checked([([0.5], [1])], 9, 0), "row numbers")
