"""gpumlp describe: what each column of a table becomes, and whether one gives the target away."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import typer

from gpumlp.cli import options as shared
from gpumlp.cli.command import require
from gpumlp.cli.data_options import DataOptions, load, of_columns
from gpumlp.cli.leaks import leaks
from gpumlp.cli.output import print_json, print_table
from gpumlp.data import Dataset, Preparation, Scratch
from gpumlp.data.dataset import listed
from gpumlp.data.fitting import statistics
from gpumlp.data.marks import marks
from gpumlp.data.names import quoted
from gpumlp.data.numbers import PLAIN
from gpumlp.data.spelling import NUMBER

Mark = float | str | None
MOST_LINES = 100  # of columns; more share lines


@dataclass(frozen=True, kw_only=True)
class DescribeOptions(DataOptions):
    """The options of describe."""

    json: bool = shared.json()


def describe(options: DescribeOptions) -> None:
    """Show what each column of a table becomes, without training.

    A column that predicts the target alone is marked: it may be a leak, a value that is known only
    after the target.  The same is said of the order of the rows.
    """
    require("sklearn")
    dataset, decision = load(options, Scratch())
    known = Preparation.of(dataset, x=dataset.standardize, y=False, **of_columns(options))
    marked = [_first(texts) for texts in marks(dataset)]
    rows, by_order = _columns(dataset, known, marked[:-1])
    majority = np.bincount(dataset.y).max() / len(dataset) if dataset.classes else None
    if options.json:
        target = {
            "task": dataset.task, "classes": dataset.classes, "majority": majority,
            "by_row_order": by_order, "mark": marked[-1],
        }  # fmt: skip
        named = {"data": dataset.name, "examples": len(dataset), "inputs": len(known.columns)}
        print_json({**named, **target, "columns": rows})
        return
    typer.echo(f"{dataset!r}, {len(known.columns)} inputs")
    if decision:
        typer.echo(decision)
    if majority:
        typer.echo(f"always predicting the most frequent class has an accuracy of {majority:.4f}")
    if len(rows) > MOST_LINES:
        typer.echo("columns that become the same share a line; --json has all of them")
    print_table(("column", "becomes", "missing", ""), _lines(rows), left=2)
    if marked[-1] is not None:
        typer.echo(f"the target: {_question(marked[-1])}")
    if by_order:
        typer.echo("the order of the rows tells the target: split them yourself, or shuffle them")


def _columns(
    dataset: Dataset, known: Preparation, marked: Sequence[Mark]
) -> tuple[list[dict[str, Any]], bool]:
    """For each column its name, what it becomes, how many values are missing, and leaks.

    The second is whether the order of the rows tells the target.
    """
    found = statistics(dataset.x)
    leak, by_order = leaks(dataset)
    others = {*known.others}
    each = (found.missing.tolist(), leak.tolist(), marked)
    rows = [
        _row(name, _becomes(known, name, name in others), *values)
        for name, *values in zip(known.features, *each, strict=True)
    ]
    return rows + [
        _row(name, f"left out: {why or '--drop'}") for name, why in dataset.left_out.items()
    ], by_order


def _row(
    name: str, becomes: str, missing: int = 0, leak: bool = False, mark: Mark = None
) -> dict[str, Any]:
    return {"name": name, "becomes": becomes, "missing": missing, "leak": leak, "mark": mark}


def _lines(rows: list[dict[str, Any]]) -> Iterator[tuple[str, str, str, str]]:
    """A line for each column; of very many columns one for those that become the same."""
    groups: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for j, row in enumerate(rows):
        key: tuple[object, ...] = (row["becomes"], j)
        if len(rows) > MOST_LINES:  # apart from the numbers in it
            what = re.sub(r"(^|of )[\d,]+ categor(y|ies)", r"\1categories", row["becomes"])
            what = re.sub(r"(: it is always) .*", r"\1 the same", what)
            key = (what, row["missing"] > 0, row["leak"], row["mark"])
        groups.setdefault(key, []).append(row)
    for (becomes, *_), group in groups.items():
        missing = sum(row["missing"] for row in group)
        yield (
            listed(quoted(row["name"]) for row in group), str(becomes),
            f"{missing:,}" if missing else "",
            _note(group[0]),
        )  # fmt: skip


def _note(row: dict[str, Any]) -> str:
    if row["leak"]:
        return "predicts the target alone: a leak?"
    return "" if row["mark"] is None else _question(row["mark"])


def _question(mark: Mark) -> str:
    return f"is {mark if isinstance(mark, str) else f'{mark:.10g}'} a missing value?"


def _first(marks: Sequence[str]) -> Mark:
    """The first mark, as a number unless it is a date; None if there is none."""
    if not marks:
        return None
    return float(marks[0]) if NUMBER.fullmatch(marks[0]) else marks[0]


def _becomes(known: Preparation, name: str, other: bool) -> str:
    if name in known.categories:
        count, others = len(known.categories[name]), " and others" * other
        if not count:
            return "nothing: all categories are rare"
        what = f"{count:,} {'category' if count == 1 else 'categories'}{others}"
        d = known.embedded.get(name)
        return what if d is None else f"embedding of {d} of {what}"
    if name in known.constant:
        return f"nothing: it is always {known.constant[name]:g}"
    form = known.formats.get(name, PLAIN)
    written = "" if form == PLAIN else f", written as {form}"
    if name in known.dates:
        return f"date: {', '.join(['day', *known.dates[name]])}{written}"
    return f"number{written}"
