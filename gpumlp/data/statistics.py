"""Statistics of columns that are read in pieces, whether they are in memory or on disk."""

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
    """Statistics of the columns of x (m, n), each an array (n,).

    Attributes:
        missing: the number of values that are NaN.
        count: the number of other values, to which all that follows refers.
        low, high, mean: the smallest and the largest value and the mean.
        squares: Σ(x − mean)².
        category_counts: for each column of categories, by name, the frequency of each category.
    """

    missing: HostArray
    count: HostArray
    low: HostArray
    high: HostArray
    mean: HostArray
    squares: HostArray
    category_counts: Mapping[str, HostArray]

    def moments(self, names: Sequence[str]) -> tuple[Numbers, Numbers]:
        """Mean and standard deviation of each column; for a constant column its value and 1.

        Raises:
            ValueError: float64 cannot represent the moments of a column.
        """
        constant = (self.low == self.high) | (self.count == 0)
        mean = np.where(constant, np.where(self.count, self.low, 0), self.mean)
        with np.errstate(under="ignore", invalid="ignore"):
            std = np.where(constant, 1.0, np.sqrt(self.squares / np.maximum(self.count, 1)))
        # a deviation whose square float64 cannot represent comes out as inf or as 0
        bad = ~(np.isfinite(mean) & np.isfinite(std) & (std > 0))
        if bad.any():
            raise ValueError(
                "values too large or too small to be standardised: "
                f"{listed(name for name, odd in zip(names, bad.tolist(), strict=True) if odd)}; "
                "rescale them, or take logarithms"
            )
        return tuple(mean.tolist()), tuple(std.tolist())

    def of_columns(self, columns: HostArray) -> Statistics:
        """The statistics of some columns, without their categories."""
        names = [f.name for f in fields(self) if f.name != "category_counts"]
        return Statistics(
            **{name: getattr(self, name)[columns] for name in names}, category_counts={}
        )


def statistics(x: Matrix, names: Sequence[str] = (), categories: Categories = NONE) -> Statistics:
    """Read x once. Pieces are combined by the update of Chan, Golub and LeVeque (1983).

    names: the column names, needed only for columns in `categories`.
    """
    n = x.shape[1]
    missing = count = np.zeros(n, np.int64)
    mean = squares = np.zeros(n)
    low, high = np.full(n, np.inf), np.full(n, -np.inf)
    category_counts = {name: np.zeros(len(words), np.int64) for name, words in categories.items()}
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
            for name, total in category_counts.items():
                column = part[:, names.index(name)]
                codes = column[~np.isnan(column)].astype(np.int64)
                total += np.bincount(codes, minlength=len(total))[: len(total)]
    return Statistics(missing, count, low, high, mean, squares, category_counts)


def median(x: Matrix, j: int) -> float:
    """The median of column j without NaN. It needs 8 bytes of memory for each example."""
    column = np.concatenate([x[rows][:, j].astype(np.float64) for rows in chunks(x)])
    return float(np.nanmedian(column))
