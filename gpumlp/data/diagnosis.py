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
PROBLEMS = {  # what columns hold, for each kind of `Problem`, and for two more
    "decimal": "have decimal commas",
    "thousands": "have thousands separators, such as {first}",
    "dates": "hold dates or times",
    "gaps": "hold numbers except for some texts ({texts})",
    "text": "hold numbers stored as text",
    "words": "hold words where the model takes numbers",
    "many": "hold too many different words for categories",
    "other": "hold neither numbers nor words but {texts}",
    "empty": "have no values",
    "infinite": "have infinite values",
}


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
            examples = sorted(set().union(*lists))
            names = [c.name for c in affected]
            texts = listed(examples if kind == "other" else map(repr, examples))
            what = PROBLEMS[kind].format(first=examples[0] if examples else "", texts=texts)
            labels = names
            if kind == "many":
                labels = [f"{c.name} ({len(c.words):,} different)" for c in affected]
            elif kind == "infinite":
                labels = [f"{c.name} ({c.infinite})" for c in affected]
            share = f"{len(names)} of {len(columns)} feature columns"
            correction = _correction(path, kind, names, examples)
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


def _correction(path: Path, kind: str, names: list[str], examples: list[str]) -> str:
    """How to correct columns with a problem of `PROBLEMS`."""
    end = f'.to_{kind_of(path)}("new.{kind_of(path)}", index=False)'
    shown = names if len(names) <= MORE else [*names[:MORE], "…"]
    drop = f"{read_call(path)}.drop(columns={shown}){end}"
    if kind == "decimal":
        points = {"thousands": "."} if any("." in text for text in examples) else {}
        return f"write 1.5 for 1,5, {read_call(path, decimal=',', **points)}{end}"
    if kind == "thousands":
        mark = re.sub(r"[\d+-]", "", examples[0])[0]
        return f"write only the digits, {read_call(path, thousands=mark)}{end}"
    if kind == "dates":
        dates = f"pandas.to_datetime(table[{names[0]!r}])"
        days = f"({dates} - pandas.Timestamp(2000, 1, 1)).dt.days"
        return f"turn them into numbers, e.g. days since 2000, {days}"
    if kind == "gaps":
        call = f"{read_call(path, na_values=examples[:MORE])}{end}"
        return f"correct these texts, or leave them empty to have them filled, {call}"
    if kind == "text":
        return f"convert them, {read_call(path)}.astype(dict.fromkeys({shown}, float)){end}"
    if kind == "infinite":
        call = f'{read_call(path)}.replace([float("inf"), -float("inf")], None){end}'
        return f"correct them, or leave them empty to have them filled, {call}"
    if kind == "many":
        option = f"--categorical {','.join(names[:MORE])}"
        return (
            f"leave out names and identifiers, {drop}, "
            f"or use the most frequent words as categories, {option}"
        )
    return {
        "words": "correct them",
        "other": "leave them out, or turn them into numbers",
        "empty": f"leave them out, {drop}",
    }[kind]
