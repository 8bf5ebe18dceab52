"""Statistics of columns, read in pieces, and what a preparation learns from the training part."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gpumlp.data.codes import Embed
from gpumlp.data.dataset import NONE, Categories, Dataset, listed
from gpumlp.data.date_parts import PARTS
from gpumlp.data.date_parts import part as date_part
from gpumlp.data.names import as_argument, quoted
from gpumlp.data.scratch import Matrix
from gpumlp.io.chunks import chunks
from gpumlp.io.types import HostArray

Numbers = tuple[float, ...]
IMPUTE = ("mean", "median", "refuse")
FAR = 1000  # standard deviations; in a column of fewer than a million values, none is so far
SORTED_BYTES = 64 << 20  # of columns whose medians are computed together


class Statistics(NamedTuple):
    """Statistics of the columns of x (m, n), each an array (n,).

    Attributes:
        missing: the number of values that are NaN.
        present: the number of other values, to which all that follows refers.
        low, high, mean: the smallest and the largest value and the mean.
        squares: Σ(x − mean)².
        category_counts: for each column of categories, by name, the frequency of each category.
    """

    missing: HostArray
    present: HostArray
    low: HostArray
    high: HostArray
    mean: HostArray
    squares: HostArray
    category_counts: Mapping[str, HostArray]

    def constant(self, names: Sequence[str], numeric: HostArray) -> dict[str, float]:
        """The columns of numbers whose values are all equal, and the value."""
        still = numeric & (self.low == self.high)
        return {names[j]: float(self.low[j]) for j in np.flatnonzero(still).tolist()}

    def moments(self, names: Sequence[str]) -> tuple[Numbers, Numbers]:
        """Mean and standard deviation of each column, named `names`; its value and 1 if constant.

        Raises ValueError if float64 cannot represent them.
        """
        constant = (self.low == self.high) | (self.present == 0)
        mean = np.where(constant, np.where(self.present, self.low, 0), self.mean)
        with np.errstate(under="ignore", invalid="ignore"):
            std = np.where(constant, 1.0, np.sqrt(self.squares / np.maximum(self.present, 1)))
        # a deviation whose square float64 cannot represent comes out as inf or as 0
        bad = ~(np.isfinite(mean) & np.isfinite(std) & (std > 0))
        if bad.any():
            odd = listed(quoted(names[j]) for j in np.flatnonzero(bad).tolist())
            raise ValueError(
                f"values too large or too small to be standardised: {odd}; rescale them, "
                "or take logarithms"
            )
        return tuple(mean.tolist()), tuple(std.tolist())


def statistics(x: Matrix, names: Sequence[str] = (), categories: Categories = NONE) -> Statistics:
    """Read x once. Pieces are combined by the update of Chan, Golub and LeVeque (1983).

    names: the column names, needed only for columns in `categories`.
    """
    n = x.shape[1]
    missing = count = np.zeros(n, np.int64)
    mean = squares = np.zeros(n)
    low, high = np.full(n, np.inf), np.full(n, -np.inf)
    coded = np.array([j for j, name in enumerate(names) if name in categories], int)
    ends = np.cumsum([len(categories[names[j]]) + 1 for j in coded], dtype=np.int64)
    first = np.append(0, ends)[: len(ends)]
    counts = np.zeros(ends[-1] if len(ends) else 0, np.int64)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for rows in chunks(x):
            part = x[rows].astype(np.float64, copy=False)
            gone = np.isnan(part)
            there = len(part) - gone.sum(axis=0)
            m = np.where(gone, 0, part).sum(axis=0) / np.maximum(there, 1)
            s = np.square(np.where(gone, 0, part - m)).sum(axis=0)
            share = there / np.maximum(count + there, 1)
            between = np.where((count > 0) & (there > 0), np.square(m - mean), 0.0)
            squares = squares + s + between * count * share
            mean = np.where(count > 0, mean + (m - mean) * share, m)
            missing, count = missing + gone.sum(axis=0), count + there
            low = np.fmin(low, np.where(gone, np.inf, part).min(axis=0))
            high = np.fmax(high, np.where(gone, -np.inf, part).max(axis=0))
            codes = (part[:, coded] + first)[~gone[:, coded]].astype(np.int64)
            counts += np.bincount(codes, minlength=len(counts))
    category_counts = {
        names[j]: counts[start : end - 1]
        for j, start, end in zip(coded.tolist(), first, ends, strict=True)
    }
    return Statistics(missing, count, low, high, mean, squares, category_counts)


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
        what = (
            f"{train.name}: {len(empty)} of {n} feature columns have no values in the training part"
        )
        if train.target is None:  # the columns of arrays have no names
            raise ValueError(f"{what}: {listed(empty)}; train on all rows, --validation 0")
        raise ValueError(
            f"{what}: {listed(map(quoted, empty))}; leave them out, --drop {as_argument(empty)}"
        )
    holes = [f"{quoted(name)} ({count})" for name, count in missing.items() if count]
    if holes and impute == "refuse":
        raise ValueError(
            f"{train.name}: {len(holes)} of {n} feature columns have missing values: "
            f"{listed(holes)}; drop those rows, or have them filled, --impute mean"
        )


def not_filled(features: Sequence[str], missing: Sequence[int]) -> ValueError:
    """The error for missing values, so many in each column, that the model cannot fill."""
    counts = zip(features, missing, strict=True)
    names = [f"{quoted(name)} ({count})" for name, count in counts if count]
    return ValueError(
        f"{len(names)} of {len(features)} columns have missing values: {listed(names)}; "
        "the model was trained without filling them: drop those rows, or train it again"
    )


class Selected(NamedTuple):
    """What is kept of each column of categories.

    Attributes:
        categories: the categories that are not rare, sorted.
        others: the columns with other categories.
        embedded: the columns that become codes, and how many entries their vectors have.
    """

    categories: dict[str, tuple[str, ...]]
    others: tuple[str, ...]
    embedded: dict[str, int]


def select_categories(
    train: Dataset, found: Statistics, most: int, least: int, embed: Embed
) -> Selected:
    """The categories of each column that occur `least` times or more.

    Of a column that does not become codes these are the `most` frequent, the first by name of
    equally frequent ones.  Where all are rare, the column says nothing and has no input.

    Raises ValueError if no input is left.
    """
    selected, with_others, embedded = {}, [], embed.named(train)
    missing = dict(zip(train.features, found.missing.tolist(), strict=True))
    for name, words in train.categories.items():
        counts = found.category_counts[name].tolist()
        seen = [(-count, word) for word, count in zip(words, counts, strict=True) if count]
        frequent = [word for count, word in sorted(seen) if -count >= least]
        if embed.width is not None and name not in embedded:
            inputs = len(frequent) + (len(frequent) < len(seen))
            embedded |= {name: embed.width} if inputs > embed.width else {}
        if not frequent:
            embedded.pop(name, None)  # all would have one vector
        if name not in embedded:
            frequent = frequent[:most]
        selected[name] = tuple(sorted(frequent))
        if frequent and len(frequent) < len(seen):
            with_others.append(name)
    if len(selected) == len(train.features) and not any([*selected.values(), *missing.values()]):
        most = max(int(counts.max()) for counts in found.category_counts.values())
        raise ValueError(
            f"{train.name}: no category has {least} examples in the training part; say "
            f"--min-frequency {most}"
        )
    return Selected(selected, tuple(with_others), embedded)


def date_parts(train: Dataset) -> dict[str, tuple[str, ...]]:
    """For each column of dates the parts that vary."""
    place = {name: j for j, name in enumerate(train.features)}
    columns = [place[name] for name in train.dates]
    low, high = np.full((2, len(PARTS), len(columns)), [[[np.inf]], [[-np.inf]]])
    for rows in chunks(train.x) if columns else ():
        day = train.x[rows][:, columns].astype(np.float64)
        for i, part in enumerate(PARTS):
            values = date_part(part, day)
            low[i] = np.fmin(low[i], np.fmin.reduce(values))
            high[i] = np.fmax(high[i], np.fmax.reduce(values))
    return {
        name: tuple(itertools.compress(PARTS, varies))
        for name, varies in zip(train.dates, (low < high).T, strict=True)
    }


def fill_values(
    train: Dataset, found: Statistics, numeric: HostArray, impute: str
) -> Numbers | None:
    """For each column what replaces missing values, 0 for categories; None for "refuse"."""
    if impute == "refuse":
        return None
    fill = np.where(numeric, found.mean, 0)
    if impute == "median":
        columns = np.flatnonzero(numeric & (found.missing > 0))
        for some in np.array_split(columns, 1 + 8 * len(columns) * len(train) // SORTED_BYTES):
            values = [train.x[rows][:, some].astype(np.float64) for rows in chunks(train.x)]
            fill[some] = np.nanmedian(np.concatenate(values), axis=0)
    return tuple(fill.tolist())


def target_moments(train: Dataset) -> tuple[Numbers, Numbers]:
    """Mean and standard deviation of each column of the target."""
    values = train.y.reshape(len(train.y), -1)
    name = "the target" if train.target is None else f"the target {train.target}"
    names = [f"{name}[{j}]" for j in range(values.shape[1])] if values.shape[1] > 1 else [name]
    return statistics(values).moments(names)
