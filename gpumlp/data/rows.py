"""Checks of the rows of a data set before it is learned from."""

from __future__ import annotations

import numpy as np

from gpumlp.data.columns import FEWEST_ROWS
from gpumlp.data.dataset import Dataset, listed
from gpumlp.data.names import quoted
from gpumlp.data.scratch import Matrix
from gpumlp.io.chunks import chunks
from gpumlp.io.types import HostArray

LEAST = 2.1  # times the other numbers is a total, and not the next of 1, 2, 4, 8, …
ROUNDED = 1e-3  # a total may differ so much, relatively, from the sum of rounded numbers,
EXACT = 1e-6  # and so much where some are negative, whose sum may be any number


def check_varies(data: Dataset) -> None:
    """Raise if there is nothing to learn."""
    x, y = data.x, data.y
    if bool((y == y[:1]).all()):
        raise ValueError(
            f"{data.name}: the target is the same for all {len(y)} rows: nothing to learn"
        )
    first, gone = x[:1], np.isnan(x[:1])  # a missing value among others says something, too
    if all(bool(((x[rows] == first) | (np.isnan(x[rows]) & gone)).all()) for rows in chunks(x)):
        raise ValueError(f"{data.name}: all features are constant: nothing to learn from")


def check_no_totals(data: Dataset) -> None:
    """Raise if the first or the last row of a table holds the sums of all others."""
    m, x, y = len(data), data.x, data.y.reshape(len(data), -1)
    if m < FEWEST_ROWS or data.target is None:
        return
    for i, where in ((0, "first"), (m - 1, "last")):
        sums = np.flatnonzero(_is_total(x, i)).tolist()
        names = [n for n in map(data.features.__getitem__, sums) if n not in data.categories]
        names += [data.target] * (data.classes is None and bool(_is_total(y, i).any()))
        if names := [name for name in names if name not in data.dates]:
            raise ValueError(
                f"{data.name}: the {where} row holds the sums of the other rows in "
                f"{listed(map(quoted, names))}; leave out that row of totals"
            )


def _is_total(x: Matrix, i: int) -> HostArray:
    """Whether row i of each column of x (m, n) is the sum of the others: (n,)."""
    row = x[i : i + 1][0]
    total, positive = row == row, row > 0
    sums, filled = np.zeros(len(row)), np.zeros(len(row), np.int64)
    for rows in chunks(x):
        part = np.nan_to_num(x[rows])
        if rows.start <= i < rows.stop:
            part[i - rows.start] = 0
        sums, filled = sums + part.sum(axis=0), filled + (part != 0).sum(axis=0)
        positive &= (part >= 0).all(axis=0)
        total &= (LEAST * np.abs(part) < np.abs(row)).all(axis=0)
        if not total.any():  # the first rows show it
            break
    near = np.abs(sums - row) <= np.where(positive, ROUNDED, EXACT) * np.abs(row)
    return np.asarray(total & near & (2 * filled >= len(x)))
