"""The .csv files: UTF-8, a header of names, columns apart by comma, semicolon, tab or |."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DELIMITERS = ",;\t|"


def read_csv(path: Path) -> Any:
    """The file as an Arrow table, its columns' names without the spaces around them.

    Raises:
        ValueError: the file is not UTF-8.
        pyarrow.ArrowException, OSError: it cannot be read.
    """
    import pyarrow.csv

    table = pyarrow.csv.read_csv(
        path,
        # types are inferred from the first block: let it be the whole file where it can
        pyarrow.csv.ReadOptions(block_size=min(path.stat().st_size + (1 << 20), 2**31 - 1)),
        pyarrow.csv.ParseOptions(delimiter=delimiter(path)),
        pyarrow.csv.ConvertOptions(strings_can_be_null=True),
    )
    if any(pyarrow.types.is_binary(kind) for kind in table.schema.types):  # text it cannot decode
        raise _not_utf8(path)
    return table.rename_columns([name.strip() for name in table.column_names])


def delimiter(path: Path) -> str:
    """The one of `DELIMITERS` that the header has most of, outside quotes.

    Raises:
        ValueError: the header is not UTF-8.
    """
    with path.open("rb") as file:
        header = file.readline()
    try:
        text = header.decode()
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    if "\0" in text:  # UTF-16 without a mark at its start
        raise _not_utf8(path)
    return max(DELIMITERS, key=re.sub('"[^"]*"', "", text).count)


def _not_utf8(path: Path) -> ValueError:
    return ValueError(
        f'{path} is not in UTF-8; save it as UTF-8 (in Excel: "CSV UTF-8"), or convert it, '
        "e.g. iconv -f latin1 -t utf-8"
    )
