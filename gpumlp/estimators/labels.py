"""Whole numbers as labels, for which scikit-learn's checks take longer than a small network."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score


def numbered(y: Any) -> bool:
    """Whether y is an array (m,) of whole numbers, which needs no further check."""
    return isinstance(y, np.ndarray) and y.ndim == 1 and y.dtype.kind in "iu"


def accuracy(y: Any, predicted: Any, sample_weight: Any = None) -> float:
    """Return what scikit-learn's accuracy_score returns."""
    plain = sample_weight is None and numbered(y) and numbered(predicted)
    if plain and y.dtype == predicted.dtype and y.shape == predicted.shape and y.size:
        return float(np.mean(y == predicted))
    return float(accuracy_score(y, predicted, sample_weight=sample_weight))
