"""Read .csv and .parquet files: tables of named columns, read by pyarrow in pieces."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.data.columns import Column, TargetColumn, is_text, problem_of
from gpumlp.data.csv_files import CsvFile
from gpumlp.data.dataset import NONE, Raw, listed, unknown_name, unreadable
from gpumlp.data.diagnosis import check_columns, check_target, kind_of
from gpumlp.data.names import chosen_names, find_name, quoted
from gpumlp.data.preparation import Preparation
from gpumlp.data.scratch import Scratch, Store
from gpumlp.errors import needs
from gpumlp.io.types import HostArray

PIECE = 8 << 20  # bytes of a piece of a .parquet file, at 8 for each number
BUFFER = 1 << 20  # bytes of a .parquet file that are read ahead for each column


class Table:
    """The columns of a .csv or .parquet file; it is read to learn from, or for the model `like`.

    The target is read if it is `labelled`. The columns in `categorical` hold categories, whatever
    their values look like.

    Raises:
        ValueError, TypeError: the file is damaged, columns are missing, or a column holds neither
            numbers nor categories.
        ImportError: pyarrow is missing.
    """

    def __init__(
        self, path: Path, target: str | None, like: Preparation | None, labelled: bool,
        categorical: Collection[str] = (),
    ) -> None:  # fmt: skip
        with needs(f"to read .{kind_of(path)} files", "cli"):
            import pyarrow.csv
            import pyarrow.parquet  # noqa: F401
        self._path, self._for_model = path, like is not None
        self._file = (ParquetFile if kind_of(path) == "parquet" else CsvFile)(path)
        names = self._file.names
        features = () if like is None else like.features
        target = target and (find_name(target, names) or target)
        _check_names(path, names, {target, *features})
        if labelled and target is None:
            raise ValueError(
                f"{path}: say which column to predict, --target COLUMN; it has: "
                f"{listed(map(quoted, names))}"
            )
        if labelled and target not in names:
            raise ValueError(unknown_name(path, "column", str(target), names))
        self._features = features or tuple(name for name in names if name != target)
        lacking = [name for name in self._features if name not in names]
        if lacking:
            raise ValueError(
                f"{path} lacks {len(lacking)} of the {len(self._features)} columns that the model "
                f"takes: {listed(map(quoted, lacking))}"
            )
        categorical = chosen_names(categorical, self._features)
        for name in categorical:
            if name not in self._features:
                raise ValueError(unknown_name(path, "feature column", name, self._features))
        self._dtype = _dtype(self._file.kinds, self._features)
        self._target_name = target if labelled else None
        self._categorical, self._known = categorical, NONE if like is None else like.categories
        self._untyped = isinstance(self._file, CsvFile)
        self._text = {*categorical, *self._known, *filter(None, [self._target_name])}

    def pieces(self) -> Iterator[Raw]:
        """Some rows at a time, which are checked with the rows before them as `raw` checks all."""
        for x, y in self._read():
            self._check()
            words = self._target is not None and self._target.has_words and self._target.words
            yield Raw(
                x, self._features, y, tuple(words) if words else None, self._known,
                untyped=self._untyped,
            )  # fmt: skip

    def raw(self, scratch: Scratch) -> Raw:
        """The whole table; `scratch` decides whether x is in memory or in a file."""
        store, y = self._collect(scratch)
        mixed = [c.name for c in (*self._columns, self._target) if c is not None and c.mixed]
        if mixed and isinstance(self._file, CsvFile):  # the blocks of a column differ in type
            self._text.update(mixed)
            store, y = self._collect(scratch)
        self._check()
        target = self._target
        words = tuple(target.words) if target is not None and target.has_words else ()
        categories = {
            c.name: tuple(c.words) for c in self._columns if c.words or c.name in self._known
        }
        return Raw(
            store.rows(), self._features, y, words or None, categories, untyped=self._untyped
        )

    def _collect(self, scratch: Scratch) -> tuple[Store, HostArray | None]:
        store, targets = None, list[tuple[bool, HostArray]]()
        for x, y in self._read():
            if store is None:
                store = scratch.store(self._file.rows(len(x)), x.shape[1], self._dtype)
            store.append(x)
            if y is not None and self._target is not None:
                targets.append((self._target.has_words, y))
        store = store or Store(len(self._features), self._dtype, None)
        return store, self._target.joined(targets) if self._target and targets else None

    def _read(self) -> Iterator[tuple[HostArray, HostArray | None]]:
        """x (m, n) and y (m,) of some rows at a time, not checked."""
        self._columns = [
            Column(name, name in self._categorical, self._known.get(name), self._for_model)
            for name in self._features
        ]
        self._target = (
            None if self._target_name is None else TargetColumn(self._target_name, self._untyped)
        )
        wanted = dict.fromkeys([*self._features, *filter(None, [self._target_name])])
        for table in self._file.pieces(list(wanted), self._text):
            x = np.empty((table.num_rows, len(self._columns)), self._dtype)
            for j, column in enumerate(self._columns):
                x[:, j] = column.values(table.column(column.name))
            target = self._target
            yield x, None if target is None else target.values(table.column(target.name))

    def _check(self) -> None:
        check_columns(self._path, self._columns)
        if self._target is not None:
            check_target(self._path, self._target)


class ParquetFile:
    """A .parquet file as Arrow tables of some rows; as `CsvFile`, with the types of its columns."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        self._path = path
        try:
            # a row group may be the whole file, so its pages are read only when needed
            self._file = pyarrow.parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)
            schema = self._file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise unreadable(path, error) from error
        self.names: list[str] = schema.names
        self.kinds = {field.name: field.type for field in schema}

    def pieces(self, columns: list[str], text: Collection[str]) -> Iterator[Any]:
        """Tables of these columns. `text` is not used, as the file stores its column types."""
        import pyarrow as pa

        rows = max(1, PIECE // (8 * max(1, len(columns))))
        try:
            for batch in self._file.iter_batches(rows, columns=columns):
                yield pa.Table.from_batches([batch]).select(columns)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(self._path, error) from error

    def rows(self, first: int) -> int:
        """The number of rows."""
        return int(self._file.metadata.num_rows)


def _check_names(path: Path, names: list[str], wanted: set[str | None]) -> None:
    if len(names) == 1 and names[0] not in wanted and kind_of(path) == "csv":
        raise ValueError(
            f"{path} has a single column, {names[0]!r}; its columns must be separated by commas, "
            "semicolons, tabs or |, not by spaces or other characters"
        )
    double = sorted({name for name in names if names.count(name) > 1})
    if problem_of(dict.fromkeys(names, 1)).kind == "text":
        raise ValueError(f"{path} has no header: its first line must name the columns")
    if double:
        raise ValueError(f"{path} has several columns of one name: {listed(double)}; rename them")


def _dtype(kinds: dict[str, Any] | None, names: Sequence[str]) -> np.dtype[Any]:
    """float32 if it holds the values of all columns and the positions of words, else float64."""
    import pyarrow as pa

    single = (pa.float32(), pa.float16())
    small = kinds is not None and all(
        kinds[name] in single or is_text(kinds[name]) for name in names
    )
    return np.dtype(np.float32 if small else np.float64)
