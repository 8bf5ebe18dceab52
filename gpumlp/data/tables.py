"""Read .csv and .parquet files: tables of named columns, read by pyarrow in pieces."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.data.columns import Column, TargetColumn, is_text
from gpumlp.data.csv_files import CsvFile
from gpumlp.data.diagnosis import check_columns, check_target, kind_of
from gpumlp.data.parquet_files import ParquetFile
from gpumlp.data.raw import NONE, Categories, Raw, listed, unknown_name
from gpumlp.data.scratch import Scratch, Store
from gpumlp.io.types import HostArray

Piece = tuple[HostArray, HostArray | None]


class Table:
    """The columns of a .csv or .parquet file.

    Args:
        path: the file.
        target: the column of y.
        features: the columns of x, in this order, for a model; None for all but the target.
        labelled: whether y is wanted.
        categorical: columns that hold categories, whatever their values look like.
        categories: the categories that a model knows, if the table is read for a model.

    Raises:
        ValueError, TypeError: the file is damaged, or columns are missing.
        ImportError: pyarrow is missing.
    """

    def __init__(
        self, path: Path, target: str | None, features: Sequence[str] | None, labelled: bool,
        categorical: Collection[str] = (), categories: Categories = NONE,
    ) -> None:  # fmt: skip
        _require_pyarrow(path)
        self.path = path
        self._file = (ParquetFile if kind_of(path) == "parquet" else CsvFile)(path)
        names = self._file.names
        _check_names(path, names, {target, *(features or ())})
        if labelled and target is None:
            raise ValueError(
                f"{path}: say which column to predict, --target COLUMN; it has: {listed(names)}"
            )
        if labelled and target not in names:
            raise ValueError(unknown_name(path, "column", str(target), names))
        self.features = tuple(features or (name for name in names if name != target))
        lacking = [name for name in self.features if name not in names]
        if lacking:
            raise ValueError(
                f"{path} lacks {len(lacking)} of the {len(self.features)} columns that the model "
                f"takes: {listed(lacking)}"
            )
        for name in categorical:
            if name not in self.features:
                raise ValueError(unknown_name(path, "feature column", name, self.features))
        self.dtype = _dtype(self._file.kinds, self.features)
        self._target = target if labelled else None
        self._settings = set(categorical), categories, features is not None
        self._text = {*categorical, *categories}
        self._reset()

    def pieces(self) -> Iterator[Piece]:
        """x (m, n) and y (m,) of some rows at a time, checked, for a model that is trained.

        Raises:
            ValueError, TypeError: as `raw`, for the rows so far.
        """
        for x, y in self._read():
            self._check()
            yield x, y

    def raw(self, scratch: Scratch) -> Raw:
        """The whole table; `scratch` decides whether x is in memory or in a file.

        Raises:
            ValueError, TypeError: a column holds neither numbers nor categories.
        """
        x, y = self._collect(scratch)
        mixed = [c.name for c in (*self.columns, self.target) if c is not None and c.mixed]
        if mixed and isinstance(self._file, CsvFile):  # the blocks of a column differ in type
            self._text.update(mixed)
            self._reset()
            x, y = self._collect(scratch)
        self._check()
        words = self.target and tuple(self.target.words)
        known = self._settings[1]
        categories = {c.name: tuple(c.words) for c in self.columns if c.words or c.name in known}
        return Raw(x.rows(), self.features, y, words or None, categories)

    def _reset(self) -> None:
        """Begin with columns of which nothing has been read."""
        categorical, categories, for_model = self._settings
        self.columns = [
            Column(name, name in categorical, categories.get(name), for_model)
            for name in self.features
        ]
        self.target = None if self._target is None else TargetColumn(self._target)

    def _collect(self, scratch: Scratch) -> tuple[Store, HostArray | None]:
        store, targets = None, list[HostArray]()
        for x, y in self._read():
            if store is None:
                store = scratch.store(self._file.rows(len(x)), x.shape[1], self.dtype)
            store.append(x)
            if y is not None:
                targets.append(y)
        store = store or Store(len(self.features), self.dtype, None)
        return store, np.concatenate(targets) if targets else None

    def _read(self) -> Iterator[Piece]:
        """The pieces, not checked."""
        wanted = list(dict.fromkeys([*self.features, *([self._target] if self._target else [])]))
        for table in self._file.pieces(wanted, self._text):
            x = np.empty((table.num_rows, len(self.columns)), self.dtype)
            for j, column in enumerate(self.columns):
                x[:, j] = column.values(table.column(column.name))
            y = None
            if self.target is not None:
                y = self.target.values(table.column(self.target.name))
            yield x, y

    def _check(self) -> None:
        """Raise if what was read cannot be used."""
        check_columns(self.path, self.columns)
        if self.target is not None:
            check_target(self.path, self.target)


def _require_pyarrow(path: Path) -> None:
    try:
        import pyarrow.csv
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ImportError(f'to read .{kind_of(path)} files: pip install "gpumlp[cli]"') from error


def _check_names(path: Path, names: list[str], wanted: set[str | None]) -> None:
    if len(names) == 1 and names[0] not in wanted and kind_of(path) == "csv":
        raise ValueError(
            f"{path} has a single column, {names[0]!r}; its columns must be separated by commas, "
            "semicolons, tabs or |, not by spaces or other characters"
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


def _dtype(kinds: dict[str, Any] | None, names: Sequence[str]) -> np.dtype[Any]:
    """float32 if it holds the values of all columns and the positions of words, else float64."""
    import pyarrow as pa

    def single(kind: Any) -> bool:
        return kind in (pa.float32(), pa.float16()) or is_text(kind)

    small = kinds is not None and all(single(kinds[name]) for name in names)
    return np.dtype(np.float32 if small else np.float64)
