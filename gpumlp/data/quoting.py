"""Quotation marks in .csv files: where quoted fields end, and those that hold rows by mistake."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.data.arrow import is_text
from gpumlp.data.numbers import PLAIN
from gpumlp.data.spelling import BLANKS

LINE_END = re.compile(rb"\r\n|\n|\r")
TEXT_END = re.compile("\r\n|\n|\r")
CHECKED = 20  # lines of a field
MOST = 1000  # repetitions in a pattern
SAMPLE = 1000  # texts whose shapes are known
WORDS = re.compile(r"[^\W\d_]+(?:\s+[^\W\d_]+)*")
DATE = re.compile(
    r"(?:true|false)$|\d\d\d\d-\d\d-\d\d|\d\d:\d\d", re.IGNORECASE
)  # or a truth value


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

    Its lines have as many values as rows, and most of these are like others of their columns.
    """
    import pyarrow.compute as compute

    n, alike = table.num_columns, cache(lambda k: _alike(table.column(k)))
    for j, column in enumerate(table.columns):
        if not is_text(column.type) or not _several_lines(column):
            continue
        mark, end, value = re.escape(delimiter), r"[\r\n]+", rf"[^{re.escape(delimiter)}\r\n]*"
        rest, more, before = (
            value + (f"(?:{mark}{value}){{{k}}}" if k < MOST else ".*")
            for k in (n - 1 - j, n - 1, j)
        )
        likely = compute.match_substring_regex(column, rf"\A{rest}{end}(?:{more}{end})*{before}\z")
        for text in column.filter(likely).drop_null().to_pylist():
            rows = _swallowed(text, j, n, delimiter)
            values = [(k, v) for row in rows for k, s in enumerate(row) if (v := s.strip(' "'))]
            fitting = sum(alike(k)(value) for k, value in values)
            if fitting and 4 * fitting >= 3 * len(values):
                raise _closed_late(path, text)


def check_header(path: Path, names: Sequence[str], delimiter: str) -> None:
    """Raise if a name has swallowed rows, which have numbers."""
    for j, name in enumerate(names):
        rows = _swallowed(name, j, len(names), delimiter)
        if any(PLAIN.value(v) is not None for row in rows[1:] for v in row if v):
            raise _closed_late(path, name)


def check_blank(path: Path, block: memoryview) -> None:
    """Raise if rows of one column are blank, as the reader leaves out blank lines."""
    if b"" in LINE_END.split(bytes(block))[:-1]:
        raise ValueError(
            f"{path} has a single column and blank lines, which may be missing values; write NA in "
            "these lines, or remove them"
        )


def _swallowed(text: str, j: int, n: int, delimiter: str) -> list[list[str]]:
    """The lines of field j, of n, as rows if they have as many values; else none.

    Values that are not in the field are "".  Of many lines, these are the first and the last.
    """
    if not 0 < n - 1 <= text.count(delimiter):
        return []
    *lines, end = TEXT_END.split(text)
    lines = [*filter(None, lines), end]
    first, *others = (line.split(delimiter) for line in lines[:CHECKED])
    last = [*end.split(delimiter)[:-1], *[""] * (n - j)]
    rows = [[""] * (j + 1) + first[1:], *others[: len(lines) - 2], last]
    return rows if len(lines) > 1 and all(len(row) == n for row in rows) else []


def _closed_late(path: Path, text: str) -> ValueError:
    first, *others = filter(None, TEXT_END.split(text))
    return ValueError(
        f"{path} has a quotation mark that opens a field and is closed {len(others)} rows later: "
        f"{first[:60]!r}; correct that line"
    )


def _alike(column: Any) -> Callable[[str], bool]:
    """Whether a text may be a value of an Arrow column: one of its texts, or similar to many."""
    if not is_text(column.type):
        return lambda text: bool(DATE.match(text)) or PLAIN.value(text) is not None
    texts = column.unique().drop_null().to_pylist()
    shapes = set() if 2 * len(texts) <= len(column) else {_shape(t) for t in texts[:SAMPLE]}
    known = {*texts}
    return lambda text: text in known or _shape(text) in shapes


def _shape(text: str) -> str:
    return WORDS.sub("a", re.sub(r"\d+", "1", text))


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
            texts = compute.utf8_trim(rows.column(j).fill_null(""), BLANKS)
            rows = rows.filter(compute.equal(texts, name))
            if not len(rows):
                return
        raise ValueError(
            f"{path} has its first line again among the rows, {','.join(names)[:60]!r}; it must "
            "name the columns, once"
        )
