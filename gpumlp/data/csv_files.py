"""Read .csv files: UTF-8, names in the first line, columns separated by comma, ;, tab or |."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from gpumlp.data.dataset import unreadable

DELIMITERS = ",;\t|"
BLOCK = 16 << 20  # bytes that are parsed together; the types of a block are inferred from all of it


class CsvFile:
    """A .csv file as Arrow tables, one for each block of the file; ValueError if it is damaged.

    names: the column names, without surrounding spaces.
    kinds: None, as the column types are inferred block by block.
    """

    kinds: dict[str, Any] | None = None

    def __init__(self, path: Path) -> None:
        self._path, self._delimiter = path, delimiter(path)
        with path.open("rb") as file:
            head = file.read(BLOCK)
        blank = len(head) - len(head.lstrip(b"\r\n"))
        self._header = blank + (_row_end(head[blank:], first=True) or len(head))
        if b"\0" in head[: self._header]:  # UTF-16 without a byte order mark
            raise not_utf8(path)
        table = self._parse(head[: self._header], None, ())
        self.names = [name.strip() for name in table.column_names]

    def pieces(self, columns: Collection[str], text: Collection[str]) -> Iterator[Any]:
        """Tables of these columns. Columns in `text` are read as text even if they are numbers."""
        for block in self._blocks():
            yield self._parse(block, self.names, text).select(list(columns))

    def rows(self, first: int) -> int:
        """The approximate number of rows, given the number in the first block."""
        return int(first * max(1.0, self._path.stat().st_size / BLOCK))

    def _blocks(self) -> Iterator[bytes]:
        """The file in blocks of whole rows, without the header."""
        with self._path.open("rb") as file:
            file.seek(self._header)
            rest = b""
            while data := file.read(BLOCK):
                data = rest + data
                end = _row_end(data)
                if end:
                    yield data[:end]
                rest = data[end:]
            if rest.strip():
                yield rest

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
                    strings_can_be_null=True, column_types=dict.fromkeys(text, pa.string())
                ),
            )
        except pa.ArrowException as error:
            if "invalid UTF8" in str(error):
                raise not_utf8(self._path) from None
            raise unreadable(self._path, error) from error
        if any(pa.types.is_binary(kind) for kind in table.schema.types):  # text it cannot decode
            raise not_utf8(self._path)
        return table


def delimiter(path: Path) -> str:
    """The character of `DELIMITERS` that is most frequent in the header, outside quotes."""
    with path.open("rb") as file:
        lines = iter(lambda: file.readline(BLOCK), b"")
        header = next(filter(bytes.strip, lines), b"")
    try:
        text = header.decode()
    except UnicodeDecodeError:
        raise not_utf8(path) from None
    return max(DELIMITERS, key=re.sub('"[^"]*"', "", text).count)


def not_utf8(path: Path) -> ValueError:
    """The error for a file in another encoding."""
    return ValueError(
        f'{path} is not in UTF-8; save it as UTF-8 (in Excel: "CSV UTF-8"), or convert it, '
        "e.g. iconv -f latin1 -t utf-8"
    )


def _row_end(data: bytes, first: bool = False) -> int:
    """The position after the last (or the first) row of `data`; 0 if no row ends there.

    A line break within quotes does not end a row: an odd number of quotes precedes it.
    """
    find = data.find if first else data.rfind
    at = find(b"\n")
    last = at
    while at >= 0 and data.count(b'"', 0, at) % 2:
        at = data.find(b"\n", at + 1) if first else data.rfind(b"\n", 0, at)
    return (last if at < 0 else at) + 1  # if a quote is never closed, Arrow reports it
