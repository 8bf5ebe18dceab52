"""Files of numbers: .csv, .parquet, .npz and .npy, read into one shape, or refused in one line."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

HostArray = npt.NDArray[Any]

SUFFIXES = (".csv", ".parquet", ".npz", ".npy")


class Raw(NamedTuple):
    """What a source holds, as it is.

    Attributes:
        x: (m, n), float32 or float64, finite.
        features: the columns' names, n of them.
        y: (m,) of any dtype, or (m, k) numbers; None where no target was asked for.
        standardize: whether the features differ in unit, so that training should standardise them.
        whole: the file has one dtype for all columns, so that labels may come as 1.0, 2.0, …
    """

    x: HostArray
    features: tuple[str, ...]
    y: HostArray | None
    standardize: bool = True
    whole: bool = False


def read(path: Path, target: str | None, features: Sequence[str] | None, labelled: bool) -> Raw:
    """The numbers of a file.

    Args:
        path: its suffix, one of `SUFFIXES`, says the format.
        target: the column (or .npz array) to predict.
        features: the columns to take as x, in this order; None for all but the target.  Arrays
            have no names: theirs are taken by position.
        labelled: whether the target is wanted.

    Raises:
        ValueError, TypeError: the file is damaged, or not a table of numbers.
        ImportError: pyarrow is missing.
    """
    if path.suffix == ".npz":
        return _read_npz(path, target, features, labelled)
    if path.suffix == ".npy":
        return _read_npy(path, target, features, labelled)
    return _read_arrow(path, target, features, labelled)


# ---- arrays --------------------------------------------------------------------------------------


def _load(path: Path) -> Any:
    """The array of a .npy file, or the arrays of a .npz file, never unpickled."""
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            return dict(content) if isinstance(content, np.lib.npyio.NpzFile) else content
    except Exception as error:  # ValueError, EOFError, BadZipFile, zlib.error, …: all mean this
        reason = "Python objects in it are never loaded" if "pickle" in str(error) else str(error)
        raise ValueError(
            f"{path} cannot be read: it is no {path.suffix} file or not whole ({reason})"
        ) from error


def _read_npz(
    path: Path, target: str | None, features: Sequence[str] | None, labelled: bool
) -> Raw:
    arrays = _load(path)
    if not isinstance(arrays, dict):
        raise ValueError(f"{path} holds a single array; name it .npy")
    x = arrays.get("x", arrays.get("X"))
    if x is None:
        raise ValueError(f"{path} has no array x or X; it has: {listed(arrays)}")
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
    x = _matrix(path, x, "x")
    return _by_position(path, x, y, features, whole=False)


def _read_npy(
    path: Path, target: str | None, features: Sequence[str] | None, labelled: bool
) -> Raw:
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


def _matrix(path: Path, x: HostArray, name: str) -> HostArray:
    """x as float32 or float64 (m, n)."""
    if x.dtype.kind not in "fiub":
        raise TypeError(f"{path}: {name} has dtype {x.dtype}; save real numbers")
    if x.ndim != 2:
        hint = "x.reshape(len(x), -1)" if x.ndim > 2 else "an array of shape (m, n)"
        raise ValueError(f"{path}: {name} has shape {x.shape}, rows were expected; save {hint}")
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


# ---- tables with names -----------------------------------------------------------------------------


def _read_arrow(
    path: Path, target: str | None, features: Sequence[str] | None, labelled: bool
) -> Raw:
    table = _arrow_table(path)
    names = table.column_names
    _check_names(path, names)
    if labelled and target is None:
        raise ValueError(
            f"{path}: say which column to predict, --target COLUMN; it has: {listed(names)}"
        )
    if labelled and target not in names:
        raise ValueError(missing(path, "column", str(target), names))
    chosen = list(features or (name for name in names if name != target))
    lacking = [name for name in chosen if name not in names]
    if lacking:
        raise ValueError(
            f"{path} lacks {len(lacking)} of the {len(chosen)} columns that the model takes: "
            f"{listed(lacking)}"
        )
    x = _numbers(path, table.select(chosen))
    y = _target_column(path, table.column(target), str(target)) if labelled else None
    return Raw(x, tuple(chosen), y)


def _arrow_table(path: Path) -> Any:
    try:
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f'to read {path.suffix} files: pip install "gpumlp[cli]"') from error
    try:
        if path.suffix == ".parquet":
            return pyarrow.parquet.ParquetFile(path).read()
        with path.open("rb") as file:
            header = file.readline()
        return pyarrow.csv.read_csv(
            path,
            # types are inferred from the first block: let it be the whole file where it can
            pyarrow.csv.ReadOptions(block_size=min(path.stat().st_size + (1 << 20), 2**31 - 1)),
            pyarrow.csv.ParseOptions(delimiter=max(",;\t", key=lambda c: header.count(c.encode()))),
            pyarrow.csv.ConvertOptions(strings_can_be_null=True),
        )
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} cannot be read: it is no {path.suffix} file or not whole ({reason})"
        ) from error


def _check_names(path: Path, names: list[str]) -> None:
    double = sorted({name for name in names if names.count(name) > 1})
    if all(_is_number(name) for name in names):
        raise ValueError(f"{path} has no header: its first line must name the columns")
    if double:
        raise ValueError(f"{path} has several columns of one name: {listed(double)}; rename them")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(path: Path, table: Any) -> HostArray:
    """The columns as float32 (where all are) or float64 (m, n), or one error for all that is odd."""
    import pyarrow as pa

    kinds = {field.name: field.type for field in table.schema}
    single = all(kind in (pa.float32(), pa.float16()) for kind in kinds.values())
    x = np.empty((table.num_rows, len(kinds)), np.float32 if single else np.float64)
    words, holes = [], []
    for j, (name, kind) in enumerate(kinds.items()):
        column = table.column(name)
        empty = column.null_count
        if is_numeric(kind):
            x[:, j] = column.cast(pa.float64(), safe=False).to_numpy()
            empty = int((~np.isfinite(x[:, j])).sum())
        elif not pa.types.is_null(kind):
            words.append(name)
        if empty:
            holes.append(f"{name} ({empty})")
    if words or holes:
        raise ValueError("; ".join(_oddities(path, words, holes, len(kinds))))
    return x


def _oddities(path: Path, words: list[str], holes: list[str], columns: int) -> list[str]:
    """What is wrong with the columns, and a line of pandas that mends it."""
    kind, lines = path.suffix[1:], [f"{path} is no table of numbers"]
    read, write = f'pandas.read_{kind}("{path}")', f'.to_{kind}("new.{kind}", index=False)'
    if words:
        example = words if len(words) <= 8 else [*words[:8], "…"]
        lines.append(
            f"{len(words)} of {columns} feature columns hold words or dates: {listed(words)}: "
            f"encode them one-hot, pandas.get_dummies({read}, columns={example}, dtype=float)"
            f"{write}"
        )
    if holes:
        lines.append(
            f"{len(holes)} of {columns} feature columns have missing or infinite values: "
            f"{listed(holes)}: drop such rows, {read}.dropna(){write}, or impute them, "
            ".fillna(table.median(numeric_only=True))"
        )
    return lines


def _target_column(path: Path, column: Any, name: str) -> HostArray:
    """The target as numbers, or as an object array of strings."""
    import pyarrow as pa

    if column.null_count:
        raise ValueError(
            f"{path}: the target {name!r} has {column.null_count} missing values; drop such rows, "
            f"pandas.read_{path.suffix[1:]}(…).dropna(subset=[{name!r}])"
        )
    if is_numeric(column.type):
        y: HostArray = np.asarray(column.to_numpy())
        return y.astype(np.float64) if y.dtype == object else y  # decimals
    try:
        return np.array(column.cast(pa.string()).to_pylist(), dtype=object)
    except pa.ArrowInvalid:
        raise TypeError(f"{path}: the target {name!r} holds {column.type}, no labels") from None


def is_numeric(kind: Any) -> bool:
    """Whether an Arrow type converts to a number as it is."""
    import pyarrow.types as t

    return any(test(kind) for test in (t.is_integer, t.is_floating, t.is_boolean, t.is_decimal))


# ---- words of messages ---------------------------------------------------------------------------


def listed(names: Any, most: int = 8) -> str:
    """The first names, and how many more there are."""
    names = [str(name) for name in names]
    rest = f", … ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + rest if names else "none"


def missing(path: Path, what: str, name: str, names: Any) -> str:
    """ "FILE has no column 'prise'; did you mean 'price'? It has: …" """
    close = difflib.get_close_matches(name, [str(n) for n in names], n=2)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{path} has no {what} {name!r}; {hint}it has: {listed(names)}"
