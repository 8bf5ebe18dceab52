"""X and y as the training package takes them: arrays, data frames and sparse matrices, checked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import validate_data

from gpumlp.arrays import as_backend_array
from gpumlp.backends import Backend, get_backend
from gpumlp.io.types import Array, HostArray
from gpumlp.network import CHUNK

HOST = get_backend("numpy")


@dataclass(frozen=True)
class Examples:
    """Checked examples.

    Attributes:
        x: (m, n_0) in the backend or on the host, of any real dtype.
        y: (m,) or (m, k) as scorers take it, on the host.
        t: what the network is to give: labels (m,), or values (m,) or (m, n_L).
        weights: (m,) float64, or None for all alike.
    """

    x: Array
    y: HostArray
    t: HostArray
    weights: HostArray | None

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: HostArray) -> Examples:
        """Some of them."""
        weights = None if self.weights is None else self.weights[rows]
        return Examples(self.x[rows], self.y[rows], self.t[rows], weights)

    def split(
        self, share: float, seed: int, classes: HostArray | None
    ) -> tuple[Examples, Examples]:
        """The rest and a share of them, drawn at random, with all classes in both if that goes.

        classes: (m,), or None for no such care.
        """
        m, few = len(self), int(np.ceil(share * len(self)))
        if not 2 <= few < m:
            raise ValueError(
                f"validation_fraction={share:g} of {m} examples leaves {few} to validate on; at "
                "least 2 are needed, and 1 to train on: pass another, or X_val and y_val"
            )
        if classes is not None:
            count = np.unique(classes, return_counts=True)[1]
            if count.min() < 2 or min(few, m - few) < len(count):
                classes = None
        kept, held = train_test_split(
            np.arange(m), test_size=few, random_state=seed, stratify=classes
        )
        return self.take(kept), self.take(held)


def supervised(
    e: Any, X: Any, y: Any, backend: Backend, *, reset: bool, numeric: bool
) -> tuple[Any, Any]:
    """(X, y) checked as scikit-learn does: X an array of the backend or the host, or sparse rows.

    reset: note the number and the names of the features, else compare them; numeric: y holds
    numbers.
    """
    X, y = as_backend_array(X, backend, "X"), host(y, "y")
    if not _on_device(X, backend):
        how = {"accept_sparse": "csr", "multi_output": True, "y_numeric": numeric}
        X, y = validate_data(e, X, y, reset=reset, **how)
        return X, y
    validate_data(e, X, reset=reset, skip_check_array=True)
    y = check_array(y, ensure_2d=False, dtype="numeric" if numeric else None, input_name="y")
    check_consistent_length(X, y)
    return X, y


def features(e: Any, X: Any, backend: Backend) -> Any:
    """X to predict from, checked: an array of the backend or the host, or sparse rows."""
    X = as_backend_array(X, backend, "X")
    how = {"skip_check_array": True} if _on_device(X, backend) else {"accept_sparse": "csr"}
    return validate_data(e, X, reset=False, **how)


def host(a: Any, name: str) -> Any:
    """`a` where scikit-learn can look at it."""
    return as_backend_array(a, HOST, name, to_host=True)


def precision_of(X: Any) -> str:
    """scikit-learn's choice: float32 for X of that type, else float64."""
    return "float32" if X.dtype == np.float32 else "float64"


def dense(X: Any, dtype: npt.DTypeLike) -> Array:
    """X, where it is sparse as an array of `dtype`.

    Raises:
        ValueError: that would be larger than the machine's memory.
    """
    if not sp.issparse(X):
        return X
    size, memory = X.shape[0] * X.shape[1] * np.dtype(dtype).itemsize, _memory()
    if size > memory:
        raise ValueError(
            f"X is sparse, and dense it takes {size / 1e9:,.1f} GB of this machine's "
            f"{memory / 1e9:,.1f} GB; call partial_fit with some rows at a time, or reduce the "
            "columns, by sklearn.decomposition.TruncatedSVD say"
        )
    return X.astype(dtype).toarray()


def dense_parts(X: Any, dtype: npt.DTypeLike) -> Iterator[Array]:
    """X as it is, or sparse rows as dense ones, some at a time."""
    if not sp.issparse(X):
        yield X
        return
    for start in range(0, X.shape[0], CHUNK):
        yield X[start : start + CHUNK].astype(dtype).toarray()


def _on_device(X: Any, backend: Backend) -> bool:
    """Whether the backend has it already, where scikit-learn cannot look at it."""
    return backend.owns(X) and not isinstance(X, np.ndarray)


def _memory() -> float:
    """The bytes of the machine's memory, infinite where it does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return float("inf")
