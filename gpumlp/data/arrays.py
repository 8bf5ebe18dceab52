"""Read .npz and .npy files: arrays without column names. Pickled objects are never loaded."""

from __future__ import annotations

import shutil
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpumlp.data.columns import FEWEST_ROWS
from gpumlp.data.dataset import LARGEST_INT, Raw, listed, unknown_name, unreadable
from gpumlp.data.scratch import FileMatrix, Matrix, Scratch, SelectedMatrix
from gpumlp.io.chunks import chunks
from gpumlp.io.types import HostArray

HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(
    path: Path, target: str | None, features: Sequence[str] | None, labelled: bool, scratch: Scratch
) -> Raw:
    """Read the arrays x (or X) and y (or Y) of a .npz file; a `target` is another name for y.

    x's columns are called `features`, or x0, x1, … The target is read if it is `labelled`;
    `scratch` decides whether x is in memory or in a file. Raises ValueError or TypeError if the
    file is damaged, or its arrays cannot be used.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if "x" not in names and "X" not in names:
                raise LookupError(f"{path} has no array x or X; it has: {listed(names)}")
            key = target or ("Y" if "Y" in names and "y" not in names else "y")
            if labelled and key not in names:
                raise LookupError(unknown_name(path, "array", key, names))
            of_x = "x" if "x" in names else "X"
            if labelled and key == of_x:
                raise LookupError(
                    f"{path}: {key} holds the features and is no target; it has: {listed(names)}"
                )
            x: Any = _member(archive, of_x, scratch)
            y: Any = _member(archive, key, Scratch(stream=False)) if labelled else None
    except LookupError as error:
        raise ValueError(error.args[0]) from None
    except OSError:
        raise
    except Exception as error:  # BadZipFile, zlib.error, ValueError, EOFError, … for a damaged file
        raise unreadable(path, error) from error
    _check_rows(path, x, "x")
    if y is not None and y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y is not None and (y.ndim not in (1, 2) or len(y) != len(x)):
        raise ValueError(
            f"{path}: {key} has shape {y.shape} and x {x.shape}; pass one target for each row of x"
        )
    return _by_position(path, x, np.arange(x.shape[1]), y, features)


def read_npy(
    path: Path, target: str | None, features: Sequence[str] | None, labelled: bool, scratch: Scratch
) -> Raw:
    """Read a .npy file like `read_npz`: a table, of which the target is a column, or the last."""
    try:
        if scratch.on_disk(path.stat().st_size):
            table: Any = _open(path.open("rb"))
        else:
            with path.open("rb") as file:
                table = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # ValueError, EOFError, … for a damaged file
        raise unreadable(path, error) from error
    _check_rows(path, table, "the table")
    columns = table.shape[1]
    if not labelled and features is not None and columns == len(features):
        return _by_position(path, table, np.arange(columns), None, features)
    try:
        index = range(columns)[int(target or -1)]
    except (ValueError, IndexError):
        raise ValueError(
            f"target must be the number of a column of {path}, -{columns} to {columns - 1}, "
            f"got {target!r}"
        ) from None
    kind = np.result_type(table.dtype, np.float32)
    # copies, as views would keep the whole pieces in memory
    parts = [table[rows][:, index].astype(kind) for rows in chunks(table)]
    y = np.concatenate(parts or [np.empty(0, kind)])
    others = np.delete(np.arange(columns), index)
    return _by_position(path, table, others, y, features)


# ---- opening -------------------------------------------------------------------------------------


def _member(archive: zipfile.ZipFile, name: str, scratch: Scratch) -> Any:
    """An array of the archive. A large one is unpacked into a temporary file."""
    info = archive.getinfo(f"{name}.npy" if f"{name}.npy" in archive.namelist() else name)
    with archive.open(info) as packed:
        if not scratch.on_disk(info.file_size):
            return np.lib.format.read_array(packed, allow_pickle=False)
        file = scratch.file(info.file_size)
        shutil.copyfileobj(packed, file, 1 << 20)
    return _open(file)


def _open(file: BinaryIO) -> Matrix:
    """The array of an open .npy file, which stays on disk; ValueError if it is not complete."""
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
        if len(shape) != 2:  # the caller reports the shape
            file.close()
            return np.broadcast_to(np.zeros((), dtype), shape)
    except BaseException:
        file.close()
        raise
    return FileMatrix(file, shape, dtype, offset, columns_first)


# ---- checking ------------------------------------------------------------------------------------


def _check_rows(path: Path, x: Matrix, name: str) -> None:
    if x.dtype.kind not in "fiub":
        raise TypeError(f"{path}: {name} has dtype {x.dtype}; save real numbers")
    if x.ndim != 2:
        hint = "x.reshape(len(x), -1)" if x.ndim > 2 else "an array of shape (m, n)"
        raise ValueError(f"{path}: {name} has shape {x.shape}, rows were expected; save {hint}")


def _by_position(
    path: Path, source: Matrix, columns: HostArray, y: HostArray | None,
    features: Sequence[str] | None,
) -> Raw:  # fmt: skip
    """These columns of the source as float32 or float64; what is on disk stays there."""
    names = tuple(features or (f"x{i}" for i in range(len(columns))))
    if len(columns) != len(names):
        raise ValueError(
            f"{path} has {len(columns)} feature columns but the model takes {len(names)}"
        )
    x: Matrix = SelectedMatrix(source, columns, np.result_type(source.dtype, np.float32))
    _check_values(path, source, columns, features is None)
    if isinstance(source, np.ndarray):
        x = x[:]
    if y is None or y.dtype.kind not in "US" or y.ndim != 1:
        return Raw(x, names, y)
    try:
        texts = np.char.decode(y, "utf-8") if y.dtype.kind == "S" else y
    except UnicodeDecodeError:
        raise ValueError(f"{path}: y has bytes that are not UTF-8; store texts") from None
    words, y = np.unique(np.char.strip(texts), return_inverse=True)
    return Raw(x, names, y, tuple(words.tolist()), unlabelled=np.asarray(words == "")[y])


def _check_values(path: Path, x: Matrix, columns: HostArray, learn: bool) -> None:
    """Raise if these columns of x hold infinite or huge numbers, or, to `learn` from, no value."""
    n = len(columns)
    infinite, empty, huge = np.zeros(n, np.int64), np.ones(n, bool), np.zeros(n, bool)
    for rows in chunks(x):
        part = x[rows][:, columns]
        if part.dtype.kind == "f":
            infinite += np.isinf(part).sum(axis=0)
            empty &= np.isnan(part).all(axis=0)
        elif part.size and part.dtype.kind in "iu":
            huge |= (part.max(axis=0) > LARGEST_INT) | (part.min(axis=0) < -LARGEST_INT)
    if huge.any():
        names = columns[huge].tolist()
        raise ValueError(
            f"{path}: {len(names)} of {n} feature columns have whole numbers beyond 2**53, which "
            f"would lose digits: {listed(names)}: leave out identifiers, "
            f"x = numpy.delete(x, {names}, axis=1), or subtract an offset"
        )
    if infinite.any():
        counts = [f"{columns[j]} ({infinite[j]})" for j in np.flatnonzero(infinite)]
        raise ValueError(
            f"{path}: {len(counts)} of {n} columns have infinite values: {listed(counts)}; drop "
            "those rows, x[~np.isinf(x).any(axis=1)], or replace the values by NaN to have them "
            "filled"
        )
    if learn and len(x) and x.dtype.kind == "f" and empty.any():
        raise ValueError(
            f"{path}: {empty.sum()} of {n} columns have no values: "
            f"{listed(columns[empty])}; leave them out"
        )
    if learn and (names := _counting(x, columns)):
        warnings.warn(
            f"{path}: the numbers of columns {names} count the rows; if they name the rows, leave "
            f"them out, x = numpy.delete(x, {names}, axis=1)",
            stacklevel=2,
        )


def _counting(x: Matrix, columns: HostArray) -> list[int]:
    """Those of the columns of x that are 0, 1, 2, … or 1, 2, 3, …, in any order."""
    some = np.sort(x[: min(FEWEST_ROWS, len(x))][:, columns], axis=0)
    if len(some) < FEWEST_ROWS:
        return []
    whole = (some[1:] > some[:-1]) & (some[1:] == np.floor(some[1:]))
    likely = columns[whole.all(axis=0) & (some[0] >= 0) & (some[-1] <= len(x))]
    values = [np.sort(np.concatenate([x[i][:, j] for i in chunks(x)])) for j in likely.tolist()]
    return [
        j
        for j, each in zip(likely.tolist(), values, strict=True)
        if each[0] in (0, 1) and (np.diff(each) == 1).all()
    ]
