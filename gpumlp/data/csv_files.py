"""Read .csv files: UTF-8, names in the first line, columns separated by comma, ;, tab or |."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, cast

from gpumlp.data.dataset import unreadable
from gpumlp.data.identifiers import IDENTIFIER
from gpumlp.data.numbers import NULLS
from gpumlp.data.quoting import (
    LINE_END,
    TEXT_END,
    check_blank,
    check_closed,
    check_header,
    check_names,
    check_rows,
    opening,
    rows_end,
)
from gpumlp.data.spelling import BLANKS
from gpumlp.io.threads import ahead

DELIMITERS = ",;\t|"
BLOCK = 8 << 20  # bytes that are parsed together; the types of a block are inferred from all of it
BLOCK_OF_COLUMN = 1024  # the same for each column, as each column of a block is an array
PART = 256 << 10  # bytes that Arrow parses at a time
PART_OF_COLUMN = 4096  # the same for each column
WIDE = 4096  # in wider tables a block's columns need more memory than its values
BOM = b"\xef\xbb\xbf"
ROW = re.compile(r"Expected (\d+) columns, got (\d+): ?(.*)", re.DOTALL)
KINDS = {  # by their first bytes
    b"\x1f\x8b": "compressed; call it .csv.gz",
    **dict.fromkeys([b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"], "compressed; unpack it"),
    b"PK\x03\x04": "an Excel file or a zip archive; save the table as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel file; save the table as CSV",
    b"PAR1": "a Parquet file; call it .parquet",
}
SEPARATOR = re.compile(rb'"?sep=([,;\t|])"?[ \t]*(?:\r\n|\n|\r)[\r\n]*', re.IGNORECASE)
COMPARED = 20  # so many rows decide about the delimiter
NAMED_ROWS = 1000  # so many rows show whether they have names
QUOTED = re.compile(r'(?<![^,;\t|\r\n])"(?:[^"]++|"")*+"(?![^,;\t|\r\n])')  # fields
FRACTION = re.compile(r"-?\d*[.,]\d*")
SPLIT = re.compile(r"^ \S|\\$")  # the pieces of a value that a delimiter took apart
SAMPLE = 1 << 20  # bytes that show how numbers are written
FIRST_ROW = re.compile(rb"[^\r\n]*")
DECIMAL = re.compile(rb"-?\d+\.\d+")


class CsvFile:
    """A file of text as Arrow tables, one for each block; ValueError if it is damaged.

    names: the column names, without surrounding spaces.
    kinds, index_columns, coded: none, as a file of text does not say them.
    """

    kinds: dict[str, Any] | None = None
    index_columns: Collection[str] = ()
    coded: Collection[str] = ()

    def __init__(self, path: Path) -> None:
        self._path = path
        self._delimiter, names, self._header = _header(path)
        self._first = [name.strip(BLANKS) for name in names]
        self.names = _named(self._first)
        self._mixed = False  # whether a column that begins with a fraction holds words, too
        self._block = max(BLOCK, BLOCK_OF_COLUMN * len(names))

    def pieces(self, columns: Collection[int], text: Collection[str]) -> Iterator[Any]:
        """Tables of these columns, by number.  Columns in `text` are read as text in any case."""
        count = 2 if len(self.names) < WIDE else 0
        parsed = ahead(lambda block: self._parse(block, text), self._blocks(), count)
        with closing(parsed) as tables:
            for table in tables:
                yield table.select(list(columns))

    def rows(self, first: int) -> int:
        """The approximate number of rows, given the number in the first block."""
        return int(first * max(1.0, self._path.stat().st_size / self._block))

    def sample(self, size: int) -> bytes:
        """The first rows, without the header, that `size` bytes hold."""
        with opened(self._path) as file:
            file.seek(self._header)
            sample = file.read(size)
        end = rows_end(sample, self._delimiter)
        return sample[:end] if end or len(sample) == size else sample

    def texts(self, sample: bytes) -> dict[str, Counter[str]]:
        """The frequency of each text of all columns in a sample."""
        columns = self._parse(memoryview(sample), self.names).columns if sample else ()
        counts = (Counter(column.drop_null().to_pylist()) for column in columns)
        return dict(zip(self.names, counts, strict=False))

    def _blocks(self) -> Iterator[memoryview]:
        """The file in blocks of whole rows, without the header."""
        with opened(self._path) as file:
            file.seek(self._header)
            rest = b""
            while data := file.read(self._block):
                data = rest + data
                end = rows_end(data, self._delimiter)
                if end:
                    yield memoryview(data)[:end]
                rest = data[end:]
                if end and not isinstance(file, gzip.GzipFile):
                    file.seek(-len(rest), os.SEEK_CUR)  # faster than to copy what comes after it
                    rest = b""
                if len(rest) > self._block:
                    check_closed(self._path, rest, self._delimiter)
                    raise unreadable(self._path, ValueError(f"a row of {len(rest):,} bytes"))
            if rest.strip():
                check_closed(self._path, rest, self._delimiter)
                yield memoryview(rest)

    def _parse(self, block: memoryview, text: Collection[str]) -> Any:
        """The table of a block.  The types of its columns are inferred from all of it."""
        import pyarrow as pa

        types = dict.fromkeys(text, pa.string())
        if len(self.names) == 1:
            check_blank(self._path, block)
        try:
            try:  # parts that fit into the processor's cache need half the time of one
                part = max(PART, PART_OF_COLUMN * len(self.names))
                fractions = dict.fromkeys(self._fractions(block), pa.float64())
                table = self._read(block, part, fractions | types)
            except pa.ArrowInvalid:  # a row is longer than a part, or words follow a fraction
                table = self._read(block, len(block) + 1, types)
                self._mixed = True
        except pa.ArrowException as error:
            if "invalid UTF8" in str(error):
                raise not_utf8(self._path, bytes(block[:100])) from None
            if found := ROW.search(str(error)):
                most, count, row = found.groups()
                raise ValueError(
                    f"{self._path}: a row has {count} values, but the first line names {most} "
                    f"columns: {row[:60]!r}; correct that row, or the first line"
                ) from None
            raise unreadable(self._path, error) from error
        if any(pa.types.is_binary(kind) for kind in table.schema.types):  # text it cannot decode
            raise not_utf8(self._path, bytes(block[:100]))
        check_rows(self._path, table, self._delimiter)
        check_names(self._path, table, self._first)
        return table

    def _fractions(self, block: memoryview) -> list[str]:
        """The columns that begin with a fraction: Arrow need not try seven other types of them."""
        first = FIRST_ROW.match(block)
        values = first[0].split(self._delimiter.encode()) if first else []
        if self._mixed or len(values) != len(self.names):
            return []
        return [self.names[j] for j, value in enumerate(values) if DECIMAL.fullmatch(value)]

    def _read(self, block: memoryview, part: int, types: dict[str, Any]) -> Any:
        import pyarrow as pa
        import pyarrow.csv

        return pyarrow.csv.read_csv(
            pa.BufferReader(block),
            # with threads, errors do not number the row within the block
            pyarrow.csv.ReadOptions(use_threads=False, block_size=part, column_names=self.names),
            pyarrow.csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
            pyarrow.csv.ConvertOptions(
                # R and others write the word "NA" in quotes, and a missing value without
                strings_can_be_null=True, quoted_strings_can_be_null=False, null_values=[*NULLS],
                column_types=types,
            ),
        ).combine_chunks()  # fmt: skip


def opened(path: Path) -> BinaryIO:
    """The file, open for reading; a file .gz is unpacked on the way."""
    return cast("BinaryIO", gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def _named(names: list[str]) -> list[str]:
    """The names of all columns; a column without one is called as pandas calls it."""
    named, given = [], {*names}
    for j, name in enumerate(names):
        new = name or f"Unnamed: {j}"
        while not name and new in given:  # pandas wrote a table twice, with the index
            new += ".1"
        named.append(new)
    return named


def for_pandas(path: Path) -> str:
    """The arguments with which pandas.read_csv finds the header and the delimiter."""
    mark = _header(path)[0]
    excel = SEPARATOR.match(_head(path).removeprefix(BOM).lstrip(b"\r\n"))
    return ("" if mark == "," else f", sep={mark!r}") + ", skiprows=1" * (excel is not None)


def not_utf8(path: Path, text: bytes) -> ValueError:
    """The error for a file in another encoding, or of another kind, that contains `text`."""
    kind = next((KINDS[start] for start in KINDS if text.startswith(start)), "")
    if kind:
        return ValueError(f"{path} is not a text file but {kind}")
    wide = "utf-16be" if text[:1] == b"\0" else "utf-16"
    encoding = wide if b"\0" in text[:100] and len(text) > 1 else "cp1252"  # latin1 and €
    return ValueError(
        f'{path} is not in UTF-8; save it as UTF-8 (in Excel: "CSV UTF-8"), or convert it, '
        f"e.g. iconv -f {encoding} -t utf-8"
    )


def _head(path: Path) -> bytes:
    try:
        with opened(path) as file:
            return file.read(BLOCK)
    except (EOFError, gzip.BadGzipFile) as error:
        raise unreadable(path, error) from error


def _header(path: Path) -> tuple[str, list[str], int]:
    """The delimiter, the names in the first line that is not blank, and where the line ends.

    A line ends at LF, CR, or both; within quotes it goes on. A line sep=; for Excel is left out. R
    writes no name for the names of the rows, which are the first column.
    """
    head = _head(path)
    text = head.removeprefix(BOM).lstrip(b"\r\n")
    excel = SEPARATOR.match(text)
    text = text[excel.end() :] if excel else text
    at, end = 0, len(text)
    while match := LINE_END.search(text, at):
        if opening(text, match.start(), DELIMITERS) < 0:
            end = match.end()
            break
        at = text.find(b'"', match.end())
        if at < 0:
            check_closed(path, text, DELIMITERS)
    if b"\0" in text[:end]:  # UTF-16 without a byte order mark
        raise not_utf8(path, head)
    try:
        line = text[:end].decode()
    except UnicodeDecodeError:
        raise not_utf8(path, head) from None
    mark = excel[1].decode() if excel else ""
    mark = mark or _delimiter(line, text[end : end + SAMPLE].decode(errors="replace"))
    try:
        [names] = csv.reader(io.StringIO(line, newline=""), delimiter=mark)
    except (csv.Error, ValueError) as error:
        raise unreadable(path, error if line else EOFError("Empty CSV file")) from error
    check_header(path, names, mark)
    if _rows_have_names(text[end : end + SAMPLE], mark, names):
        names = ["", *names]
    return mark, names, len(head) - len(text) + end


def _delimiter(header: str, rows: str) -> str:
    """The most frequent delimiter of the header among those that the rows have as often.

    Names may have others, as in `weight, kg;height, cm`.
    """
    rows = QUOTED.sub("", rows)  # which may have line ends, too
    lines = [header, *filter(None, TEXT_END.split(rows, maxsplit=COMPARED)[:COMPARED])]
    lines = [re.sub('"[^"]*"', "", line) for line in lines]

    def suits(mark: str) -> tuple[bool, int, bool]:
        first, *others = (line.count(mark) for line in lines)
        return others.count(first) * 2 > len(others) and first > 0, first, mark != ","

    return max(DELIMITERS, key=suits)


def _rows_have_names(text: bytes, mark: str, header: list[str]) -> bool:
    """Whether the rows begin with different names, and have one value more than the header.

    A delimiter within a value gives one value more, too; then the first column may be an
    identifier, which the header calls so.  R writes names in quotation marks.
    """
    count, called = len(header), IDENTIFIER.fullmatch(header[0].strip(BLANKS))
    if called and not text.startswith(b'"'):
        return False
    lines = csv.reader(io.StringIO(text.decode(errors="replace"), newline=""), delimiter=mark)
    try:
        rows = [next((row for row in lines if row), [])]
        if len(rows[0]) == count + 1:  # else all others need not be read
            rows += [row for row in itertools.islice(lines, NAMED_ROWS) if row]
    except csv.Error:
        return False
    rows = rows[:-1] if len(text) == SAMPLE else rows  # the last one may be cut
    fitting = [row for row in rows if len(row) == count + 1 and not any(map(SPLIT.search, row))]
    names = {row[0] for row in fitting if not FRACTION.fullmatch(row[0])}
    return count > 1 and 0 < len(rows) == len(names) and all(row[-1] for row in rows[:3])
