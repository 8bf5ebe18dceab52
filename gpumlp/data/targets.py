"""Targets: labels or values, out of what a source holds."""

from __future__ import annotations

import numpy as np

from gpumlp.data.raw import Raw, listed
from gpumlp.data.scratch import Matrix
from gpumlp.io.chunks import chunks
from gpumlp.io.types import HostArray

MAX_CLASSES = 20  # whole numbers with more distinct values than this are taken for quantities


def task_of(raw: Raw) -> str:
    """Classification of words, truth values and few distinct whole numbers, else regression."""
    y = raw.y
    assert y is not None
    if raw.words or y.dtype.kind in "OUSb":
        return "classification"
    whole = y.dtype.kind in "iu" or (raw.whole and bool((y == np.floor(y)).all()))
    few = y.ndim == 1 and len(np.unique(y)) <= MAX_CLASSES
    return "classification" if whole and few else "regression"


def labels(
    name: str, y: HostArray, words: tuple[str, ...] | None, classes: tuple[str, ...] | None
) -> tuple[HostArray, tuple[str, ...]]:
    """(m,) labels, and the classes' names: those given, else the distinct values in order.

    words: what the numbers in y stand for; None where they are the labels' names themselves.
    """
    if y.ndim != 1:
        raise ValueError(
            f"{name}: the target has shape {y.shape}; a classification takes labels of shape "
            f"({len(y)},), e.g. y.argmax(axis=1), else say --task regression"
        )
    if y.dtype.kind not in "OUSbiuf":
        raise TypeError(f"{name}: the target has dtype {y.dtype}; labels are words or numbers")
    if y.dtype.kind == "f" and not bool((y == np.floor(y)).all()):
        raise ValueError(
            f"{name}: the target has values that are no whole numbers; it cannot be classified, "
            "say --task regression"
        )
    if words is not None:
        names, index = list(words), y
    else:
        y = y.astype(str) if y.dtype.kind == "S" else y
        distinct, index = np.unique(y, return_inverse=True)
        names = [str(v if y.dtype.kind in "OUb" else int(v)) for v in distinct]
    ordered = names if words is None else sorted(names)
    label = {c: i for i, c in enumerate(classes or ordered)}
    unknown = [c for c in names if c not in label]
    if unknown:
        raise ValueError(
            f"{name} has classes that the model was not trained on: {listed(unknown)}; "
            f"it knows: {listed(label)}"
        )
    return np.array([label[c] for c in names], np.int64)[index], tuple(label)


def values(name: str, y: HostArray, words: tuple[str, ...] | None) -> HostArray:
    """(m,) or (m, k) float64."""
    if words or y.dtype.kind not in "fiub":
        some = listed(sorted(words)[:3] if words else np.unique(y)[:3])
        raise TypeError(
            f"{name}: the target holds words ({some}, …), no numbers; "
            "it cannot be regressed, say --task classification"
        )
    return y.astype(np.float64)


def check_finite(name: str, y: HostArray) -> None:
    """Raise where a target is missing or infinite."""
    count = int((~np.isfinite(y)).sum()) if y.dtype.kind == "f" else 0
    if count:
        raise ValueError(
            f"{name}: the target has {count} missing or infinite values; drop such rows"
        )


def check_varies(name: str, x: Matrix, y: HostArray) -> None:
    """Raise where there is nothing to learn."""
    if bool((y == y[:1]).all()):
        raise ValueError(f"{name}: the target is the same for all {len(y)} rows: nothing to learn")
    first = x[:1]
    if all(bool(((x[rows] == first) | np.isnan(first)).all()) for rows in chunks(x)):
        raise ValueError(f"{name}: all features are constant: nothing to learn from")
