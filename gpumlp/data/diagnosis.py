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
    groups: dict[str, list[Column]] = {}
    for column in columns:
        if column.name in problems:
            groups.setdefault(problems[column.name].kind, []).append(column)
    groups["empty"] = [c for c in columns if c.empty and c.name not in problems]
    groups["infinite"] = [c for c in columns if c.infinite]
    lines = []
    for kind, affected in groups.items():
        if affected:
            lists = [problems[c.name].examples for c in affected if c.name in problems]
            examples = sorted({text for texts in lists for text in texts})
            names = [c.name for c in affected]
            what, correction = _corrections(path, names, examples)[kind]
            labels = names
            if kind == "many":
                labels = [f"{c.name} ({len(c.words):,} different)" for c in affected]
            elif kind == "infinite":
                labels = [f"{c.name} ({c.infinite})" for c in affected]
            share = f"{len(names)} of {len(columns)} feature columns"
            lines.append(f"{share} {what}: {listed(labels)}: {correction}")
    huge = [c.name for c in columns if c.huge]
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


def _corrections(path: Path, names: list[str], examples: list[str]) -> dict[str, tuple[str, str]]:
    """For each kind of problem, what the columns hold and how to correct it."""
    end = f'.to_{kind_of(path)}("new.{kind_of(path)}", index=False)'
    first, shown = (examples or [""])[0], names if len(names) <= MORE else [*names[:MORE], "…"]
    points = {"thousands": "."} if any("." in text for text in examples) else {}
    mark = re.sub(r"[\d+-]", "", first)[:1]
    drop = f"{read_call(path)}.drop(columns={shown}){end}"
    dates = f"pandas.to_datetime(table[{names[0]!r}])"
    return {
        "decimal": (
            "have decimal commas",
            f"write 1.5 for 1,5, {read_call(path, decimal=',', **points)}{end}",
        ),
        "thousands": (
            f"have thousands separators, such as {first}",
            f"write only the digits, {read_call(path, thousands=mark)}{end}",
        ),
        "dates": (
            "hold dates or times",
            "turn them into numbers, e.g. days since 2000, "
            f"({dates} - pandas.Timestamp(2000, 1, 1)).dt.days",
        ),
        "gaps": (
            f"hold numbers except for some texts ({listed(map(repr, examples))})",
            "correct these texts, or leave them empty to have them filled, "
            f"{read_call(path, na_values=examples[:MORE])}{end}",
        ),
        "text": (
            "hold numbers stored as text",
            f"convert them, {read_call(path)}.astype(dict.fromkeys({shown}, float)){end}",
        ),
        "words": ("hold words where the model takes numbers", "correct them"),
        "other": (
            f"hold neither numbers nor words but {listed(examples)}",
            "leave them out, or turn them into numbers",
        ),
        "many": (
            "hold too many different words for categories",
            f"leave out names and identifiers, {drop}, or use the most frequent words as "
            f"categories, --categorical {','.join(names[:MORE])}",
        ),
        "empty": ("have no values", f"leave them out, {drop}"),
        "infinite": (
            "have infinite values",
            "correct them, or leave them empty to have them filled, "
            f'{read_call(path)}.replace([float("inf"), -float("inf")], None){end}',
        ),
    }
