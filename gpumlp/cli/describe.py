"""gpumlp describe: what each column of a table becomes, and whether one gives the target away."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import typer

from gpumlp.cli import options as shared
from gpumlp.cli.command import require
from gpumlp.cli.data_options import DataOptions, load
from gpumlp.cli.output import print_json, print_table
from gpumlp.data import Dataset, Preparation, Scratch
from gpumlp.data.names import quoted
from gpumlp.data.numbers import PLAIN
from gpumlp.data.scratch import select_rows
from gpumlp.io.types import HostArray

MOST_ROWS = 20_000  # that are searched for leaks
FEWEST_ROWS = 50
LEAK = 0.999  # balanced accuracy or R² of a prediction by one column alone
LEAVES = 256  # of the decision tree that predicts by one column


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
    known = Preparation.of(
        dataset, x=dataset.standardize, y=False, impute=options.impute,
        max_categories=options.max_categories, min_frequency=options.min_frequency,
    )  # fmt: skip
    rows, by_order = _columns(dataset, known), _predicts_by_order(dataset)
    majority = np.bincount(dataset.y).max() / len(dataset) if dataset.classes else None
    if options.json:
        target = {
            "task": dataset.task, "classes": dataset.classes, "majority": majority,
            "by_row_order": by_order,
        }  # fmt: skip
        named = {"data": dataset.name, "examples": len(dataset), "inputs": len(known.columns)}
        print_json({**named, **target, "columns": rows})
        return
    typer.echo(f"{dataset!r}, {len(known.columns)} inputs")
    if decision:
        typer.echo(decision)
    if majority:
        typer.echo(f"always predicting the most frequent class has an accuracy of {majority:.4f}")
    print_table(
        ("column", "becomes", "missing", ""),
        [
            (quoted(row["name"]), row["becomes"], f"{row['missing']:,}" if row["missing"] else "",
             "predicts the target alone: a leak?" if row["leak"] else "")
            for row in rows
        ],
        left=2,
    )  # fmt: skip
    if by_order:
        typer.echo("the order of the rows tells the target: split them yourself, or shuffle them")


def _columns(dataset: Dataset, known: Preparation) -> list[dict[str, Any]]:
    """For each column its name, what it becomes, how many values are missing, and leaks."""
    x, y = _sample(dataset)
    searched = len(y) >= FEWEST_ROWS
    missing = _missing(dataset)
    rows = [
        {
            "name": name,
            "becomes": _becomes(known, name),
            "missing": int(missing[j]),
            "leak": searched and _predicts(x[:, j], y, dataset.task),
        }
        for j, name in enumerate(known.features)
    ]
    return rows + [
        {"name": name, "becomes": f"left out: {why or '--drop'}", "missing": 0, "leak": False}
        for name, why in dataset.left_out.items()
    ]


def _becomes(known: Preparation, name: str) -> str:
    if name in known.categories:
        count, others = len(known.categories[name]), " and others" * (name in known.others)
        return f"{count} {'category' if count == 1 else 'categories'}{others}"
    if name in known.constant:
        return f"nothing: it is always {known.constant[name]:g}"
    form = known.formats.get(name, PLAIN)
    written = "" if form == PLAIN else f", written as {form}"
    if name in known.dates:
        return f"date: {', '.join(['day', *known.dates[name]])}{written}"
    return f"number{written}"


def _missing(dataset: Dataset) -> HostArray:
    from gpumlp.data.fitting import statistics

    return statistics(dataset.x).missing


def _sample(dataset: Dataset) -> tuple[HostArray, HostArray]:
    """Some rows, in their order: x (m, n) and y (m,)."""
    m, rng = len(dataset), np.random.default_rng(0)
    rows = np.sort(rng.choice(m, min(m, MOST_ROWS), replace=False))
    y = dataset.y[rows]
    return select_rows(dataset.x, rows)[:], y if y.ndim == 1 else y[:, 0]


def _predicts(column: HostArray, y: HostArray, task: str, wrong: int = 0) -> bool:
    """Whether a decision tree on one column (m,) predicts y of the rows that it does not know.

    wrong: so many of these may be in another class.
    """
    from sklearn.metrics import r2_score, recall_score
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    half = np.random.default_rng(1).random(len(y)) < 0.5
    known = column.reshape(-1, 1).astype(np.float64)
    if len(np.unique(y[half])) < 2 or len(np.unique(y[~half])) < 2:
        return False
    tree: Any = DecisionTreeRegressor(max_leaf_nodes=LEAVES)
    score: Any = r2_score
    if task == "classification":
        tree = DecisionTreeClassifier(max_leaf_nodes=LEAVES)
        # balanced accuracy; a class that only `half` has does not count
        score = partial(recall_score, labels=np.unique(y[~half]), average="macro")
    tree.fit(known[half], y[half])
    guessed = tree.predict(known[~half])
    return bool(score(y[~half], guessed) >= LEAK or (guessed != y[~half]).sum() <= wrong)


def _predicts_by_order(dataset: Dataset) -> bool:
    m = min(len(dataset), MOST_ROWS)
    _, y = _sample(dataset)
    borders = len(dataset.classes or ())  # beside which the tree may be wrong by a row
    if not borders:
        y = np.argsort(np.argsort(y)).astype(float)  # ranks: rare large values do not matter
    return m >= FEWEST_ROWS and _predicts(np.arange(m, dtype=float), y, dataset.task, borders)
