"""The weight of each example, of `sample_weight` and `class_weight`, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpumlp.arrays import numbers
from gpumlp.functions import Loss
from gpumlp.io.types import Array, HostArray


def example_weights(
    loss: Loss,
    y: Array,
    n: int,
    sample_weight: Array | None,
    class_weight: Mapping[int, float] | Array | str | None,
) -> HostArray | None:
    """The weight of each example, float64 (m,), or None for all alike.

    An example's class weight (its labels' mean, where its target is a row of probabilities)
    multiplies its sample weight.  "balanced" gives class c the weight m / (n · m_c).
    """
    m = len(y)
    weights = None
    if sample_weight is not None:
        weights = _weights(sample_weight, m, "sample_weight", "row")
    if class_weight is not None:
        of_example = _class_weights(loss, np.asarray(y), n, class_weight)
        weights = of_example if weights is None else weights * of_example
    if weights is not None:
        with np.errstate(over="ignore"):
            total = float(weights.sum())
        if not 0 < total < np.inf:
            raise ValueError(
                f"the examples' weights (sample_weight, class_weight) add up to {total}; "
                "pass weights with a positive, finite sum"
            )
    return weights


def _class_weights(loss: Loss, y: HostArray, n: int, class_weight: Any) -> HostArray:
    """The class weight of each example, float64 (m,)."""
    if loss.target not in ("class", "binary") or (loss.target == "binary" and n != 1):
        raise ValueError(
            f"class_weight needs one class an example, which {loss.name} over {n} outputs has not; "
            "use sample_weight"
        )
    classes = n if loss.target == "class" else 2
    if loss.target == "binary":
        y = np.hstack([1 - y, y])  # the two classes' probabilities
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(f'class_weight must be "balanced" or weights, got {class_weight!r}')
        count = np.bincount(y, minlength=classes) if y.ndim == 1 else y.sum(axis=0)
        weight = np.where(count > 0, len(y) / (classes * np.where(count > 0, count, 1)), 0.0)
    elif isinstance(class_weight, Mapping):
        unknown = [c for c in class_weight if c not in range(classes)]
        if unknown:
            raise ValueError(
                f"class_weight has the class {unknown[0]!r}; pass classes 0 … {classes - 1}"
            )
        of_class = [class_weight.get(c, 1.0) for c in range(classes)]
        weight = _weights(of_class, classes, "class_weight", "class")
    else:
        weight = _weights(class_weight, classes, "class_weight", "class")
    result: HostArray = weight[y] if y.ndim == 1 else y @ weight
    return result


def _weights(value: Any, count: int, name: str, one: str) -> HostArray:
    """`count` finite weights of 0 and up, as new float64 (count,)."""
    weights = np.array(numbers(value, name, f"pass one number a {one}"), np.float64)
    if weights.shape != (count,):
        raise ValueError(f"{name} has shape {weights.shape}; pass one weight a {one}, ({count},)")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(
            f"{name} has values that are negative or not finite; pass weights of 0 and up"
        )
    return weights
