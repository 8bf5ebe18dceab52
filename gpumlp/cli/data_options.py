"""The options of the data, how it is loaded, and what is said about how it was read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import typer

from gpumlp import data as datasets
from gpumlp.cli import options as shared
from gpumlp.cli.options import option, parse_embed
from gpumlp.data import IMPUTE, TASKS, Dataset, Preparation, Scratch
from gpumlp.data.dataset import listed
from gpumlp.data.dates import ORDERS
from gpumlp.data.marks import marks, sample
from gpumlp.data.names import quoted
from gpumlp.data.numbers import PLAIN
from gpumlp.data.spelling import NUMBER
from gpumlp.functions import LOSSES
from gpumlp.io.distinct import distinct

MANY_CLASSES = 100  # whole numbers with fewer distinct values may be meant as classes


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The options of the data and of its preparation."""

    data: list[str] = shared.data(("mnist5k",))
    target: str | None = shared.target()
    task: str | None = option(None, "NAME", "Task: {names}.  [default: the target decides]", TASKS)
    categorical: list[str] | None = option(
        None, "COLUMNS",
        "Columns to treat as categories: columns of numbers, or of text with very many different "
        f"values.  All other columns of text are categories anyway.  {shared.COLUMNS}",
    )  # fmt: skip
    drop: list[str] | None = option(None, "COLUMNS", f"Columns to leave out.  {shared.COLUMNS}")
    keep: list[str] | None = option(
        None, "COLUMNS",
        "Columns to keep although they look like row numbers or identifiers, which are left out "
        f"otherwise.  {shared.COLUMNS}",
    )  # fmt: skip
    drop_missing_target: bool = shared.drop_missing_target()
    date_order: str | None = option(
        None, "NAME",
        "Order of day, month and year in dates such as 03/04/2020: {names}.  [default: the dates "
        "decide]", ORDERS,
    )  # fmt: skip
    max_categories: int = option(
        100, "N",
        "Number of categories of a column that get an input each.  The rarest categories share "
        "one input.", min=1,
    )  # fmt: skip
    min_frequency: int = option(
        5, "N", "Number of examples that a category needs to get its own input.", min=1
    )
    embed: list[str] | None = option(
        None, "N or COLUMN=N",
        "Learn a vector of N numbers, an embedding, for each category of a column, in place of an "
        "input for each.  A number alone is for all columns with more categories than that; "
        "city=16 is for one column.  Here all categories have a vector of their own that have "
        "--min-frequency examples.  Separate several with commas, or repeat the option.",
    )  # fmt: skip
    impute: str = option(
        "mean", "NAME",
        "Replacement of missing numbers: {names}.  An additional input marks them.",
        IMPUTE,
    )  # fmt: skip


def load(
    options: DataOptions, scratch: Scratch, loss: str | None = None,
    others: Sequence[DataOptions] = (),
) -> tuple[Dataset, str]:  # fmt: skip
    """The data, and one line that says what the target was taken for, "" if that is clear.

    others: options whose embedded columns are kept, too.
    """
    texts = {text for each in (options, *others) for text in each.embed or ()}
    embed = {name for text in sorted(texts) for name, _ in parse_embed([text]).columns}
    dataset = datasets.load(
        options.data, options.target, options.task,
        categorical=options.categorical or (), drop=options.drop or (), keep=options.keep or (),
        drop_missing_target=options.drop_missing_target, date_order=options.date_order,
        embed=[*map(quoted, sorted(embed))],
        scratch=scratch,
    )  # fmt: skip
    if options.task is None and options.data[0] not in datasets.EMBEDDED:
        return _decided(dataset, loss)
    return dataset, ""


def of_columns(options: DataOptions) -> dict[str, Any]:
    """The arguments of `Preparation.of` that say how columns become inputs."""
    return {
        "impute": options.impute, "max_categories": options.max_categories,
        "min_frequency": options.min_frequency, "embed": parse_embed(options.embed or ()),
    }  # fmt: skip


def print_reading(dataset: Dataset, known: Preparation, decision: str) -> None:
    """Print on stderr how the target and the columns were read."""
    if decision:
        typer.echo(decision, err=True)
    words = {
        name: f"{quoted(name)} ({len(own):,}{' and others' * (name in known.others)}"
        for name, own in known.categories.items()
        if own
    }
    marked = zip(
        [*map(quoted, dataset.features), "the target"], marks(sample(dataset)), strict=True
    )
    said = {
        "columns left out; --keep keeps them":
            [f"{name} ({why})" for name, why in dataset.left_out.items() if why],
        "columns whose values are written so":
            [f"{name} ({form})" for name, form in known.formats.items() if form != PLAIN],
        "columns of dates, and their inputs":
            [f"{name} ({', '.join(['day', *parts])})" for name, parts in known.dates.items()],
        "columns not used, as all categories are rare":
            [quoted(name) for name, own in known.categories.items() if not own],
        "columns of categories, one input for each":
            [f"{text})" for name, text in words.items() if name not in known.embedded],
        "columns of categories, a vector for each":
            [f"{words[name]}; {d} numbers)" for name, d in known.embedded.items()],
        "columns with missing values, filled and marked": [*map(quoted, known.holes)],
        "columns with values that may mean missing ones":
            [f"{name} ({' or '.join(found)})" for name, found in marked if found],
    }  # fmt: skip
    for what, columns in said.items():
        if columns:
            typer.echo(f"{what}: {listed(columns)}", err=True)


def _decided(dataset: Dataset, loss: str | None) -> tuple[Dataset, str]:
    """The data, and what its target's whole numbers are taken for; a loss of quantities decides."""
    classes, y = dataset.classes, dataset.y
    if classes is not None and all(map(NUMBER.fullmatch, classes)):
        if loss is not None and LOSSES[loss].target in ("real", "count"):
            y = np.array([*map(float, classes)])[y]
            return replace(dataset, task="regression", y=y, classes=None), ""
        count, taken, task, other = len(classes), "classes", "regression", "quantities"
    elif classes is None and y.ndim == 1 and not loss and bool((y == np.floor(y)).all()):
        count, taken, task, other = len(distinct(y)), "quantities", "classification", "classes"
    else:
        return dataset, ""
    if count > MANY_CLASSES:
        return dataset, ""
    numbers = f"the target's {count} whole numbers are taken as {taken}"
    return dataset, f"{numbers}; --task {task} takes them as {other}"
