"""Whether one column of a table, or the order of its rows, tells the target."""

from __future__ import annotations

import numpy as np

from gpumlp.data import Dataset
from gpumlp.data.scratch import select_rows
from gpumlp.io.chunks import chunks
from gpumlp.io.types import HostArray

MOST_ROWS = 20_000  # that are searched for leaks, and in wide tables, at so many values, fewer
MOST_VALUES, FEWER_ROWS = 4_000_000, 2000
FEWEST_ROWS = 50
LEAK = 0.999  # balanced accuracy or R² of a prediction by one column alone
BY_ORDER = 0.98  # that by the neighbouring rows, between runs of which it may be wrong
LESS = 0.7  # of the changes by chance between neighbours: a column with a leak has few
SEEN = 0.9  # of the other rows have a value of the known ones: only these are predicted
MEANS = 256  # points of the line that predicts values by one column


def leaks(dataset: Dataset) -> tuple[HostArray, bool]:
    """Whether each column (n,) predicts the target alone, and whether the order of the rows does.

    In few rows neither can be known.
    """
    (m, n), rng = dataset.x.shape, np.random.default_rng(0)
    most = min(MOST_ROWS, max(MOST_VALUES // n, FEWER_ROWS))
    rows = np.sort(rng.choice(m, min(m, most), replace=False))
    y = dataset.y[rows] if dataset.y.ndim == 1 else dataset.y[rows, 0]
    if len(rows) < FEWEST_ROWS:
        return np.zeros(n, bool), False
    if dataset.classes is None:
        y = y / (np.abs(y).max() or 1.0)  # so that squares are finite
    columns = np.ascontiguousarray(select_rows(dataset.x, rows)[:].T, np.float64)
    found = np.zeros(n, bool)
    for part in chunks(columns):
        found[part] = _follows(columns[part], y)
    for j in np.flatnonzero(found):
        found[j] = _predicts(columns[j], y)
    place = np.arange(len(y), dtype=float)
    if dataset.classes is None:  # ranks, as rare large values do not matter
        return found, _predicts(place, np.argsort(np.argsort(y)).astype(float), BY_ORDER)
    # between two classes a row may get the class of the other side
    return found, _predicts(place, y, BY_ORDER, wrong=len(dataset.classes))


def _follows(columns: HostArray, y: HostArray) -> HostArray:
    """Whether y differs less than by chance between rows with neighbouring values, (k,).

    This is necessary for what `_predicts` asks, and takes less time.

    columns: (k, m).
    """
    y = y[np.argsort(columns, axis=1)]
    if y.dtype.kind == "f":
        change, chance = np.square(np.diff(y)).sum(axis=1), 2 * y.shape[1] * y[0].var()
    else:
        change = (np.diff(y) != 0).sum(axis=1)
        chance = y.shape[1] * (1 - np.square(np.bincount(y[0]) / y.shape[1]).sum())
    return np.asarray(change <= LESS * chance)


def _predicts(column: HostArray, y: HostArray, least: float = LEAK, wrong: int = 0) -> bool:
    """Whether the values of a column (m,) predict y of the rows that are not known.

    A random half of the rows is known. Another row gets the most frequent label, or the mean, of
    the known rows with the nearest value; or it is predicted by a line through means.

    y: labels, whole numbers from 0 on; or values.
    least: the least balanced accuracy or R².
    wrong: so many of the other rows may get another label, if one label for all would miss more.
    """
    known = np.random.default_rng(1).random(len(y)) < 0.5
    column = np.where(np.isnan(column), np.inf, column)
    order = np.lexsort((y[known], column[known]))
    x, y, new, want = column[known][order], y[known][order], column[~known], y[~known]
    if y.min() == y.max():
        return False
    first = np.append(True, x[1:] != x[:-1])
    at = np.cumsum(first) - 1  # of each row the place of its value among the different ones
    near = _nearest(x[first], new)
    clear = x[first][near] == new
    if clear.mean() < SEEN:  # of values beyond the known ones the next does not tell
        top = x[np.searchsorted(x, np.inf) - 1]
        clear = (new == np.inf) | ((x[0] <= new) & (new <= top)) | (y.dtype.kind != "f")
    new, want, near = new[clear], want[clear], near[clear]
    if not len(want) or want.min() == want.max():
        return False
    if y.dtype.kind != "f":
        missed = _most_frequent(at, y)[near] != want
        there = np.bincount(want)
        rates = np.bincount(want, missed)[there > 0] / there[there > 0]
        rare = len(want) - there.max()  # so many are missed by the most frequent label alone
        return bool(1 - rates.mean() >= least or missed.sum() <= min(wrong, rare // 4))
    means = (np.bincount(at, y) / np.bincount(at))[near]
    spread = np.square(want - want.mean()).sum()
    return any(
        np.square(want - guess).sum() <= (1 - least) * spread
        for guess in (means, np.where(new < np.inf, _on_line(x, y, new), means))
    )


def _nearest(values: HostArray, new: HostArray) -> HostArray:
    """The place of the nearest of ascending values for each new one."""
    right = np.searchsorted(values, new).clip(max=len(values) - 1)
    left = (right - 1).clip(min=0)
    with np.errstate(over="ignore", invalid="ignore"):  # inf − inf
        return np.where(new - values[left] < values[right] - new, left, right)


def _most_frequent(at: HostArray, y: HostArray) -> HostArray:
    """The most frequent label of each value, for rows with values in the places `at`, ascending.

    y: the labels, ascending for each value.
    """
    run = np.flatnonzero(np.append(True, (at[1:] != at[:-1]) | (y[1:] != y[:-1])))
    run = run[np.lexsort((np.diff(run, append=len(y)), at[run]))]  # the longest is its last
    return np.asarray(y[run[np.append(at[run][1:] != at[run][:-1], True)]])


def _on_line(x: HostArray, y: HostArray, new: HostArray) -> HostArray:
    """y for new values, on a line through means of neighbours; x is ascending, inf if missing."""
    m = int(np.searchsorted(x, np.inf))
    group = np.arange(m) * MEANS // max(m, MEANS)
    if not m:
        return np.full(len(new), np.nan)
    at, means = (np.bincount(group, each[:m]) / np.bincount(group) for each in (x, y))
    return np.asarray(np.interp(new, at, means))
