"""Tables of named columns, read from .csv and .parquet files by pyarrow in pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Generator, Iterator
from contextlib import closing
from typing import NamedTuple

import numpy as np

from gpumlp.data.arrow import float_for
from gpumlp.data.columns import Column
from gpumlp.data.dataset import NONE, Raw, listed, unknown_name
from gpumlp.data.date_texts import DOTTED_AS
from gpumlp.data.diagnosis import (
    check_columns,
    check_target,
    warn_of_codes,
    warn_of_other_kinds,
)
from gpumlp.data.identifiers import reason_to_leave_out
from gpumlp.data.joined_files import JoinedFiles
from gpumlp.data.measures import Format
from gpumlp.data.names import chosen_names, quoted
from gpumlp.data.numbers import PLAIN, NumberFormat
from gpumlp.data.preparation import Preparation
from gpumlp.data.scratch import Matrix, Scratch, SelectedMatrix, Store
from gpumlp.data.sources import Files
from gpumlp.data.target_column import TargetColumn
from gpumlp.errors import needs
from gpumlp.io.signals import deferred
from gpumlp.io.types import HostArray


class Choice(NamedTuple):
    """What the user wants of a table.

    Attributes:
        categorical: columns that hold categories, whatever their values look like.
        drop: columns to leave out.
        keep: columns to keep even if they look like row numbers or identifiers.
        embed: columns of categories that become codes; they are kept, too.
        drop_missing_target: whether rows without a target are left out, and not an error.
        task: the task; None if the target decides.
        date_order: how ambiguous dates are read, one of `dates.ORDERS`.
    """

    categorical: Collection[str] = ()
    drop: Collection[str] = ()
    keep: Collection[str] = ()
    drop_missing_target: bool = False
    task: str | None = None
    date_order: str | None = None
    embed: Collection[str] = ()


EVERYTHING = Choice()
FEW_NAMES = 3  # a first line 0,1,2 may be data; a longer one has the names that pandas gives


class Table:
    """The columns of .csv or .parquet files; it is read to learn from, or for the model `like`.

    The target is read if it is `labelled`.

    Raises:
        ValueError, TypeError: the file is damaged, columns are missing, or a column holds neither
            numbers nor categories.
        ImportError: pyarrow is missing.
    """

    def __init__(
        self, path: Files, target: str | None, like: Preparation | None, labelled: bool,
        choice: Choice = EVERYTHING,
    ) -> None:  # fmt: skip
        with needs(f"to read .{path.kind} files", "cli"), deferred():
            import pyarrow as pa
            import pyarrow.csv
            import pyarrow.parquet

            pa.array([0])  # it imports pandas, where KeyboardInterrupt is lost or breaks the import
        self._path, self._like = path, like
        self._file = JoinedFiles(path, () if like is None else like.features)
        names, known = self._file.names, {*self._file.names}
        features = () if like is None else like.features
        if target and len(named := chosen_names([target], names)) == 1:
            [target] = named
        _check_names(path, names, {target, *features})
        if labelled and target is None:
            raise ValueError(
                f"{path}: say which column to predict, --target COLUMN; it has: "
                f"{listed(map(quoted, names))}"
            )
        if labelled and target not in names:
            raise ValueError(unknown_name(path, "column", str(target), names))
        others = tuple(name for name in names if name != target)
        choice = choice._replace(
            categorical=chosen_names(choice.categorical, others),
            drop=chosen_names(choice.drop, others),
            keep=(*chosen_names(choice.keep, others), *chosen_names(choice.embed, others)),
        )  # fmt: skip
        for name in (*choice.categorical, *choice.drop, *choice.keep):
            if name not in known or name == target:
                raise ValueError(unknown_name(path, "feature column", name, others))
        self.left_out = dict.fromkeys(choice.drop, "")
        self._features = features or tuple(name for name in others if name not in self.left_out)
        lacking = [name for name in self._features if name not in known]
        if lacking:
            raise ValueError(
                f"{path} lacks {len(lacking)} of the {len(self._features)} columns that the model "
                f"takes: {listed(map(quoted, lacking))}; it has: {listed(map(quoted, names))}"
            )
        self._target_name = target if labelled else None
        self._choice, self._known = choice, NONE if like is None else like.categories
        kinds = self._file.kinds(self._read_names, self._features if like is None else ())
        self._dtype = float_for(kinds, self._features, {*features} - {*self._known})
        self._columns: list[Column] = []
        self._early = set[str]()  # those whose format the first piece has shown
        self.formats = dict[str, Format]() if like is None else dict(like.formats)
        marked = {
            name
            for name, form in self.formats.items()
            if isinstance(form, NumberFormat) or form.pattern in DOTTED_AS
        }
        self._text = {*choice.categorical, *self._known, *marked, *filter(None, [target])}
        if like is None:
            self._file.warn_of_copies(path)
            self._text |= self._file.points_mark()
        else:
            numbers = {*self._read_names} - {*self._known, *like.dates}
            formats = {name: self.formats.get(name, PLAIN) for name in numbers}
            moments = zip(like.shift or (), like.scale or (), strict=True)
            learned = dict(zip(like.features, moments, strict=False))
            self._file.warn_of_groups(formats, learned)

    def pieces(self) -> Iterator[Raw]:
        """Some rows at a time, which are checked with the rows before them as `raw` checks all."""
        for x, y in self._read():
            self._check()
            target = self._target
            words = target is not None and target.has_words and target.words
            yield Raw(
                x, self._features, y, tuple(words) if words else None, self._known,
                unlabelled=None if target is None else target.last_gone,
            )  # fmt: skip

    def raw(self, scratch: Scratch) -> Raw:
        """The whole table; `scratch` decides whether x is in memory or in a file."""
        early = self._file.untyped and self._like is None
        store, y = self._collect(scratch, early)
        while self._read_otherwise():
            store, y = self._collect(scratch)
        x: Matrix = store.rows()
        if self._like is None:
            x = self._without_identifiers(x)
        self._check()
        if self._like is None:
            warn_of_codes(self._path, self._columns, self._file.padded())
        target = self._target
        words = tuple(target.words) if target is not None and target.has_words else ()
        categories = {
            c.name: tuple(c.words) for c in self._columns if c.words or c.name in self._known
        }
        return Raw(
            x, self._features, y, words or None, categories, formats=self.formats,
            dates=tuple(c.name for c in self._columns if "dates" in c.kinds),
            left_out=self.left_out, unlabelled=None if target is None else target.gone,
            zones={c.name: True in c.zones for c in self._columns if c.zones},
        )  # fmt: skip

    def _read_otherwise(self) -> bool:
        """Whether columns must be read again, as text or as numbers in a format."""
        columns = [c for c in (*self._columns, self._target) if c is not None]
        text: set[str] = set()
        if self._file.untyped:  # the types of a column's blocks may differ
            text = {c.name for c in columns if c.large or (len(c.kinds) > 1 and not c.declared)}
        formats = {
            c.name: found
            for c in columns
            if self._like is None
            and not (c is self._target and self._choice.task == "classification")
            and (found := c.written)
        }
        wrong = {c.name for c in self._columns if c.name in self._early and c.unusual}
        self._early -= wrong
        self.formats = {name: form for name, form in self.formats.items() if name not in wrong}
        again = bool(wrong or text - self._text or formats.keys() - self.formats.keys())
        self._text |= text | formats.keys()
        self.formats |= formats
        if formats:
            self._dtype = np.dtype(np.float64)
        return again

    def _without_identifiers(self, x: Matrix) -> Matrix:
        """Leave out columns of row numbers, of identifiers, and without values."""
        extra, wanted = self._file.index_columns, {*self._choice.keep, *self._choice.categorical}
        found = {
            c.name: why
            for j, c in enumerate(self._columns)
            if c.name not in wanted and (why := reason_to_leave_out(c, x, j, c.name in extra))
        }
        if len(found) == len(self._columns):  # better these than none
            if found and all(column.empty for column in self._columns):
                raise ValueError(f"{self._path}: no column but the target has values")
            return x
        self.left_out |= found
        kept = [j for j, c in enumerate(self._columns) if c.name not in found]
        if found:
            self._columns = [self._columns[j] for j in kept]
            self._features = tuple(c.name for c in self._columns)
            self.formats = {n: f for n, f in self.formats.items() if n not in found}
            chosen = SelectedMatrix(x, np.array(kept), x.dtype)
            return chosen[:] if isinstance(x, np.ndarray) else chosen
        return x

    def _collect(self, scratch: Scratch, early: bool = False) -> tuple[Store, HostArray | None]:
        """early: begin again if the first piece shows formats, as it then was read as words."""
        store, targets = None, list[tuple[bool, HostArray]]()
        with closing(self._read()) as pieces:
            for x, y in pieces:
                if store is None:
                    rows = self._file.rows(len(x))
                    if early and rows > len(x) and self._find_formats():
                        return self._collect(scratch)
                    store = scratch.store(rows, x.shape[1], self._dtype)
                store.append(x)
                if y is not None and self._target is not None:
                    targets.append((self._target.has_words, y))
        store = store or Store(len(self._features), self._dtype, None)
        return store, self._target.joined(targets) if self._target and targets else None

    def _find_formats(self) -> bool:
        """Whether what was read shows formats, in which the whole table is then read."""
        found = {
            c.name: form
            for c in self._columns
            if (form := c.written) and form.lasting and form.usual([*c.words])[1].all()
        }
        self.formats |= found
        self._text |= found.keys()
        self._early |= found.keys()
        return bool(found)

    def _read(self) -> Generator[tuple[HostArray, HostArray | None], None, None]:
        """x (m, n) and y (m,) of some rows at a time, not checked."""
        like, declared, kept = self._like, {*self._choice.categorical}, {*self._choice.keep}
        plain = None if like is None else PLAIN
        self._columns = [
            Column(
                name, name in declared, self._known.get(name), self.formats.get(name, plain),
                None if like is None or name in self._known else name in like.dates,
                self._choice.date_order, name in kept,
            )
            for name in self._features
        ]  # fmt: skip
        name, self._target = self._target_name, None
        if name is not None:
            self._target = TargetColumn(name, self.formats.get(name), like is None)
        for table in self._file.pieces(self._read_names, self._text):
            x = np.empty((table.num_rows, len(self._columns)), self._dtype)
            for j, (column, piece) in enumerate(zip(self._columns, table.columns, strict=False)):
                x[:, j] = column.values(piece)
            yield x, None if self._target is None else self._target.values(table.columns[-1])
        zones = {} if like is None else like.zones
        warn_of_other_kinds(self._path, [*filter(None, (*self._columns, self._target))], zones)

    @property
    def _read_names(self) -> list[str]:
        return [*self._features, *filter(None, [self._target_name])]

    def _check(self) -> None:
        learn, drop_missing = self._like is None, self._choice.drop_missing_target
        check_columns(self._path, self._columns, learn)
        if self._target is not None:
            task = self._choice.task if self._like is None else self._like.task
            check_target(self._path, self._target, task, drop_missing, learn)


def _check_names(path: Files, names: list[str], wanted: set[str | None]) -> None:
    if len(names) == 1 and names[0] not in wanted and path.kind == "csv":
        raise ValueError(
            f"{path} has a single column, {names[0]!r}; its columns must be separated by commas, "
            "semicolons, tabs or |, not by spaces or other characters, and named by its first line"
        )
    numbers = [PLAIN.value(name) for name in names if name]
    of_pandas = len(numbers) > FEW_NAMES and numbers == [*range(len(names))]
    if path.kind == "csv" and not of_pandas and len(numbers) == len(names) and None not in numbers:
        raise ValueError(f"{path} has no header: its first line must name the columns")
    double = sorted(name for name, count in Counter(names).items() if count > 1)
    if "" in double:
        raise ValueError(f"{path} has several columns without a name; name them")
    if double:
        raise ValueError(f"{path} has several columns of one name: {listed(double)}; rename them")
