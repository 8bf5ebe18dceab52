"""The .csv files: UTF-8, a header of names, columns apart by comma, semicolon, tab or |."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from gpumlp.data.raw import first_line

DELIMITERS = ",;\t|"
BLOCK = 16 << 20  # bytes that are parsed at once, and whose types are inferred together


class CsvFile:
    """A .csv file as Arrow tables, one a block of the file.

    Attributes:
        names: the columns' names, without the spaces around them.
        kinds: no types: they are found block by block.

    Raises:
        ValueError: it cannot be read, or is not UTF-8.
    """

    kinds: dict[str, Any] | None = None

    def __init__(self, path: Path) -> None:
        self._path, self._delimiter = path, delimiter(path)
        with path.open("rb") as file:
            head = file.read(BLOCK)
        blank = len(head) - len(head.lstrip(b"\r\n"))
        self._header = blank + (_row_end(head[blank:], first=True) or len(head))
        if b"\0" in head[: self._header]:  # UTF-16 without a mark at its start
            raise not_utf8(path)
        table = self._parse(head[: self._header], None, ())
        self.names = [name.strip() for name in table.column_names]

    def pieces(self, columns: Collection[str], text: Collection[str]) -> Iterator[Any]:
        """Tables of these columns; `text`: those that are words, whatever they look like."""
        for block in self._blocks():
            yield self._parse(block, self.names, text).select(list(columns))

    def rows(self, first: int) -> int:
        """About how many there are, where the first block has so many."""
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
                # types are inferred from the first block of the reader: let it have but one
                pyarrow.csv.ReadOptions(block_size=len(block) + 1, column_names=names),
                pyarrow.csv.ParseOptions(delimiter=self._delimiter),
                pyarrow.csv.ConvertOptions(
                    strings_can_be_null=True, column_types=dict.fromkeys(text, pa.string())
                ),
            )
        except pa.ArrowException as error:
            if "invalid UTF8" in str(error):
                raise not_utf8(self._path) from None
            raise ValueError(
                f"{self._path} cannot be read: it is no .csv file or not whole "
                f"({first_line(error)})"
            ) from error
        if any(pa.types.is_binary(kind) for kind in table.schema.types):  # text it cannot decode
            raise not_utf8(self._path)
        return table


def delimiter(path: Path) -> str:
    """The one of `DELIMITERS` that the header has most of, outside quotes.

    Raises:
        ValueError: the header is not UTF-8.
    """
    with path.open("rb") as file:
        header = next(
            (line for line in iter(lambda: file.readline(BLOCK), b"") if line.strip()), b""
        )
    try:
        text = header.decode()
    except UnicodeDecodeError:
        raise not_utf8(path) from None
    return max(DELIMITERS, key=re.sub('"[^"]*"', "", text).count)


def not_utf8(path: Path) -> ValueError:
    """The error for another encoding."""
    return ValueError(
        f'{path} is not in UTF-8; save it as UTF-8 (in Excel: "CSV UTF-8"), or convert it, '
        "e.g. iconv -f latin1 -t utf-8"
    )


def _row_end(data: bytes, first: bool = False) -> int:
    """Where the last row (or the first) of `data` ends, 0 where none does.

    A line's end within quotes is none of a row's: an odd number of quotes is before it.
    """
    find = data.find if first else data.rfind
    at = find(b"\n")
    last = at
    while at >= 0 and data.count(b'"', 0, at) % 2:
        at = data.find(b"\n", at + 1) if first else data.rfind(b"\n", 0, at)
    return (last if at < 0 else at) + 1  # where all are odd a quote is not closed: let Arrow say so
