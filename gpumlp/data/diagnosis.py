"""Errors for columns that cannot be used, each with a line of pandas that corrects the file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpumlp.data.columns import MOST_WORDS, Column, TargetColumn, problem_of
from gpumlp.data.csv_files import delimiter
from gpumlp.data.dataset import huge_numbers, listed
from gpumlp.data.names import as_argument

MORE = 8  # the most columns or texts that a line of pandas names
CHECKED_WORDS = 1000  # the most words of a target that are checked for being numbers
PROBLEMS = {  # for each kind of `Problem`, and for one more: what columns have, its correction
    "decimal": ("have decimal commas", "write 1.5 for 1,5, {read}{save}"),
    "thousands": (
        "have thousands separators, such as {first}", "write only the digits, {read}{save}"
    ),
    "dates": (
        "hold dates or times",
        "turn them into numbers, e.g. days since 2000, "
        "(pandas.to_datetime(table[{name!r}]) - pandas.Timestamp(2000, 1, 1)).dt.days",
    ),
    "gaps": (
        "hold numbers except for some texts ({texts})",
        "correct these texts, or leave them empty to have them filled, {read}{save}",
    ),
    "text": (
        "hold numbers stored as text",
        "convert them, {read}.astype(dict.fromkeys({names}, float)){save}",
    ),
    "words": ("hold words where the model takes numbers", "correct them"),
    "many": (
        "hold too many different words for categories",
        "leave out names and identifiers, {read}.drop(columns={names}){save}, "
        "or use the most frequent words as categories, --categorical {first_names}",
    ),
    "other": (
        "hold neither numbers nor words but {types}", "leave them out, or turn them into numbers"
    ),
    "empty": ("have no values", "leave them out, {read}.drop(columns={names}){save}"),
    "infinite": (
        "have infinite values",
        "correct them, or leave them empty to have them filled, "
        '{read}.replace([float("inf"), -float("inf")], None){save}',
    ),
}  # fmt: skip


def check_columns(path: Path, columns: Sequence[Column]) -> None:
    """Raise if a feature column holds neither numbers nor categories."""
    groups: dict[str, list[Column]] = {}
    examples: dict[str, set[str]] = {}
    for column in columns:
        if (problem := column.problem) is not None:
            groups.setdefault(problem.kind, []).append(column)
            examples.setdefault(problem.kind, set()).update(problem.examples)
    groups["empty"] = groups.pop("empty", [])  # after the other problems
    groups["infinite"] = [column for column in columns if column.infinite]
    share = f"of {len(columns)} feature columns"
    lines = [
        f"{len(group)} {share} {_explained(path, kind, group, sorted(examples.get(kind, ())))}"
        for kind, group in groups.items()
        if group
    ]
    huge = [column.name for column in columns if column.huge]
    if huge:
        lines.append(huge_numbers(huge, len(columns)))
    if lines:
        raise ValueError("; ".join([f"{path} is not a table of numbers and categories", *lines]))


def check_target(path: Path, target: TargetColumn) -> None:
    """Raise if a target is missing, or if its words cannot be classes."""
    about = f"{path}: the target {target.name!r}"
    if target.missing:
        raise ValueError(
            f"{about} has {target.missing} missing values; drop those "
            f"rows, {_read_call(path)}.dropna(subset=[{target.name!r}])"
        )
    if len(target.words) >= MOST_WORDS:
        raise ValueError(
            f"{about} holds {MOST_WORDS:,} different words or more, too many for classes"
        )
    found = problem_of(dict.fromkeys([*target.words][:CHECKED_WORDS], 1))
    if found.kind in ("decimal", "thousands"):
        advice = "write 1.5 for 1,5" if found.kind == "decimal" else "write only the digits"
        raise ValueError(
            f"{about} has numbers with separators, such as {found.examples[0]}; {advice}"
        )


def kind_of(path: Path) -> str:
    """The ending of the file's name, "csv" or "parquet"."""
    return path.suffix.lower()[1:]


def _explained(path: Path, kind: str, columns: list[Column], examples: list[str]) -> str:
    names = labels = [column.name for column in columns]
    options: dict[str, Any] = {}
    if kind == "decimal":
        points = any("." in text for text in examples)
        options = {"decimal": ",", **({"thousands": "."} if points else {})}
    elif kind == "thousands":
        options = {"thousands": re.sub(r"[\d+-]", "", examples[0])[0]}
    elif kind == "gaps":
        options = {"na_values": examples[:MORE]}
    elif kind == "many":
        labels = [f"{c.name} ({len(c.words):,} different)" for c in columns]
    elif kind == "infinite":
        labels = [f"{c.name} ({c.infinite})" for c in columns]
    fields = {
        "read": _read_call(path, **options),
        "save": f'.to_{kind_of(path)}("new.{kind_of(path)}", index=False)',
        "name": names[0],
        "names": names if len(names) <= MORE else [*names[:MORE], "…"],
        "first_names": as_argument(names[:MORE]),
        "first": next(iter(examples), ""),
        "texts": listed(map(repr, examples)),
        "types": listed(examples),
    }
    what, correction = PROBLEMS[kind]
    return f"{what.format(**fields)}: {listed(labels)}: {correction.format(**fields)}"


def _read_call(path: Path, **options: Any) -> str:
    """The call of pandas that reads the file."""
    if kind_of(path) == "csv" and delimiter(path) != ",":
        options = {"sep": delimiter(path)} | options
    settings = "".join(f", {name}={value!r}" for name, value in options.items())
    return f'pandas.read_{kind_of(path)}("{path}"{settings})'
