"""The .npz and .npy files: arrays without names, never unpickled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.data.raw import LARGEST_INT, HostArray, Raw, first_line, listed, missing
from gpumlp.data.remedies import huge_numbers


def read_npz(path: Path, target: str | None, features: Sequence[str] | None, labelled: bool) -> Raw:
    """The arrays x (or X) and y (or Y) of a .npz file.

    Args:
        path: the file.
        target: another name of y.
        features: names for the columns of x, taken by position; None for x0, x1, …
        labelled: whether y is wanted.

    Raises:
        ValueError, TypeError: the file is damaged, or holds something else.
    """
    arrays = _load(path)
    if not isinstance(arrays, dict):
        raise ValueError(f"{path} holds a single array; name it .npy")
    if "x" not in arrays and "X" not in arrays:
        raise ValueError(f"{path} has no array x or X; it has: {listed(arrays)}")
    x = _matrix(path, arrays["x" if "x" in arrays else "X"], "x")
    key = target or ("Y" if "Y" in arrays and "y" not in arrays else "y")
    if labelled and key not in arrays:
        raise ValueError(missing(path, "array", key, arrays))
    y = arrays[key] if labelled else None
    if y is not None and y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y is not None and (y.ndim not in (1, 2) or len(y) != len(x)):
        raise ValueError(
            f"{path}: {key} has shape {y.shape} and x {x.shape}; pass one target for each row of x"
        )
    return _by_position(path, x, y, features, whole=False)


def read_npy(path: Path, target: str | None, features: Sequence[str] | None, labelled: bool) -> Raw:
    """The table (m, columns) of a .npy file, one of its columns the target.

    Args:
        path: the file.
        target: the column's number; None for the last.
        features: names for the columns of x, taken by position; None for x0, x1, …
        labelled: whether y is wanted.

    Raises:
        ValueError, TypeError: the file is damaged, or holds something else.
    """
    table = _load(path)
    if isinstance(table, dict):
        raise ValueError(f"{path} holds several arrays; name it .npz")
    table = _matrix(path, table, "the table")
    if not labelled and features is not None and table.shape[1] == len(features):
        return _by_position(path, table, None, features, whole=True)
    columns = table.shape[1]
    try:
        index = range(columns)[int(target or -1)]
    except (ValueError, IndexError):
        raise ValueError(
            f"target must be a column's number in {path}, -{columns} to {columns - 1}, "
            f"got {target!r}"
        ) from None
    x = np.delete(table, index, axis=1)
    return _by_position(path, x, table[:, index], features, whole=True)


def _load(path: Path) -> Any:
    """The array of a .npy file, or the arrays of a .npz file, never unpickled."""
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            return dict(content) if isinstance(content, np.lib.npyio.NpzFile) else content
    except Exception as error:  # ValueError, EOFError, BadZipFile, zlib.error, …: all mean this
        reason = (
            "Python objects in it are never loaded" if "pickle" in str(error) else first_line(error)
        )
        raise ValueError(
            f"{path} cannot be read: it is no {path.suffix.lower()} file or not whole ({reason})"
        ) from error


def _matrix(path: Path, x: HostArray, name: str) -> HostArray:
    """The array as float32 or float64 (m, n)."""
    if x.dtype.kind not in "fiub":
        raise TypeError(f"{path}: {name} has dtype {x.dtype}; save real numbers")
    if x.ndim != 2:
        hint = "x.reshape(len(x), -1)" if x.ndim > 2 else "an array of shape (m, n)"
        raise ValueError(f"{path}: {name} has shape {x.shape}, rows were expected; save {hint}")
    if x.dtype.kind in "iu" and x.size:
        huge = (x.max(axis=0) > LARGEST_INT) | (x.min(axis=0) < -LARGEST_INT)
        if huge.any():
            raise ValueError(f"{path}: {huge_numbers(np.flatnonzero(huge), x.shape[1])}")
    return x.astype(np.result_type(x.dtype, np.float32), copy=False)


def _by_position(
    path: Path, x: HostArray, y: HostArray | None, features: Sequence[str] | None, whole: bool
) -> Raw:
    names = tuple(features or (f"x{i}" for i in range(x.shape[1])))
    if x.shape[1] != len(names):
        raise ValueError(
            f"{path} has {x.shape[1]} feature columns but the model takes {len(names)}"
        )
    bad = (~np.isfinite(x)).sum(axis=0)
    if bad.any():
        columns = [f"{j} ({bad[j]})" for j in np.flatnonzero(bad)]
        raise ValueError(
            f"{path}: {len(columns)} of {x.shape[1]} columns have missing or infinite values: "
            f"{listed(columns)}; drop such rows, x[np.isfinite(x).all(axis=1)], or impute them"
        )
    return Raw(x, names, y, whole=whole)
