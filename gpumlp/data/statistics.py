"""What the training part says of its columns, read piece by piece: the same in memory and not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from gpumlp.data.raw import NONE, Categories, listed
from gpumlp.data.scratch import Matrix
from gpumlp.io.chunks import chunks
from gpumlp.io.types import HostArray

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Statistics:
    """Of the columns of x (m, n), each array (n,).

    Attributes:
        missing: how many values are NaN.
        low, high, mean: of the others.
        squares: Σ(x − mean)² of the others.
        count: how many others there are.
        often: of columns of categories, how often each was met.
    """

    missing: HostArray
    count: HostArray
    low: HostArray
    high: HostArray
    mean: HostArray
    squares: HostArray
    often: Mapping[str, HostArray]

    def moments(self, names: Sequence[str]) -> tuple[Numbers, Numbers]:
        """Mean and standard deviation of each column; the value and 1 of a constant one.

        Raises:
            ValueError: a column's moments lie beyond float64.
        """
        constant = (self.low == self.high) | (self.count == 0)
        mean = np.where(constant, np.where(self.count, self.low, 0), self.mean)
        with np.errstate(under="ignore", invalid="ignore"):
            std = np.where(constant, 1.0, np.sqrt(self.squares / np.maximum(self.count, 1)))
        # a deviation whose square is beyond float64 comes out as inf, below it as 0
        bad = ~(np.isfinite(mean) & np.isfinite(std) & (std > 0))
        if bad.any():
            raise ValueError(
                "values too large or too small to be standardised: "
                f"{listed(name for name, odd in zip(names, bad.tolist(), strict=True) if odd)}; "
                "rescale them, or take logarithms"
            )
        return tuple(mean.tolist()), tuple(std.tolist())


def statistics(x: Matrix, names: Sequence[str] = (), categories: Categories = NONE) -> Statistics:
    """Read x once; pieces are joined by the update of Chan, Golub and LeVeque (1983).

    names: of the columns, needed for those of `categories`.
    """
    n = x.shape[1]
    missing = count = np.zeros(n, np.int64)
    mean = squares = np.zeros(n)
    low, high = np.full(n, np.inf), np.full(n, -np.inf)
    often = {name: np.zeros(len(categories[name]), np.int64) for name in categories}
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
            for name, total in often.items():
                column = part[:, names.index(name)]
                codes = column[~np.isnan(column)].astype(np.int64)
                total += np.bincount(codes, minlength=len(total))[: len(total)]
    return Statistics(missing, count, low, high, mean, squares, often)


def median(x: Matrix, j: int) -> float:
    """The median of column j, NaN left out: 8 bytes an example in memory, a column at a time."""
    column = np.concatenate([x[rows][:, j].astype(np.float64) for rows in chunks(x)])
    return float(np.nanmedian(column))


def only(found: Statistics, columns: HostArray) -> Statistics:
    """The statistics of some columns."""
    arrays = {f.name: getattr(found, f.name)[columns] for f in fields(found) if f.name != "often"}
    return Statistics(**arrays, often={})


def spread(values: Sequence[float] | HostArray, columns: HostArray, other: float) -> Numbers:
    """The values in the columns' places, and another number in the rest."""
    out = np.full(len(columns), float(other))
    out[columns] = values
    return tuple(out.tolist())
