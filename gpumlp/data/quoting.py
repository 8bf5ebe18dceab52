"""Quotation marks in .csv files: where quoted fields end, and those that hold rows by mistake."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.data.arrow import is_text
from gpumlp.data.numbers import PLAIN

LINE_END = re.compile(rb"\r\n|\n|\r")
TEXT_END = re.compile("\r\n|\n|\r")
CHECKED = 20  # so many fields with several lines are checked, in each column of a block


def check_closed(path: Path, text: bytes, delimiters: str) -> None:
    """Raise if a quoted field goes on at the end of a text."""
    at = opening(text, len(text), delimiters)
    if at >= 0:
        line = LINE_END.split(text[at : at + 240], maxsplit=1)[0]
        raise ValueError(
            f"{path} has a quotation mark that opens a field and is never closed: "
            f"{line.decode(errors='replace')[:60]!r}; correct that line"
        )


def rows_end(data: bytes, delimiters: str) -> int:
    """The position after the last row of `data`; 0 if no row ends there."""
    stop = len(data)
    while True:
        last = data.rfind(b"\n", 0, stop)
        # a CR at the end may be the first half of CR LF
        last = max(last, data.rfind(b"\r", max(last, 0), stop - (stop == len(data))))
        stop = -1 if last < 0 else opening(data, last, delimiters)
        if stop < 0:
            return last + 1


def opening(data: bytes, at: int, delimiters: str, window: int = 1 << 16) -> int:
    """The position of the mark that opens the quoted field around `at`; −1 if there is none.

    As for Arrow, a quotation mark opens a field only at its beginning.  So a run of an even number
    of marks changes nothing: it is an empty field, or text within quotes.  A run of an odd number
    that begins a field opens it, or closes one whose text ends with a delimiter.  After any other
    run of an odd number no field is open, whatever comes before it.
    """
    if data.rfind(b'"', 0, at) < 0:
        return -1
    begin = max(0, at - window)
    text = np.frombuffer(data, np.uint8, at - begin, begin)
    marks = np.flatnonzero(text == ord('"'))
    first = np.flatnonzero(np.diff(marks, prepend=-2) > 1)  # of each run
    odd = marks[first[np.diff(first, append=len(marks)) % 2 == 1]]
    odd = odd[odd > 0] if begin else odd  # that run may have begun before
    between = np.frombuffer(delimiters.encode() + b"\r\n", np.uint8)
    others = np.flatnonzero(~np.isin(text[odd - 1], between) & (odd > 0))
    if begin and not len(others):
        return opening(data, at, delimiters, 16 * window)
    beginnings = len(odd) - 1 - others[-1] if len(others) else len(odd)
    return begin + int(odd[-1]) if beginnings % 2 else -1


def check_rows(path: Path, table: Any, delimiter: str) -> None:
    """Raise if a quoted field of an Arrow table has swallowed rows, from a stray mark to the next.

    Each line of such a field is a row: it has as many values, and values of the same kinds.
    """
    import pyarrow.compute as compute

    for j, column in enumerate(table.columns):
        if not is_text(column.type) or not _several_lines(column):
            continue
        found = column.filter(compute.match_substring_regex(column, "[\\r\\n]"))
        for text in found.slice(0, CHECKED).to_pylist():
            lines = [line for line in TEXT_END.split(text) if line]
            if len(lines) < 2:
                continue
            rows: list[list[str | None]] = [[*line.split(delimiter)] for line in lines]
            ends = [[*[None] * j, None, *rows[0][1:]], [*rows[-1][:-1], None]]
            ends[1] += [None] * (table.num_columns - 1 - j)
            if all(_is_row(row, table) for row in [*ends, *rows[1:-1]]):
                raise ValueError(
                    f"{path} has a quotation mark that opens a field and is closed "
                    f"{len(lines) - 1} rows later: {lines[0][:60]!r}; correct that line"
                )


def _several_lines(column: Any) -> bool:
    """Whether a text of an Arrow column has a line end; all together are searched fastest."""
    texts = [chunk.buffers()[2] for chunk in column.chunks]
    return any(end in text.to_pybytes() for text in texts if text for end in (b"\n", b"\r"))


def check_names(path: Path, table: Any, names: Sequence[str]) -> None:
    """Raise if a row of an Arrow table has the names of the columns again, as in joined files."""
    import pyarrow.compute as compute

    if all(map(is_text, table.schema.types)):
        rows = table
        for j, name in enumerate(names):  # after the first column few rows are left
            texts = compute.utf8_trim_whitespace(rows.column(j).fill_null(""))
            rows = rows.filter(compute.equal(texts, name))
            if not len(rows):
                return
        raise ValueError(
            f"{path} has its first line again among the rows, {','.join(names)[:60]!r}; it must "
            "name the columns, once"
        )


def _is_row(values: list[str | None], table: Any) -> bool:
    """Whether values, of which some are None, may be a row of the table."""
    return len(values) == table.num_columns and all(
        value is None
        or PLAIN.value(value.strip()) is not None
        or (is_text(column.type) and value in column.unique().to_pylist())
        for value, column in zip(values, table.columns, strict=True)
    )
