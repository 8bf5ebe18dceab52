"""What a preparation learns from the training part: categories, fill values, target's moments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpumlp.data.dataset import Dataset
from gpumlp.data.raw import listed
from gpumlp.data.statistics import Numbers, Statistics, median, statistics
from gpumlp.io.types import HostArray

IMPUTE = ("mean", "median", "refuse")


def check_impute(impute: str) -> None:
    """Raise unless `impute` is one of `IMPUTE`."""
    if impute not in IMPUTE:
        raise ValueError(f"impute must be one of {', '.join(IMPUTE)}, got {impute!r}")


def check_missing(train: Dataset, found: Statistics, impute: str) -> None:
    """Raise if a column has no value to learn from, or if values are missing and refused."""
    m, n = train.x.shape
    missing = dict(zip(train.features, found.missing.tolist(), strict=True))
    empty = [name for name, count in missing.items() if count == m]
    if empty:
        raise ValueError(
            f"{train.name}: {len(empty)} of {n} feature columns have no values in the training "
            f"part: {listed(empty)}; leave them out"
        )
    holes = [f"{name} ({count})" for name, count in missing.items() if count]
    if holes and impute == "refuse":
        raise ValueError(
            f"{train.name}: {len(holes)} of {n} feature columns have missing values: "
            f"{listed(holes)}; drop those rows, or have them filled, --impute mean"
        )


def select_categories(
    train: Dataset, found: Statistics, most: int, least: int
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """The categories with an input of their own, sorted, by column; and the columns with others.

    Args:
        train: the training part.
        found: its statistics. Words that do not occur in it are not categories.
        most: the largest number of categories of a column. The most frequent are selected; among
            equally frequent ones the first by name.
        least: the smallest frequency of a selected category.
    """
    selected, with_others = {}, []
    for name, words in train.categories.items():
        counts = found.category_counts[name].tolist()
        seen = [(-count, word) for word, count in zip(words, counts, strict=True) if count]
        frequent = [word for count, word in sorted(seen)[:most] if -count >= least]
        selected[name] = tuple(sorted(frequent))
        if len(frequent) < len(seen):
            with_others.append(name)
    return selected, tuple(with_others)


def input_positions(words: Sequence[str], known: Sequence[str], other: bool) -> HostArray:
    """For each word its position among the inputs of its column, −1 for none.

    The last entry is the position of every word that is not in `words`.

    words: what the positions in the data stand for; known: the categories with an input of their
    own; other: whether one more input stands for all other words.
    """
    at = {word: i for i, word in enumerate(known)}
    rest = len(known) if other else -1
    return np.array([*(at.get(word, rest) for word in words), rest])


def fill_values(
    train: Dataset, found: Statistics, numeric: HostArray, impute: str
) -> Numbers | None:
    """For each column what replaces missing values, 0 for categories; None for "refuse"."""
    if impute == "refuse":
        return None
    fill = place(found.mean[numeric], numeric, 0)
    if impute == "mean":
        return fill
    holes = set(np.flatnonzero(numeric & (found.missing > 0)).tolist())
    return tuple(median(train.x, j) if j in holes else v for j, v in enumerate(fill))


def target_moments(train: Dataset) -> tuple[Numbers, Numbers]:
    """Mean and standard deviation of each column of the target."""
    values = train.y.reshape(len(train.y), -1)
    name = "the target" if train.target is None else f"the target {train.target}"
    several = values.shape[1] > 1
    names = [f"{name}[{j}]" if several else name for j in range(values.shape[1])]
    return statistics(values).moments(names)


def place(values: Sequence[float] | HostArray, columns: HostArray, rest: float) -> Numbers:
    """A number for each column: the values where `columns` (n,) is true, `rest` elsewhere."""
    out = np.full(len(columns), float(rest))
    out[columns] = values
    return tuple(out.tolist())
