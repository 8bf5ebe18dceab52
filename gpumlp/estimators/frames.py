"""Columns of data frames and of arrays: read, and replaced by numbers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp

from gpumlp.arrays import as_backend_array
from gpumlp.backends import get_backend
from gpumlp.io.types import HostArray

HOST = get_backend("numpy")
WORDS = "category", "categorical", "dictionary", "enum", "large_string", "string", "utf8"  # dtypes
LEAST = {"f": np.float32, "i": np.int32, "u": np.int32, "b": np.int32}  # that hold all codes


def is_frame(X: Any) -> bool:
    """Whether X is a data frame of pandas, polars or Arrow, or one like these."""
    return any(hasattr(X, name) for name in ("isetitem", "with_columns", "set_column"))


def names(X: Any) -> list[Any]:
    """The names of a data frame's columns; none of an array."""
    if not is_frame(X):
        return []
    return [*(X.column_names if hasattr(X, "set_column") else X.columns)]


def on_host(X: Any) -> Any:
    """X as a data frame, an array, or a sparse matrix, on the host."""
    if is_frame(X) or sp.issparse(X):
        return X
    listed = isinstance(X, (list, tuple))
    return np.asarray(as_backend_array(X, HOST, "X", to_host=True), object if listed else None)


def column(X: Any, j: int) -> HostArray:
    """Column j (m,) as an array on the host."""
    return np.asarray(_column(X, j))


def holds_words(X: Any, j: int) -> bool:
    """Whether column j has texts, or the dtype of categories."""
    kind = str(_column(X, j).dtype if not hasattr(X, "set_column") else X.column(j).type).lower()
    if is_frame(X) and (kind.startswith(WORDS) or kind == "str"):
        return True
    texts = kind == "object" or (not is_frame(X) and X.dtype.kind in "US")
    return texts and any(isinstance(value, (str, bytes)) for value in column(X, j).tolist())


def words(X: Any) -> list[str]:
    """The names of a data frame's columns that hold words."""
    return [str(name) for j, name in enumerate(names(X)) if holds_words(X, j)]


def replaced(X: Any, columns: Mapping[int, HostArray]) -> Any:
    """A copy of X, a data frame of its kind or an array, with these columns in place of its own."""
    if isinstance(X, np.ndarray):
        least = LEAST.get(X.dtype.kind)
        X = np.array(X, object if least is None else np.promote_types(X.dtype, least))
        for j, values in columns.items():
            X[:, j] = values
    elif hasattr(X, "with_columns"):
        X = X.with_columns(type(X[:, j])(X.columns[j], each) for j, each in columns.items())
    elif hasattr(X, "set_column"):
        for j, values in columns.items():
            X = X.set_column(j, X.column_names[j], sys.modules["pyarrow"].array(values))
    else:
        X = X.copy(deep=False)
        for j, values in columns.items():
            X.isetitem(j, values)
    return X


def _column(X: Any, j: int) -> Any:
    if hasattr(X, "set_column"):
        return X.column(j)
    return X.iloc[:, j] if hasattr(X, "iloc") else X[:, j]
