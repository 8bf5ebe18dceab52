"""Errors for columns that cannot be used, each with a line of pandas that corrects the file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpumlp.data.columns import MOST_WORDS, Column, TargetColumn, problem_of
from gpumlp.data.csv_files import delimiter
from gpumlp.data.raw import huge_numbers, listed

MORE = 8  # the most columns or texts that a line of pandas names
CHECKED_WORDS = 1000  # the most words of a target that are checked for being numbers


def check_columns(path: Path, columns: Sequence[Column]) -> None:
    """Raise if a feature column holds neither numbers nor categories."""
    problems = {c.name: found for c in columns if (found := c.problem) is not None}
    empty = [c.name for c in columns if c.empty and c.name not in problems]
    infinite = [f"{c.name} ({c.infinite})" for c in columns if c.infinite]
    huge = [c.name for c in columns if c.huge]
    of_all = f"of {len(columns)} feature columns"
    lines = []
    for kind in dict.fromkeys(found.kind for found in problems.values()):
        affected = [c for c in columns if c.name in problems and problems[c.name].kind == kind]
        examples = sorted({text for c in affected for text in problems[c.name].examples})
        lines.append(f"{len(affected)} {of_all} {_advice(path, kind, affected, examples)}")
    if empty:
        lines.append(
            f"{len(empty)} {of_all} have no values: {listed(empty)}: "
            f"leave them out, {read_call(path)}.drop(columns={_first(empty)}){_write(path)}"
        )
    if infinite:
        lines.append(
            f"{len(infinite)} {of_all} have infinite values: "
            f"{listed(infinite)}: correct them, or leave them empty to have them filled, "
            f'{read_call(path)}.replace([float("inf"), -float("inf")], None){_write(path)}'
        )
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
            f"rows, {read_call(path)}.dropna(subset=[{target.name!r}])"
        )
    if not target.words:
        return
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


def read_call(path: Path, **options: Any) -> str:
    """The call of pandas that reads the file."""
    if kind_of(path) == "csv" and delimiter(path) != ",":
        options = {"sep": delimiter(path)} | options
    settings = "".join(f", {name}={value!r}" for name, value in options.items())
    return f'pandas.read_{kind_of(path)}("{path}"{settings})'


def kind_of(path: Path) -> str:
    """The ending of the file's name, "csv" or "parquet"."""
    return path.suffix.lower()[1:]


def _advice(path: Path, kind: str, columns: Sequence[Column], examples: list[str]) -> str:
    """What the columns hold and how to correct it, as the end of a sentence."""
    names = [c.name for c in columns]
    write = _write(path)
    if kind == "decimal":
        points = {"thousands": "."} if any("." in text for text in examples) else {}
        return (
            f"have decimal commas: {listed(names)}: write 1.5 for 1,5, "
            f"{read_call(path, decimal=',', **points)}{write}"
        )
    if kind == "thousands":
        mark = re.sub(r"[\d+-]", "", examples[0])[0]
        return (
            f"have thousands separators, such as {examples[0]}: {listed(names)}: write only the "
            f"digits, {read_call(path, thousands=mark)}{write}"
        )
    if kind == "dates":
        column = f"pandas.to_datetime(table[{names[0]!r}])"
        return (
            f"hold dates or times: {listed(names)}: turn them into numbers, e.g. days since 2000, "
            f"({column} - pandas.Timestamp(2000, 1, 1)).dt.days"
        )
    if kind == "gaps":
        return (
            f"hold numbers except for some texts ({listed(map(repr, examples))}): {listed(names)}: "
            f"correct these texts, or leave them empty to have them filled, "
            f"{read_call(path, na_values=examples[:MORE])}{write}"
        )
    if kind == "text":
        return (
            f"hold numbers stored as text: {listed(names)}: convert them, {read_call(path)}"
            f".astype(dict.fromkeys({_first(names)}, float)){write}"
        )
    if kind == "words":
        return f"hold words where the model takes numbers: {listed(names)}: correct them"
    if kind == "other":
        return (
            f"hold neither numbers nor words but {listed(examples)}: {listed(names)}: leave them "
            "out, or turn them into numbers"
        )
    counts = [f"{c.name} ({len(c.words):,} different)" for c in columns]
    return (
        f"hold too many different words for categories: {listed(counts)}: leave out names and "
        f"identifiers, {read_call(path)}.drop(columns={_first(names)}){write}, or use the most "
        f"frequent words as categories, --categorical {','.join(names[:MORE])}"
    )


def _first(names: list[str]) -> list[str]:
    return names if len(names) <= MORE else [*names[:MORE], "…"]


def _write(path: Path) -> str:
    return f'.to_{kind_of(path)}("new.{kind_of(path)}", index=False)'
