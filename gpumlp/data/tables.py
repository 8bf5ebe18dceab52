"""The .csv and .parquet files: tables of columns with names, read by pyarrow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.data.csv_files import read_csv
from gpumlp.data.raw import LARGEST_INT, HostArray, Raw, first_line, listed, missing
from gpumlp.data.remedies import kind_of, look, oddities, read_call

SEEN = 1000  # rows of a target of words that are looked at for numbers in disguise


def read_table(
    path: Path, target: str | None, features: Sequence[str] | None, labelled: bool
) -> Raw:
    """The columns of a .csv file (see `csv_files`) or a .parquet file.

    Args:
        path: the file.
        target: the column of y.
        features: the columns to take as x, in this order; None for all but the target.
        labelled: whether y is wanted.

    Raises:
        ValueError, TypeError: the file is damaged, or holds something else.
        ImportError: pyarrow is missing.
    """
    table = _arrow_table(path)
    names = table.column_names
    _check_names(path, names, {target, *(features or ())})
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
        raise ImportError(f'to read .{kind_of(path)} files: pip install "gpumlp[cli]"') from error
    try:
        if kind_of(path) == "parquet":
            return pyarrow.parquet.ParquetFile(path).read()
        return read_csv(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} cannot be read: it is no .{kind_of(path)} file or not whole "
            f"({first_line(error)})"
        ) from error


def _check_names(path: Path, names: list[str], wanted: set[str | None]) -> None:
    if len(names) == 1 and names[0] not in wanted and kind_of(path) == "csv":
        raise ValueError(
            f"{path} has a single column, {names[0]!r}; its columns must be apart by commas, "
            "semicolons, tabs or |, not by spaces or other signs"
        )
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
    """The columns as float32 (where all are) or float64 (m, n), or one error for all odd ones."""
    import pyarrow as pa

    kinds = {field.name: field.type for field in table.schema}
    single = all(kind in (pa.float32(), pa.float16()) for kind in kinds.values())
    x = np.empty((table.num_rows, len(kinds)), np.float32 if single else np.float64)
    looks, holes, huge = {}, {}, []
    for j, (name, kind) in enumerate(kinds.items()):
        column = table.column(name)
        empty = column.null_count
        if _is_numeric(kind):
            x[:, j] = column.cast(pa.float64(), safe=False).to_numpy()
            empty = int((~np.isfinite(x[:, j])).sum())
            if pa.types.is_integer(kind) and _is_huge(column):
                huge.append(name)
        elif not pa.types.is_null(kind):
            looks[name] = look(column)
        if empty:
            holes[name] = empty
    if looks or holes or huge:
        raise ValueError(oddities(path, len(kinds), looks, holes, huge))
    return x


def _is_huge(column: Any) -> bool:
    """Whether whole numbers are beyond those that float64 holds."""
    import pyarrow.compute

    low, high = pyarrow.compute.min_max(column).as_py().values()
    return low is not None and not -LARGEST_INT <= low <= high <= LARGEST_INT


def _target_column(path: Path, column: Any, name: str) -> HostArray:
    """The target as numbers, or as an object array of strings."""
    import pyarrow as pa

    if column.null_count:
        raise ValueError(
            f"{path}: the target {name!r} has {column.null_count} missing values; drop such rows, "
            f"{read_call(path)}.dropna(subset=[{name!r}])"
        )
    if _is_numeric(column.type):
        y: HostArray = np.asarray(column.to_numpy())
        return y.astype(np.float64) if y.dtype == object else y  # decimals
    found = look(column.slice(0, SEEN))
    if found.kind in ("decimal", "thousands"):
        remedy = "write 1.5 for 1,5" if found.kind == "decimal" else "write the digits alone"
        raise ValueError(
            f"{path}: the target {name!r} has numbers with separators, as {found.odd[0]}; {remedy}"
        )
    try:
        return np.array(column.cast(pa.string()).to_pylist(), dtype=object)
    except pa.ArrowInvalid:
        raise TypeError(f"{path}: the target {name!r} holds {column.type}, no labels") from None


def _is_numeric(kind: Any) -> bool:
    """Whether an Arrow type converts to a number as it is."""
    import pyarrow.types as t

    return any(test(kind) for test in (t.is_integer, t.is_floating, t.is_boolean, t.is_decimal))
