"""The .npz and .npy files: arrays without names, never unpickled."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpumlp.data.diagnosis import huge_numbers
from gpumlp.data.raw import LARGEST_INT, Raw, first_line, listed, missing
from gpumlp.data.scratch import Matrix, OnDisk, Scratch, Selection
from gpumlp.io.chunks import chunks
from gpumlp.io.types import HostArray

HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(
    path: Path, target: str | None, features: Sequence[str] | None, labelled: bool, scratch: Scratch
) -> Raw:
    """The arrays x (or X) and y (or Y) of a .npz file.

    Args:
        path: the file.
        target: another name of y.
        features: names for the columns of x, taken by position; None for x0, x1, …
        labelled: whether y is wanted.
        scratch: where x is unpacked to if it is large.

    Raises:
        ValueError, TypeError: the file is damaged, or holds something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if "x" not in names and "X" not in names:
                raise LookupError(f"{path} has no array x or X; it has: {listed(names)}")
            key = target or ("Y" if "Y" in names and "y" not in names else "y")
            if labelled and key not in names:
                raise LookupError(missing(path, "array", key, names))
            x: Any = _member(archive, "x" if "x" in names else "X", scratch)
            y: Any = _member(archive, key, Scratch(stream=False)) if labelled else None
    except LookupError as error:
        raise ValueError(error.args[0]) from None
    except OSError:
        raise
    except Exception as error:  # BadZipFile, zlib.error, ValueError, EOFError, …: all mean this
        raise _unreadable(path, error) from error
    _check_rows(path, x, "x")
    if y is not None and y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y is not None and (y.ndim not in (1, 2) or len(y) != len(x)):
        raise ValueError(
            f"{path}: {key} has shape {y.shape} and x {x.shape}; pass one target for each row of x"
        )
    return _by_position(path, x, np.arange(x.shape[1]), y, features, whole=False)


def read_npy(
    path: Path, target: str | None, features: Sequence[str] | None, labelled: bool, scratch: Scratch
) -> Raw:
    """The table (m, columns) of a .npy file, one of its columns the target.

    Args:
        path: the file.
        target: the column's number; None for the last.
        features: names for the columns of x, taken by position; None for x0, x1, …
        labelled: whether y is wanted.
        scratch: whether a file of its size is read piece by piece.

    Raises:
        ValueError, TypeError: the file is damaged, or holds something else.
    """
    try:
        if scratch.on_disk(path.stat().st_size):
            table: Any = _opened(path.open("rb"))
        else:
            with path.open("rb") as file:
                table = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # ValueError, EOFError, …: all mean this
        raise _unreadable(path, error) from error
    _check_rows(path, table, "the table")
    columns = table.shape[1]
    if not labelled and features is not None and columns == len(features):
        return _by_position(path, table, np.arange(columns), None, features, whole=True)
    try:
        index = range(columns)[int(target or -1)]
    except (ValueError, IndexError):
        raise ValueError(
            f"target must be a column's number in {path}, -{columns} to {columns - 1}, "
            f"got {target!r}"
        ) from None
    kind = np.result_type(table.dtype, np.float32)
    # copies: views would hold what was read
    parts = [table[rows][:, index].astype(kind) for rows in chunks(table)]
    y = np.concatenate(parts or [np.empty(0, kind)])
    keep = np.delete(np.arange(columns), index)
    return _by_position(path, table, keep, y, features, whole=True)


# ---- opening -------------------------------------------------------------------------------------


def _member(archive: zipfile.ZipFile, name: str, scratch: Scratch) -> Any:
    """An array of the archive; a large one is unpacked into a file."""
    info = archive.getinfo(f"{name}.npy" if f"{name}.npy" in archive.namelist() else name)
    with archive.open(info) as packed:
        if not scratch.on_disk(info.file_size):
            return np.lib.format.read_array(packed, allow_pickle=False)
        file = scratch.file(info.file_size)
        shutil.copyfileobj(packed, file, 1 << 20)
    return _opened(file)


def _opened(file: BinaryIO) -> Matrix:
    """The array of an open .npy file, left where it is; closed with its last user.

    Raises:
        ValueError: it is none, or not whole.
    """
    try:
        file.seek(0)
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise ValueError(f"version {version} of the format")
        shape, columns_first, dtype = HEADERS[version](file)
        offset, size = file.tell(), file.seek(0, 2)
        if dtype.hasobject:
            raise ValueError("pickle")
        if size < offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
            raise ValueError("it ends before its array does")
        if len(shape) != 2:  # which is told by who looks at it
            order: Any = "F" if columns_first else "C"
            mapped = np.memmap(file, dtype, "r", offset, shape, order=order)
            file.close()
            return mapped
    except BaseException:
        file.close()
        raise
    return OnDisk(file, shape, dtype, offset, columns_first)


def _unreadable(path: Path, error: BaseException) -> ValueError:
    reason = "Python objects in it are never loaded" if _pickled(error) else first_line(error)
    return ValueError(
        f"{path} cannot be read: it is no {path.suffix.lower()} file or not whole ({reason})"
    )


def _pickled(error: BaseException) -> bool:
    return "pickle" in str(error) or "Object arrays" in str(error)


# ---- checking ------------------------------------------------------------------------------------


def _check_rows(path: Path, x: Matrix, name: str) -> None:
    """Raise unless it is a matrix of real numbers."""
    if x.dtype.kind not in "fiub":
        raise TypeError(f"{path}: {name} has dtype {x.dtype}; save real numbers")
    if x.ndim != 2:
        hint = "x.reshape(len(x), -1)" if x.ndim > 2 else "an array of shape (m, n)"
        raise ValueError(f"{path}: {name} has shape {x.shape}, rows were expected; save {hint}")


def _by_position(
    path: Path, source: Matrix, keep: HostArray, y: HostArray | None,
    features: Sequence[str] | None, whole: bool,
) -> Raw:  # fmt: skip
    """The columns `keep` of the source as float32 or float64, left on the disk if it is there."""
    names = tuple(features or (f"x{i}" for i in range(len(keep))))
    if len(keep) != len(names):
        raise ValueError(f"{path} has {len(keep)} feature columns but the model takes {len(names)}")
    x: Matrix = Selection(source, keep, np.result_type(source.dtype, np.float32))
    _check_values(path, source, keep, features is None)
    if isinstance(source, np.ndarray):
        x = x[:]
    return Raw(x, names, y, whole=whole)


def _check_values(path: Path, x: Matrix, keep: HostArray, learn: bool) -> None:
    """Raise where values are infinite, whole numbers beyond float64's, or columns to `learn` from
    empty.
    """
    endless, empty = np.zeros(len(keep), np.int64), np.ones(len(keep), bool)
    huge = np.zeros(len(keep), bool)
    for rows in chunks(x):
        part = x[rows][:, keep]
        if part.dtype.kind == "f":
            endless += np.isinf(part).sum(axis=0)
            empty &= np.isnan(part).all(axis=0)
        elif part.size and part.dtype.kind in "iu":
            huge |= (part.max(axis=0) > LARGEST_INT) | (part.min(axis=0) < -LARGEST_INT)
    if huge.any():
        raise ValueError(f"{path}: {huge_numbers(keep[huge], len(keep))}")
    if endless.any():
        columns = [f"{keep[j]} ({endless[j]})" for j in np.flatnonzero(endless)]
        raise ValueError(
            f"{path}: {len(columns)} of {len(keep)} columns have infinite values: "
            f"{listed(columns)}; drop such rows, x[~np.isinf(x).any(axis=1)], or make them NaN to "
            "have them filled"
        )
    if learn and len(x) and x.dtype.kind == "f" and empty.any():
        raise ValueError(
            f"{path}: {empty.sum()} of {len(keep)} columns have no values: "
            f"{listed(keep[empty])}; leave them out"
        )
