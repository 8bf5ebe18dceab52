"""Read .csv files: UTF-8, names in the first line, columns separated by comma, ;, tab or |."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from gpumlp.data.dataset import unreadable
from gpumlp.data.numbers import format_of

DELIMITERS = ",;\t|"
BLOCK = 16 << 20  # bytes that are parsed together; the types of a block are inferred from all of it
BOM = b"\xef\xbb\xbf"
ROW = re.compile(r"Expected (\d+) columns, got (\d+): ?(.*)", re.DOTALL)
KINDS = {  # by their first bytes
    b"\x1f\x8b": "compressed; call it .csv.gz",
    b"PK\x03\x04": "an Excel file or a zip archive; save the table as CSV",
    b"PAR1": "a Parquet file; call it .parquet",
}
SAMPLE = 1 << 20  # bytes that show whether points group digits
GROUPED = re.compile(rb"(?<![\w.])[1-9]\d{0,2}\.\d\d0(?![\w.])")


class CsvFile:
    """A .csv or .csv.gz file as Arrow tables, one for each block; ValueError if it is damaged.

    names: the column names, without surrounding spaces.
    kinds: None, as the column types are inferred block by block.
    index_columns: none, as the file does not say which columns hold the index of a frame.
    """

    kinds: dict[str, Any] | None = None
    index_columns: Collection[str] = ()

    def __init__(self, path: Path) -> None:
        self._path = path
        head = _head(path)
        self._delimiter, self._begin, self._header = _header(path, head)
        self._rows = _rows(self._delimiter)
        line = head[self._begin : self._header]
        table = self._parse(line + b"\n" if line else line, None, ())
        # a column without a name is called as pandas calls it
        self.names = [name.strip() or f"Unnamed: {j}" for j, name in enumerate(table.column_names)]

    def pieces(self, columns: Collection[int], text: Collection[str]) -> Iterator[Any]:
        """Tables of these columns, by number.  Columns in `text` are read as text in any case."""
        for block in self._blocks():
            yield self._parse(block, self.names, text).select(list(columns))

    def rows(self, first: int) -> int:
        """The approximate number of rows, given the number in the first block."""
        return int(first * max(1.0, self._path.stat().st_size / BLOCK))

    def points_group(self) -> set[str]:
        """The columns whose points group digits, as in 60 and 7.560; the types do not show this."""
        with opened(self._path) as file:
            file.seek(self._header)
            sample = file.read(SAMPLE)
        end = self._row_end(sample) or len(sample)
        if not end or not GROUPED.search(sample):
            return set()
        table = self._parse(sample[:end], self.names, self.names)
        found = {
            name: format_of(Counter(column.drop_null().to_pylist()))
            for name, column in zip(self.names, table.columns, strict=True)
        }
        return {name for name, form in found.items() if form and form[0].thousands == "."}

    def _blocks(self) -> Iterator[bytes]:
        """The file in blocks of whole rows, without the header."""
        with opened(self._path) as file:
            file.seek(self._header)
            rest = b""
            while data := file.read(BLOCK):
                data = rest + data
                end = self._row_end(data)
                if end:
                    yield data[:end]
                rest = data[end:]
                if len(rest) > BLOCK:
                    raise ValueError(
                        f"{self._path} has a quotation mark that opens a field and is never "
                        f"closed: {_first_line(rest)!r}; correct that line"
                    )
            if rest.strip():
                yield rest

    def _row_end(self, data: bytes) -> int:
        """The position after the last row of `data`; 0 if no row ends there."""
        last = max(data.rfind(b"\n"), data.rfind(b"\r", 0, -1))
        if b'"' not in data or last < 0:
            return last + 1
        ends = self._delimiter.encode(), b"\n", b"\r"
        opening = data.startswith(b'"') + sum(data.count(end + b'"') for end in ends)
        if not opening:  # a mark within a field is a character
            return last + 1
        closing = data.endswith(b'"') + sum(data.count(b'"' + end) for end in ends)
        empty = sum(data.count(a + b'""' + b) for a in ends for b in ends)
        doubled = data.count(b'""') - empty  # a mark within quotes
        # whether all marks open or close a field, or are doubled
        regular = data.count(b'"') == opening + closing + 2 * doubled
        if regular and data.count(b'"', 0, last) % 2 == 0:
            return last + 1
        match = self._rows.match(data)  # this needs ten times as long
        return match.end() if match else 0

    def _parse(self, block: bytes, names: list[str] | None, text: Collection[str]) -> Any:
        import pyarrow as pa
        import pyarrow.csv

        try:
            table = pyarrow.csv.read_csv(
                pa.BufferReader(block),
                # the reader infers types from its first block, so it gets only one
                pyarrow.csv.ReadOptions(block_size=len(block) + 1, column_names=names),
                pyarrow.csv.ParseOptions(delimiter=self._delimiter),
                pyarrow.csv.ConvertOptions(
                    # R and others write the word "NA" in quotes, and a missing value without
                    strings_can_be_null=True, quoted_strings_can_be_null=False,
                    column_types=dict.fromkeys(text, pa.string()),
                ),
            )  # fmt: skip
        except pa.ArrowException as error:
            if "invalid UTF8" in str(error):
                raise not_utf8(self._path, block) from None
            if found := ROW.search(str(error)):
                most, count, row = found.groups()
                raise ValueError(
                    f"{self._path}: a row has {count} values, but the first line names {most} "
                    f"columns: {row[:60]!r}; correct that row, or the first line"
                ) from None
            raise unreadable(self._path, error) from error
        if any(pa.types.is_binary(kind) for kind in table.schema.types):  # text it cannot decode
            raise not_utf8(self._path, block)
        return table


def opened(path: Path) -> BinaryIO:
    """The file, open for reading; a file .gz is unpacked on the way."""
    return cast("BinaryIO", gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def delimiter(path: Path) -> str:
    """The character of `DELIMITERS` that is most frequent in the header, outside quotes."""
    return _header(path, _head(path))[0]


def not_utf8(path: Path, text: bytes) -> ValueError:
    """The error for a file in another encoding, or of another kind, that contains `text`."""
    kind = next((KINDS[start] for start in KINDS if text.startswith(start)), "")
    if kind:
        return ValueError(f"{path} is not a text file but {kind}")
    wide = b"\0" in text[:100]
    encoding = "utf-16" if wide and len(text) > 1 else "latin1"
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


def _header(path: Path, head: bytes) -> tuple[str, int, int]:
    """The delimiter, and where the first line that is not blank begins and ends.

    A line ends at LF, CR, or both; within quotes it goes on.
    """
    begin = len(head) - len(head.removeprefix(BOM).lstrip(b"\r\n"))
    match = _rows(DELIMITERS, "?").match(head, begin)
    end = (match.end() if match else 0) or len(head)
    line = head[begin:end]
    if b"\0" in line:  # UTF-16 without a byte order mark
        raise not_utf8(path, head)
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise not_utf8(path, head) from None
    return max(DELIMITERS, key=re.sub('"[^"]*"', "", text).count), begin, end


def _rows(delimiters: str, count: str = "*") -> re.Pattern[bytes]:
    """A pattern of as many whole rows as possible, or of one; in linear time.

    As for Arrow, a quotation mark opens a field only at its beginning.
    """
    marks = re.escape(delimiters.encode())
    field = rb'(?>"(?>[^"]++|"")*+"[^%b\r\n]*+|(?!")[^%b\r\n]*+)' % (marks, marks)
    end = rb"(?:\r\n|\n|\r(?!\n|\Z))"
    return re.compile(rb"(?>(?>%b[%b])*+%b%b)%b+" % (field, marks, field, end, count.encode()))


def _first_line(text: bytes) -> str:
    line = re.split(rb"[\r\n]", text[text.find(b'"') :], maxsplit=1)[0]
    return line[:60].decode(errors="replace")
