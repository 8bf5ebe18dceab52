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


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("smoothing", [0, 0.2])
def test_class_weights_of_a_fold_are_those_of_its_rows(
    precision: str, dtype: str, smoothing: float
) -> None:
    """To the bit, though the rows of y are copied in the network's type."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(31, 4)), rng.dirichlet(np.ones(3), 31).astype(dtype)
    loss = gpumlp.LOSSES["softmax_cross_entropy"].set(smoothing=smoothing)
    kind = {"backend": "numpy", "precision": precision, "loss": loss}
    ensemble, weights = gpumlp.Ensemble(2, [4, 5, 3], **kind), {"class_weight": "balanced"}
    gpumlp.Trainer(ensemble).fit(x, y, 2, folds=2, **weights)
    rows, _ = gpumlp.k_folds(31, 2)[1]
    alone = gpumlp.MLP([4, 5, 3], seed=1, **kind)
    gpumlp.Trainer(alone, seed=1).fit(x[rows], y[rows], 2, **weights)
    assert np.array_equal(ensemble[1].theta.flat, alone.theta.flat)


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
