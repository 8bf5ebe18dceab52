"""Read several files as one: columns by name, and columns from the names of folders."""

from __future__ import annotations

import contextlib
import filecmp
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpumlp.data.csv_files import SAMPLE, CsvFile
from gpumlp.data.dataset import listed
from gpumlp.data.date_texts import are_dotted
from gpumlp.data.dates import DateFormat
from gpumlp.data.identifiers import INDEX
from gpumlp.data.names import as_argument, quoted
from gpumlp.data.numbers import PLAIN, NumberFormat, format_of
from gpumlp.data.parquet_files import ParquetFile
from gpumlp.data.sources import Files
from gpumlp.data.spelling import CODE

# in 60 and 7.560 points group digits; in 1.234 they may; 06.2022 and 2022.06 may be months
GROUPED = re.compile(rb"(?<![\w.])[1-9]\d{0,2}\.\d\d0(?![\w.])")
THREE = re.compile(rb"(?<![\w.])[1-9]\d{0,2}\.\d{3}(?![\w.])")
MONTH = re.compile(rb"(?<![\w.])(?:[01]?\d\.(?:19|20)\d\d|(?:19|20)\d\d\.[01]\d)(?![\w.])")
PADDED = re.compile(rb"(?<![\w.])0\d\d+(?![\w.])")  # 00501 may be a code
LEAST = 64 << 10  # bytes of each of many files that show how numbers are written


class JoinedFiles:
    """The rows of all files as Arrow tables; ValueError if a file has other columns or is damaged.

    Args:
        files: the files.
        wanted: the columns that a model takes, which folders above the files may give.

    names: the column names, in the order of the first file; those of folders are at the end.
    untyped: whether the types are inferred block by block, as the files have none.
    index_columns: the columns that hold pandas' index.
    """

    def __init__(self, files: Files, wanted: Collection[str] = ()) -> None:
        self._text = str(files)
        self._files: list[ParquetFile | CsvFile] = []
        self.index_columns: set[str] = set()
        read = ParquetFile if files.kind == "parquet" else CsvFile
        for path in files.paths:
            self._files.append(file := read(path))
            self.index_columns |= {*file.index_columns}
        coded = {name for file in self._files for name in file.coded}
        for file in self._files:  # the type may be there in some files alone
            file.coded = coded
        # pandas stores the index of a frame that was filtered, and none of others
        known = [set[str](file.names) for file in self._files]
        index = {*self.index_columns, *filter(INDEX.fullmatch, known[0].union(*known))}
        some = index - known[0].intersection(*known)
        first = [name for name in self._files[0].names if name not in some]
        for path, file in zip(files.paths, self._files, strict=True):
            names = [name for name in file.names if name not in some]
            _check_columns(files.paths[0], first, path, names)
        self.untyped = self._files[0].kinds is None
        self._texts = [files.keys(path, wanted) for path in files.paths]
        self._keys = _typed(self._texts, {*first})
        self.names = [*first, *self._keys]

    def warn_of_copies(self, files: Files) -> None:
        """Warn of files with the same contents, whose rows would be in the table twice."""
        first: dict[tuple[int, bytes, str], Path] = {}
        for path, file in zip(files.paths, self._files, strict=True):
            with path.open("rb") as opened:
                key = path.stat().st_size, opened.read(LEAST), str(files.keys(path))
            other = first.setdefault(key, path)
            if other is path or not filecmp.cmp(path, other, shallow=False):
                continue
            if file.rows(0) if isinstance(file, ParquetFile) else file.sample(LEAST):
                warnings.warn(
                    f"{path} has the same contents as {other}; if it is a copy, leave it out",
                    stacklevel=2,
                )

    def kinds(self, names: Collection[str], free: Collection[str]) -> dict[str, Any] | None:
        """The Arrow type of each of these columns in all files; None if the files have no types.

        free: the columns that can be left out, since no model takes them.
        """
        import pyarrow as pa

        if self.untyped:
            return None
        kinds: dict[str, Any] = {}
        for name in names:
            if name in self._keys:
                kinds[name] = self._keys[name].type
                continue
            types = dict.fromkeys(_plain((file.kinds or {})[name]) for file in self._files)
            schemas = [pa.schema([(name, kind)]) for kind in types]
            try:
                kinds[name] = pa.unify_schemas(schemas, promote_options="permissive").types[0]
            except pa.ArrowTypeError:
                raise ValueError(
                    f"{self._text}: the column {name!r} has different types in the files: "
                    f"{listed(types)}; write it with one type"
                    + (f", or leave it out, --drop {as_argument([name])}" if name in free else "")
                ) from None
        return kinds

    def pieces(self, names: Sequence[str], text: Collection[str]) -> Iterator[Any]:
        """Tables of these columns.  Columns in `text` are read as text where there are no types."""
        import pyarrow as pa

        for i, file in enumerate(self._files):
            place = {name: j for j, name in enumerate(file.names)}
            for table in file.pieces([place[name] for name in names if name in place], text):
                for name in (name for name in names if name not in place):
                    value = self._keys[name][i]
                    if name in text:  # 07 is a label
                        value = pa.scalar(self._texts[i][name], pa.string())
                    table = table.append_column(name, pa.repeat(value, len(table)))
                yield table.select(names)

    def points_mark(self) -> set[str]:
        """The columns of files without types whose points are no decimal points: 7.560, 06.2022."""
        return {
            name
            for name, counts in self._samples(GROUPED, MONTH).items()
            if are_dotted(counts)
            or (
                GROUPED.search(" ".join(counts).encode())
                and (form := format_of(counts))
                and form[0].thousands == "."
            )
        }

    def padded(self) -> dict[str, str]:
        """The columns of whole numbers in files without types, and of each one such as 00501."""
        found = {
            name: next(filter(CODE.fullmatch, texts), "")
            for name, texts in self._samples(PADDED).items()
            if all(map(str.isdecimal, texts))
        }
        return {name: text for name, text in found.items() if len(text) > 2}

    def warn_of_groups(
        self, formats: Mapping[str, NumberFormat | DateFormat],
        moments: Mapping[str, tuple[float, float]],
    ) -> None:  # fmt: skip
        """Warn of columns whose decimal marks, in these formats, may group digits.

        moments: mean and standard deviation of each column of numbers of a model.
        """
        texts = self._samples(*[THREE] * ({*formats.values()} <= {PLAIN}))
        found = {
            name: form
            for name, form in formats.items()
            if isinstance(form, NumberFormat)
            and name in texts
            and form.groups(texts[name], *moments.get(name, ()))
        }
        for mark in sorted({form.decimal for form in found.values()}):
            names = [quoted(name) for name, form in found.items() if form.decimal == mark]
            warnings.warn(
                f"{self._text}: 7{mark}560 is read as 7{mark}56, as in the model's data, but may "
                f"mean 7560: {listed(names)}",
                stacklevel=2,
            )

    def _samples(self, *patterns: re.Pattern[bytes]) -> dict[str, Counter[str]]:
        """The texts of all columns in samples of files without types; none without a pattern."""
        files = [file for file in self._files if isinstance(file, CsvFile)]
        samples = [file.sample(max(SAMPLE // len(files), LEAST)) for file in files]
        texts: dict[str, Counter[str]] = {}
        if not patterns or any(p.search(sample) for sample in samples for p in patterns):
            for file, sample in zip(files, samples, strict=True):
                for name, counts in file.texts(sample).items():
                    texts.setdefault(name, Counter()).update(counts)
        return texts

    def rows(self, first: int) -> int:
        """The number of rows, or about so many, given the number in the first piece."""
        return sum(file.rows(first) for file in self._files)


def _check_columns(first: Path, expected: Sequence[str], path: Path, names: Sequence[str]) -> None:
    here, there = {*names}, {*expected}
    lacking = [quoted(name) for name in expected if name not in here]
    further = [quoted(name) for name in names if name not in there]
    differences = [f"lacks {listed(lacking)}"] * bool(lacking)
    differences += [f"has {listed(further)} besides"] * bool(further)
    if differences:
        raise ValueError(
            f"{path} has other columns than {first}: it {' and '.join(differences)}; files that "
            "are read as one table need columns of the same names"
        )


def _typed(keys: Sequence[dict[str, str | None]], known: Collection[str]) -> dict[str, Any]:
    """For each key of folders the value of each file, as whole numbers or else as texts.

    A column of the files has priority over a key of the same name.
    """
    import pyarrow as pa

    columns: dict[str, Any] = {}
    for name in (name for name in dict.fromkeys(key for each in keys for key in each)
                 if name not in known):  # fmt: skip
        if any(name not in each for each in keys):
            raise ValueError(f"not all of the files are in a folder called {name}=value")
        columns[name] = pa.array([each[name] for each in keys], pa.string())
        with contextlib.suppress(pa.ArrowInvalid):  # they are texts
            columns[name] = columns[name].cast(pa.int64())
    return columns


def _plain(kind: Any) -> Any:
    """An Arrow type without its encoding."""
    import pyarrow.types as t

    return kind.value_type if t.is_dictionary(kind) else kind
