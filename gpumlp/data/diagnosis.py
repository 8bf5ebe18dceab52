"""Errors for columns that cannot be used, each with a line of pandas that corrects the file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpumlp.data.columns import MOST_WORDS, Column, Format, Problem
from gpumlp.data.csv_files import delimiter
from gpumlp.data.dataset import huge_numbers, listed
from gpumlp.data.dates import DateFormat
from gpumlp.data.names import as_argument
from gpumlp.data.numbers import PLAIN, format_of, singular
from gpumlp.data.target_column import TargetColumn

CHECKED_WORDS = 1000  # the most words of a target that are checked for being numbers
LISTED = 8  # the most texts that a line of pandas lists; it converts more without a list
DROP = "leave them out, --drop {option}"
GAPS = "correct these texts, or leave them empty to have them filled, {cleared}"
PROBLEMS = {  # for each kind of `Problem`, and for one more: what columns have, its correction
    "dates": ("hold dates or times where the model takes numbers", "correct them"),
    "numbers": ("hold numbers where the model takes dates", "correct them"),
    "ambiguous": (
        "hold dates such as {texts}, whose first number may be the day or the month",
        "say --date-order dmy or --date-order mdy",
    ),
    "gaps": (
        "hold {what}{format} except for some texts ({texts})",
        GAPS + ", or treat the columns as categories, --categorical {option}",
    ),
    "words": ("hold words where the model takes {what}{format} ({texts})", "correct them"),
    "many": (
        "hold too many different words for categories",
        DROP + ", or use the most frequent words as categories, --categorical {option}",
    ),
    "other": ("hold neither numbers nor words but {types}", DROP),
    "infinite": (
        "have infinite values",
        "correct them, or leave them empty to have them filled, "
        '{read}.replace([float("inf"), -float("inf")], None){save}',
    ),
}  # fmt: skip

WITHOUT_OPTIONS = {"gaps": GAPS, "other": "convert them"}  # for the new data of a model


def check_columns(path: Path, columns: Sequence[Column], options: bool = True) -> None:
    """Raise if a feature column holds neither numbers nor categories.

    options: whether options of the command, such as --drop, can correct that.
    """
    groups: dict[str, list[Column]] = {}
    found: dict[str, list[Problem]] = {}
    for column in columns:
        if (problem := column.problem) is not None:
            groups.setdefault(problem.kind, []).append(column)
            found.setdefault(problem.kind, []).append(problem)
    groups["infinite"] = [column for column in columns if column.infinite]
    share = f"of {len(columns)} feature columns"
    lines = [
        f"{len(group)} {share} {_explained(path, kind, group, found.get(kind, []), options)}"
        for kind, group in groups.items()
        if group
    ]
    huge = [column.name for column in columns if column.huge]
    if huge:
        lines.append(huge_numbers(huge, len(columns), options))
    if lines:
        raise ValueError("; ".join([f"{path} is not a table of numbers and categories", *lines]))


def check_target(
    path: Path, target: TargetColumn, task: str | None, droppable: bool | None
) -> None:
    """Raise if a target is missing, or if its words cannot be classes.

    Args:
        path: the file.
        target: its column.
        task: the task that the user asks for; None if the target decides.
        droppable: whether rows without a target are left out; None if that is not possible.
    """
    about = f"{path}: the target {target.name!r}"
    if target.missing and not droppable:
        rows = f"{_read_call(path)}.dropna(subset=[{target.name!r}]){_save_call(path)}"
        raise ValueError(
            f"{about} has {target.missing} missing values; leave out those rows, "
            + (rows if droppable is None else "--drop-missing-target")
        )
    if len(target.words) >= MOST_WORDS:
        raise ValueError(
            f"{about} holds {MOST_WORDS:,} different words or more, too many for classes"
        )
    words = dict.fromkeys([*target.words][:CHECKED_WORDS], 1)
    written = format_of(words)
    if written is None or task == "classification":
        return
    form, others = written
    if others:
        cleared = (
            f"leave these empty, {_cleared(path, [target.name], form, others)}, and leave out "
            "those rows, --drop-missing-target; or say --task classification"
        )
        raise ValueError(
            f"{about} holds numbers{_as_written(form)} except for some texts "
            f"({listed(map(repr, others))}); {cleared if droppable is not None else 'correct them'}"
        )
    if form != PLAIN:
        raise ValueError(
            f"{about} has numbers written as {form}; write 1234.5, "
            f"{_cleared(path, [target.name], form, others)}"
            + (", or say --task classification" if droppable is not None else "")
        )


def kind_of(path: Path) -> str:
    """The kind of a table by the ending of its name, "csv" or "parquet"."""
    return path.name.lower().removesuffix(".gz").rpartition(".")[2]


def _explained(
    path: Path, kind: str, columns: list[Column], found: list[Problem], options: bool
) -> str:
    names = labels = [column.name for column in columns]
    examples = sorted({text for problem in found for text in problem.examples})
    form = found[0].format if len({problem.format for problem in found}) == 1 else PLAIN
    if kind == "many":
        labels = [f"{c.name} ({len(c.words):,} different)" for c in columns]
    elif kind == "infinite":
        labels = [f"{c.name} ({c.infinite})" for c in columns]
    fields = {
        "read": _read_call(path),
        "save": _save_call(path),
        "cleared": _cleared(path, names, form, examples) if kind == "gaps" else "",
        "option": as_argument(names),
        "format": _as_written(form),
        "what": "dates" if isinstance(form, DateFormat) else "numbers",
        "texts": listed(map(repr, examples)),
        "types": listed(examples),
    }
    what, correction = PROBLEMS[kind]
    if not options:
        correction = WITHOUT_OPTIONS.get(kind, correction)
    return f"{what.format(**fields)}: {listed(labels)}: {correction.format(**fields)}"


def _as_written(form: Format) -> str:
    """Say how numbers or dates are written, with an example."""
    if form == PLAIN:
        return ""
    if isinstance(form, DateFormat):
        return f" (written as {form})"
    comma = "decimal commas, " if form.decimal == "," else ""
    return f" ({comma}written as {form})"


def _cleared(path: Path, names: list[str], form: Format, others: list[str]) -> str:
    """A line of pandas that makes numbers or dates of the columns, without the other texts."""
    if isinstance(form, DateFormat):
        date = f'pandas.to_datetime(c, format={form.pattern!r}, errors="coerce")'
        columns = f".apply(lambda c: {date} if c.name in {names} else c)"
        return f"{_read_call(path)}{columns}{_save_call(path)}"
    if form.before or form.after or len(others) > LISTED or kind_of(path) != "csv":
        marks = [(form.thousands, ""), (form.before, ""), (form.decimal, ".")]
        replaced = "".join(
            f".str.replace({mark!r}, {by!r}, regex=False)"
            for mark, by in marks
            if mark not in ("", by)
        )
        if form.after:
            unit = re.escape(singular(form.after)).replace("\\ ", " ")
            replaced += f".str.replace({unit + 's?$'!r}, '', regex=True)"
        number = f'pandas.to_numeric(c.astype(str){replaced}.str.strip(), errors="coerce")'
        columns = f".apply(lambda c: {number} if c.name in {names} else c)"
        return f"{_read_call(path)}{columns}{_save_call(path)}"
    options: dict[str, Any] = {"na_values": others} if others else {}
    if form.decimal != ".":
        options["decimal"] = form.decimal
    if form.thousands:
        options["thousands"] = form.thousands
    return f"{_read_call(path, **options)}{_save_call(path)}"


def _save_call(path: Path) -> str:
    return f'.to_{kind_of(path)}("new.{kind_of(path)}", index=False)'


def _read_call(path: Path, **options: Any) -> str:
    """The call of pandas that reads the file."""
    if kind_of(path) == "csv" and delimiter(path) != ",":
        options = {"sep": delimiter(path)} | options
    settings = "".join(f", {name}={value!r}" for name, value in options.items())
    return f'pandas.read_{kind_of(path)}("{path}"{settings})'
