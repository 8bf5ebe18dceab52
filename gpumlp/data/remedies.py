"""What is wrong with a table's columns, and a line of pandas that mends it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gpumlp.data.csv_files import delimiter
from gpumlp.data.raw import listed

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
        kind: "thousands", "decimal", "dates", "gaps" (most are numbers), "text" (all are), "words".
        odd: the texts that are no numbers.
    """

    kind: str
    odd: list[str]


def look(column: Any) -> Look:
    """The look of an Arrow column."""
    import pyarrow as pa

    if pa.types.is_temporal(column.type):
        return Look("dates", [])
    texts = [str(value).strip() for value in column.to_pylist() if value is not None]
    odd = [text for text in texts if not re.fullmatch(NUMBER, text, re.IGNORECASE)]
    distinct = sorted(set(odd))
    if not odd:
        return Look("text" if texts else "words", distinct)
    for kind, pattern in LOOKS.items():
        if all(re.fullmatch(pattern, text) for text in distinct):
            return Look(kind, distinct)
    return Look("gaps" if 2 * len(odd) < len(texts) else "words", distinct)


def read_call(path: Path, **options: Any) -> str:
    """The call of pandas that reads the file."""
    if kind_of(path) == "csv" and delimiter(path) != ",":
        options = {"sep": delimiter(path)} | options
    settings = "".join(f", {name}={value!r}" for name, value in options.items())
    return f'pandas.read_{kind_of(path)}("{path}"{settings})'


def kind_of(path: Path) -> str:
    """The file's ending, "csv" or "parquet"."""
    return path.suffix.lower()[1:]


def oddities(
    path: Path, columns: int, looks: Mapping[str, Look], holes: Mapping[str, int], huge: list[str]
) -> str:
    """The error for a table that is not all numbers.

    Args:
        path: the file.
        columns: how many columns are features.
        looks: of those that hold no numbers, by name.
        holes: how many values are missing or infinite in those that lack some, by name.
        huge: the names of those with whole numbers that float64 cannot hold.
    """
    lines = [f"{path} is no table of numbers"]
    for kind in dict.fromkeys(found.kind for found in looks.values()):
        of_kind = {name: found for name, found in looks.items() if found.kind == kind}
        lines.append(f"{len(of_kind)} of {columns} feature columns {_remedy(path, kind, of_kind)}")
    if holes:
        named = listed(f"{name} ({count})" for name, count in holes.items())
        lines.append(
            f"{len(holes)} of {columns} feature columns have missing or infinite values: {named}: "
            f"drop such rows, {read_call(path)}.dropna(){_write(path)}, or impute them, "
            ".fillna(table.median(numeric_only=True))"
        )
    if huge:
        lines.append(huge_numbers(huge, columns))
    return "; ".join(lines)


def huge_numbers(names: Iterable[Any], columns: int) -> str:
    """What to do about whole numbers that float64 cannot hold."""
    names = list(names)
    return (
        f"{len(names)} of {columns} feature columns have whole numbers beyond 2**53, which would "
        f"lose digits: {listed(names)}: drop what is an identifier, or subtract an offset"
    )


def _remedy(path: Path, kind: str, looks: Mapping[str, Look]) -> str:
    """What the columns hold and what to do, as the end of a sentence."""
    names, odd = list(looks), sorted({text for found in looks.values() for text in found.odd})
    example = names if len(names) <= MORE else [*names[:MORE], "…"]
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
            f"those, or drop their rows, {read_call(path, na_values=odd[:MORE])}.dropna(){write}"
        )
    if kind == "text":
        return (
            f"hold numbers stored as text: {listed(names)}: convert them, {read_call(path)}"
            f".astype(dict.fromkeys({example}, float)){write}"
        )
    return (
        f"hold words: {listed(names)}: encode them one-hot, "
        f"pandas.get_dummies({read_call(path)}, columns={example}, dtype=float){write}"
    )


def _write(path: Path) -> str:
    return f'.to_{kind_of(path)}("new.{kind_of(path)}", index=False)'
