"""Folds: parts of the data, of which each is left out once for validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp import checks
from gpumlp.arrays import real_host_array
from gpumlp.io.types import Array, HostArray
from gpumlp.loader.examples import Examples
from gpumlp.network import MLP
from gpumlp.weights import ClassWeight

Fold = tuple[HostArray, HostArray]
"""The rows to train on, and those to validate on."""
Folds = int | Sequence[tuple[Any, Any]]


def k_folds(m: int, n: int, seed: int = 0) -> list[Fold]:
    """n pairs (train, validation) of ascending row numbers: each of m rows is in one validation.

    The rows are dealt out at random by the seed; the sizes of the parts differ by at most 1.

    Raises:
        ValueError: n is not from 2 to m.
    """
    n, m = checks.positive_int(n, "folds", least=2), checks.positive_int(m, "m")
    if n > m:
        raise ValueError(f"folds={n} parts cannot be made of {m} rows; pass folds={m} or fewer")
    order = np.random.default_rng(checks.positive_int(seed, "seed", least=0)).permutation(m)
    parts = [np.sort(order[i::n]) for i in range(n)]
    return [(np.setdiff1d(np.arange(m), part, assume_unique=True), part) for part in parts]


def checked(folds: Folds, m: int, seed: int) -> list[Fold]:
    """The argument `folds` of a fit on m rows."""
    if isinstance(folds, (int, np.integer)) and not isinstance(folds, bool):
        return k_folds(m, int(folds), seed)
    if not isinstance(folds, (list, tuple)) or not folds:
        raise TypeError(
            "folds must be a whole number or a list of pairs of rows (train, validation), got "
            f"{folds!r:.60}; pass folds=5"
        )
    pairs = []
    for i, pair in enumerate(folds):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise TypeError(f"folds[{i}] must be a pair of rows (train, validation)")
        train, validation = (_rows(part, m, f"folds[{i}]") for part in pair)
        pairs.append((train, validation))
    return pairs


def _rows(part: Any, m: int, name: str) -> HostArray:
    rows = np.asarray(real_host_array(part, name, "pass arrays of row numbers"))
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not rows.size:
        raise ValueError(
            f"{name} has {rows.dtype} of shape {rows.shape}; pass arrays of row numbers, not empty"
        )
    if rows.min() < 0 or rows.max() >= m:
        raise ValueError(
            f"{name} has rows from {rows.min()} to {rows.max()} but x has {m}; "
            f"pass rows from 0 to {m - 1}"
        )
    return rows.astype(np.int64)


def parts(
    net: MLP, x: Array, y: Array, sample_weight: Array, class_weight: ClassWeight, folds: Folds,
    seed: int, **placement: Any,
) -> list[tuple[Examples, Examples]]:  # fmt: skip
    """The training and validation examples of each fold: copies of their rows, in the backend.

    sample_weight applies to both, class_weight to the training alone.
    """
    whole = Examples.checked(net, x, y, sample_weight, **placement)
    weights = None
    if sample_weight is not None:
        weights = np.asarray(real_host_array(sample_weight, "sample_weight", "pass numbers"))
    found = []
    for rows in checked(folds, len(whole.x), seed):
        (x, y, w), (x_val, y_val, w_val) = (_taken(net, whole, weights, part) for part in rows)
        train = Examples.checked(net, x, y, w, class_weight, **placement)
        validated = Examples.of_validation(net, (x_val, y_val, w_val), **placement)
        assert validated is not None
        found.append((train, validated))
    return found


def _taken(
    net: MLP, whole: Examples, weights: HostArray | None, rows: HostArray
) -> tuple[Array, Array, HostArray | None]:
    """x, y and the weights of these rows."""
    backend = net.backend

    def taken(a: Array) -> Array:
        if isinstance(a, np.ndarray):
            return a[rows]
        out = backend.empty((len(rows), *a.shape[1:]), a.dtype)
        backend.gather(a, backend.asarray(rows, dtype=np.int64), out)
        return out

    return taken(whole.x), taken(whole.y), None if weights is None else weights[rows]
