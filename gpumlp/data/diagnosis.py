"""What is wrong with a table's columns, and a line of pandas that mends it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gpumlp.data.csv_files import delimiter
from gpumlp.data.raw import listed

if TYPE_CHECKING:
    from gpumlp.data.columns import Column

NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|[+-]?inf"
LOOKS = {  # the first that fits all of a column's texts, numbers left out
    "thousands": r"[+-]?[1-9]\d{0,2}([,.'_\s])\d{3}(\1\d{3})*((?!\1)\.\d+)?",
    "decimal": r"[+-]?(\d{1,3}(\.\d{3})+|\d*),\d+(e[+-]?\d+)?",
    "dates": r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}([T ].*)?|\d{1,2}:\d\d(:\d\d.*)?",
}
MORE = 8  # columns or texts that a line names


class Look(NamedTuple):
    """What a column that holds no numbers looks like.

    Attributes:
        kind: "thousands", "decimal", "dates", "gaps" (most are numbers), "text" (all are), "words";
            "many" (too many words), "other" (another type).
        odd: the texts that are no numbers, or the types.
    """

    kind: str
    odd: list[str]


def look(counts: Mapping[str, int]) -> Look:
    """The look of a column of texts, of which each was met so many times."""
    odd = [text for text in counts if not re.fullmatch(NUMBER, text, re.IGNORECASE)]
    distinct = sorted(odd)
    if not odd:
        return Look("text" if counts else "words", distinct)
    for kind, pattern in LOOKS.items():
        if all(re.fullmatch(pattern, text) for text in distinct):
            return Look(kind, distinct)
    rows = sum(counts[text] for text in odd)
    return Look("gaps" if 2 * rows < sum(counts.values()) else "words", distinct)


def read_call(path: Path, **options: Any) -> str:
    """The call of pandas that reads the file."""
    if kind_of(path) == "csv" and delimiter(path) != ",":
        options = {"sep": delimiter(path)} | options
    settings = "".join(f", {name}={value!r}" for name, value in options.items())
    return f'pandas.read_{kind_of(path)}("{path}"{settings})'


def kind_of(path: Path) -> str:
    """The file's ending, "csv" or "parquet"."""
    return path.suffix.lower()[1:]


def oddities(path: Path, columns: Sequence[Column]) -> str | None:
    """The error for columns that are neither numbers nor categories, or None."""
    looks = {c.name: found for c in columns if (found := c.oddity) is not None}
    empty = [c.name for c in columns if c.empty and c.name not in looks]
    endless = [f"{c.name} ({c.infinite})" for c in columns if c.infinite]
    huge = [c.name for c in columns if c.huge]
    lines = []
    for kind in dict.fromkeys(found.kind for found in looks.values()):
        of_kind = [c for c in columns if c.name in looks and looks[c.name].kind == kind]
        odd = sorted({text for c in of_kind for text in looks[c.name].odd})
        told = _remedy(path, kind, of_kind, odd)
        lines.append(f"{len(of_kind)} of {len(columns)} feature columns {told}")
    if empty:
        lines.append(
            f"{len(empty)} of {len(columns)} feature columns have no values: {listed(empty)}: "
            f"leave them out, {read_call(path)}.drop(columns={_example(empty)}){_write(path)}"
        )
    if endless:
        lines.append(
            f"{len(endless)} of {len(columns)} feature columns have infinite values: "
            f"{listed(endless)}: mend them, or leave them empty to have them filled, "
            f'{read_call(path)}.replace([float("inf"), -float("inf")], None){_write(path)}'
        )
    if huge:
        lines.append(huge_numbers(huge, len(columns)))
    return "; ".join([f"{path} is no table of numbers and categories", *lines]) if lines else None


def huge_numbers(names: Iterable[Any], columns: int) -> str:
    """What to do about whole numbers that float64 cannot hold."""
    names = list(names)
    return (
        f"{len(names)} of {columns} feature columns have whole numbers beyond 2**53, which would "
        f"lose digits: {listed(names)}: drop what is an identifier, or subtract an offset"
    )


def _remedy(path: Path, kind: str, columns: Sequence[Column], odd: list[str]) -> str:
    """What the columns hold and what to do, as the end of a sentence."""
    names = [c.name for c in columns]
    write = _write(path)
    if kind == "decimal":
        points = {"thousands": "."} if any("." in text for text in odd) else {}
        return (
            f"have decimal commas: {listed(names)}: write 1.5 for 1,5, "
            f"{read_call(path, decimal=',', **points)}{write}"
        )
    if kind == "thousands":
        mark = re.sub(r"[\d+-]", "", odd[0])[0]
        return (
            f"have thousands separators, as {odd[0]}: {listed(names)}: write the digits alone, "
            f"{read_call(path, thousands=mark)}{write}"
        )
    if kind == "dates":
        column = f"pandas.to_datetime(table[{names[0]!r}])"
        return (
            f"hold dates or times: {listed(names)}: turn them into numbers, e.g. days since 2000, "
            f"({column} - pandas.Timestamp(2000, 1, 1)).dt.days"
        )
    if kind == "gaps":
        return (
            f"hold numbers but for some texts ({listed(map(repr, odd))}): {listed(names)}: mend "
            f"those, or leave them empty to have them filled, "
            f"{read_call(path, na_values=odd[:MORE])}{write}"
        )
    if kind == "text":
        return (
            f"hold numbers stored as text: {listed(names)}: convert them, {read_call(path)}"
            f".astype(dict.fromkeys({_example(names)}, float)){write}"
        )
    if kind == "words":
        return f"hold words where the model takes numbers: {listed(names)}: mend them"
    if kind == "other":
        return (
            f"hold neither numbers nor words but {listed(odd)}: {listed(names)}: leave them out, "
            f"or turn them into numbers"
        )
    counts = [f"{c.name} ({len(c.words):,} different)" for c in columns]
    return (
        f"hold too many different words for categories: {listed(counts)}: leave out names and "
        f"identifiers, {read_call(path)}.drop(columns={_example(names)}){write}, or keep the most "
        f"frequent as categories, --categorical {','.join(names[:MORE])}"
    )


def _example(names: list[str]) -> list[str]:
    return names if len(names) <= MORE else [*names[:MORE], "…"]


def _write(path: Path) -> str:
    return f'.to_{kind_of(path)}("new.{kind_of(path)}", index=False)'
