"""Class labels of any kind: their places among the classes, and the classes' weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.preprocessing import LabelEncoder

from gpumlp.io.types import HostArray


def encoded(y: HostArray, classes: HostArray) -> HostArray:
    """The place of each label y (m,) among the sorted classes, (m,) int64."""
    encoder = LabelEncoder()
    encoder.classes_ = classes
    try:
        codes: HostArray = encoder.transform(y)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{error}; the classes are {', '.join(map(repr, classes.tolist()))}: call fit with "
            "warm_start=False, or name all of them in the first partial_fit"
        ) from error
    return codes


def of_classes(
    asked: Any, classes: HostArray, codes: HostArray, sample_weight: HostArray | None
) -> HostArray:
    """Each class's weight, (n_classes,) float64; "balanced": all get the same share of the whole.

    codes (m,): the examples' classes by their place in `classes`; sample_weight (m,) or None.
    """
    if isinstance(asked, Mapping):
        known = classes.tolist()
        unknown = [c for c in asked if c not in known]
        if unknown:
            raise ValueError(
                f"class_weight has the class {unknown[0]!r}, which y has not; it has "
                f"{', '.join(map(repr, known))}"
            )
        return np.array([asked.get(c, 1.0) for c in known], np.float64)
    if asked != "balanced":
        raise ValueError(f'class_weight must be "balanced" or a dict by class, got {asked!r}')
    count = np.bincount(codes, sample_weight, minlength=len(classes))
    even = count.sum() / len(classes)
    weights: HostArray = np.divide(even, count, out=np.zeros(len(classes)), where=count > 0)
    return weights
