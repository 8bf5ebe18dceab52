"""Weights of examples and of classes, and targets that class weights are part of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gpumlp.arrays import real_host_array
from gpumlp.backends import Backend
from gpumlp.functions import Loss
from gpumlp.io.chunks import chunks
from gpumlp.io.types import Array, HostArray

ClassWeight = Mapping[int, float] | Array | str | None
"""A weight for each class, as a mapping or an array, or "balanced"."""


def example_weights(m: int, sample_weight: Array, of_class: HostArray | None) -> HostArray | None:
    """Return the weight of each example, float64 (m,), at most 1; or None if all are equal.

    It is the sample weight times `of_class` (m,), the weight of the example's class, or the mean of
    these under a row of probabilities.  Only the proportions count: the scale is a power of 2.
    """
    weights = None
    if sample_weight is not None:
        weights = _scaled(positive_weights(sample_weight, m, "sample_weight", "row"))
    if of_class is not None:
        weights = of_class if weights is None else _scaled(weights * of_class)
    if weights is not None and not weights.any():
        named = {"sample_weight": sample_weight, "class_weight": of_class}
        names = " and ".join(name for name, given in named.items() if given is not None)
        raise ValueError(
            f"{names} give every example the weight 0; pass weights with a positive sum"
        )
    return weights


def _scaled(weights: HostArray) -> HostArray:
    """The weights over a power of 2, which changes no digit, such that the largest is near 1."""
    return np.ldexp(weights, -int(np.frexp(weights.max())[1]))


def weighted_targets(
    backend: Backend, loss: Loss, y: Array, n: int, class_weight: ClassWeight
) -> Array:
    """Return y, from `supervised`, as the loss takes it beside weights of the classes.

    These are y itself or, if the loss smooths its targets, `Loss.weighted_targets` of them.
    """
    if class_weight is None or not loss.smooths:
        return y
    y = y if isinstance(y, np.ndarray) else backend.to_host(y)
    weight = class_weights(loss, y, n, class_weight, backend.dtype)
    of_example = of_examples(loss, y, weight, backend.dtype)
    rows = np.empty((len(y), n), backend.dtype)
    for part in chunks(rows):
        given = y[part] if y.ndim == 1 else y[part].astype(backend.dtype)
        rows[part] = loss.weighted_targets(given, weight / of_example[part, None])
    return rows


def of_examples(loss: Loss, y: HostArray, weight: HostArray, dtype: np.dtype[Any]) -> HostArray:
    """Return the weight of the class of each example, (m,), or the mean of these under a row.

    dtype: the type in which the network reads rows.
    """
    of_example: HostArray = weight[y] if y.ndim == 1 else np.empty(len(y))
    if y.ndim == 2:
        for part, p in _probabilities(loss, y, dtype):
            of_example[part] = p @ weight
    if loss.smooths:  # an example of a class of weight 0 still counts for the other classes
        of_example = np.maximum(of_example, weight.max() * 2.0**-40)
    return of_example


def _probabilities(
    loss: Loss, y: HostArray, dtype: np.dtype[Any]
) -> Iterator[tuple[slice, HostArray]]:  # fmt: skip
    """Yield rows of y (m, n) and the probabilities of all classes in them, float64."""
    for part in chunks(y):
        p = y[part].astype(dtype).astype(np.float64)
        yield part, np.hstack([1 - p, p]) if loss.target == "binary" else p


def class_weights(
    loss: Loss, y: HostArray, n: int, class_weight: Any, dtype: np.dtype[Any]
) -> HostArray:  # fmt: skip
    """Return weights of the classes, the largest near 1; "balanced" gives class c 1 / m_c."""
    if loss.target not in ("class", "binary") or (loss.target == "binary" and n != 1):
        raise ValueError(
            f"class_weight needs one class per example, but {loss.name} with {n} outputs has "
            "several values per example; use sample_weight"
        )
    classes = n if loss.target == "class" else 2
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(f'class_weight must be "balanced" or weights, got {class_weight!r}')
        if y.ndim == 1:
            count = np.bincount(y, minlength=classes)
        else:
            count = sum(p.sum(axis=0) for _, p in _probabilities(loss, y, dtype))
        weight = np.where(count > 0, len(y) / (classes * np.where(count > 0, count, 1)), 0.0)
    else:
        if isinstance(class_weight, Mapping):
            for c in class_weight:
                if c not in range(classes):
                    raise ValueError(
                        f"class_weight has the class {c!r}; pass classes 0 … {classes - 1}"
                    )
            class_weight = [class_weight.get(c, 1.0) for c in range(classes)]
        weight = positive_weights(class_weight, classes, "class_weight", "class")
    return _scaled(weight)


def positive_weights(value: Any, count: int, name: str, each: str) -> HostArray:
    """Return `count` finite weights that are not negative, as new float64 (count,)."""
    weights = np.array(real_host_array(value, name, f"pass one number per {each}"), np.float64)
    if weights.shape != (count,):
        raise ValueError(
            f"{name} has shape {weights.shape}; pass one weight per {each}, ({count},)"
        )
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(
            f"{name} has values that are negative or not finite; pass weights of 0 or more"
        )
    return weights
