"""Check X and y, and convert them for training: arrays, data frames and sparse matrices."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.base import is_regressor
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import _check_sample_weight, _check_y, validate_data

from gpumlp.arrays import as_backend_array, check_container, check_times, real_host_array
from gpumlp.backends import Backend, get_backend
from gpumlp.data.dataset import listed
from gpumlp.estimators import codes, frames
from gpumlp.io.types import Array, HostArray
from gpumlp.network import CHUNK

HOST = get_backend("numpy")
MISSING = ("NoneType", "NAType", "NaTType")  # None, and what pandas has


@dataclass(frozen=True)
class FitData:
    """Checked examples, before there is a network: `loader.Examples` is checked against one.

    Attributes:
        x: (m, n_0) an array of the backend or on the host, of any real dtype.
        y: (m,) or (m, k) as scorers take it, on the host.
        targets: the targets of the network: labels (m,), or values (m,) or (m, n_L).
        weights: (m,) float64, or None where all weigh the same.
    """

    x: Array
    y: HostArray
    targets: HostArray
    weights: HostArray | None

    def split(self, share: float, seed: int, classes: HostArray | None) -> tuple[FitData, FitData]:
        """Return the training data and a random share of the examples for validation.

        Both have examples of all `classes` (m,), where that is possible; None ignores classes.
        """
        m, few = len(self.y), int(np.ceil(share * len(self.y)))
        if not 2 <= few < m:
            raise ValueError(
                f"validation_fraction={share:g} of {m} examples leaves {few} to validate on; at "
                "least 2 are needed, and 1 to train on: pass another, or X_val and y_val"
            )
        if classes is not None:
            count = np.unique(classes, return_counts=True)[1]
            if count.min() < 2 or min(few, m - few) < len(count):
                classes = None
        parts = train_test_split(np.arange(m), test_size=few, random_state=seed, stratify=classes)
        train, validation = (self._rows(rows) for rows in parts)
        return train, validation

    def _rows(self, rows: HostArray) -> FitData:
        weights = None if self.weights is None else self.weights[rows]
        return FitData(self.x[rows], self.y[rows], self.targets[rows], weights)


def supervised(e: Any, X: Any, y: Any, backend: Backend, *, reset: bool) -> tuple[Any, Any]:
    """Return X and y, checked as scikit-learn does; X may be the backend's array, or sparse.

    `reset` notes the features' number and names in the estimator e; else they are compared.
    """
    how = {"multi_output": True, "y_numeric": is_regressor(e)}
    y = host(y, "y")
    if not how["y_numeric"]:
        check_labels(y, "y")
    elif frames.is_frame(y):
        check_times(y, "y")
    X, y = features(e, X, backend, reset=reset, y=y, **how)
    if not isinstance(X, np.ndarray):  # `features` does not check y beside an array on a device
        y = _check_y(y, estimator=e, **how)
        check_consistent_length(X, y)
    return X, y


@contextmanager
def of_validation() -> Iterator[None]:
    """Errors in this context name the validation data: scikit-learn's call all data X and y."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"validation data, X_val and y_val: {error}") from error


def check_labels(y: Any, name: str) -> None:
    """Raise unless labels that are objects of Python can be sorted, as their classes must be."""
    if str(getattr(y, "dtype", "")) != "object" or y.ndim != 1:
        return
    labels = np.asarray(y).tolist()
    kinds = {"number" if isinstance(v, numbers.Number) else type(v).__name__ for v in labels}
    for i, v in enumerate(labels if kinds != {"str"} else ()):
        if type(v).__name__ in MISSING or (isinstance(v, float) and math.isnan(v)):
            raise ValueError(f"{name} has no label in row {i}; leave out such rows")
    if len(kinds) > 1:
        raise TypeError(
            f"{name} has labels of several types, {' and '.join(sorted(kinds))}, which cannot be "
            f"sorted; pass them as strings, numpy.array({name}, str)"
        )


def features(e: Any, X: Any, backend: Backend, *, reset: bool = False, **targets: Any) -> Any:
    """Return X to predict from, checked; it may be the backend's array, or sparse."""
    check_container(X, "X")
    if hasattr(X, "with_columns") and not hasattr(X, "shape"):
        raise TypeError(f"X is a {type(X).__name__}; pass X.collect()")
    given = X
    try:
        X = codes.encoded(e, X, reset)
        if frames.is_frame(X):
            check_times(X, "X")
        X = as_backend_array(X, backend, "X")
        if isinstance(X, np.ndarray) and X.dtype.kind in "mM":
            real_host_array(X, "X", "pass numbers")
        on_device = backend.owns(X) and not isinstance(X, np.ndarray)  # scikit-learn cannot read it
        how = {"reset": reset, "skip_check_array": on_device, "accept_sparse": "csr"}
        checked = validate_data(e, X, **how, **targets)
        if (checked[0] if "y" in targets else checked).dtype == object:  # of pandas' categories
            raise TypeError("X has dtype object; pass real numbers")
        return checked
    except (TypeError, ValueError) as error:
        words = frames.words(given) if reset and e.embed is None else []
        if not words:
            raise
        raise ValueError(
            f"X has columns of words: {listed(words)}; learn a vector for each word, embed=16, or "
            "encode them, for example by sklearn.preprocessing.OneHotEncoder"
        ) from error


def host(a: Any, name: str) -> Any:
    """Return `a` on the host, where scikit-learn can read it."""
    check_container(a, name)
    return as_backend_array(a, HOST, name, to_host=True)


def weights(sample_weight: Any, X: Any) -> HostArray:
    """Return the weights (m,) float64 of the rows of X, checked as scikit-learn does."""
    given = host(sample_weight, "sample_weight")
    if (dtype := np.asarray(given).dtype).kind in "cmMSU":
        raise TypeError(f"sample_weight has dtype {dtype}; pass numbers, 0 or more")
    return np.asarray(_check_sample_weight(given, X, dtype=np.float64))


def dense(X: Any, dtype: npt.DTypeLike) -> Array:
    """Return X; a sparse X as a dense array of `dtype`, which the machine's memory must hold."""
    if not sp.issparse(X):
        return X
    size = X.shape[0] * X.shape[1] * np.dtype(dtype).itemsize
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # unknown
        memory = size
    if size > memory:
        raise ValueError(
            f"X is sparse; as a dense array it takes {size / 1e9:,.1f} GB, and this machine has "
            f"{memory / 1e9:,.1f} GB; call partial_fit with some rows at a time, or reduce the "
            "number of columns, for example with sklearn.decomposition.TruncatedSVD"
        )
    return X.astype(dtype).toarray()


def check_outputs(y_hat: HostArray) -> None:
    """Raise ValueError unless all outputs (m, n) are finite: none becomes a class or a value."""
    bad = np.flatnonzero(~np.isfinite(y_hat).all(axis=1))
    if len(bad):
        raise ValueError(
            f"the network's output for row {bad[0]} of X is {y_hat[bad[0]].tolist()} ({len(bad)} "
            "such rows); remove rows whose values are far from those of the training data"
        )


def dense_parts(X: Any, dtype: npt.DTypeLike) -> Iterator[Array]:
    """Yield X as it is; a sparse X as dense arrays of some rows each."""
    if not sp.issparse(X):
        yield X
        return
    for start in range(0, X.shape[0], CHUNK):
        yield X[start : start + CHUNK].astype(dtype).toarray()


def numbered(y: Any) -> bool:
    """Whether y is an array (m,) of whole numbers, which needs no further check."""
    return isinstance(y, np.ndarray) and y.ndim == 1 and y.dtype.kind in "iu"


def accuracy(y: Any, predicted: Any, sample_weight: Any = None) -> float:
    """Return what scikit-learn's accuracy_score returns."""
    plain = sample_weight is None and numbered(y) and numbered(predicted)
    if plain and y.dtype == predicted.dtype and y.shape == predicted.shape and y.size:
        return float(np.mean(y == predicted))
    return float(accuracy_score(y, predicted, sample_weight=sample_weight))
