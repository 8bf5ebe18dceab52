"""Values such as -999 and 9999-12-31, far from all others, that may stand for missing ones."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gpumlp.data.dataset import Dataset
from gpumlp.data.fitting import statistics
from gpumlp.data.scratch import Matrix, select_rows
from gpumlp.data.spelling import NUMBER
from gpumlp.io.chunks import chunks
from gpumlp.io.types import HostArray

# nines, and the ends of types
MARK = re.compile(r"-?(9{2,6}(\.9+)?|32767)|-(32768|2147483648)|65535")
DAY = re.compile(r".*-(01-01|12-3[01])")  # as of 1900-01-01, 1899-12-30 and 9999-12-31
FAR = 3650  # days from such a day to all others, at least
MOST_ROWS, MOST_VALUES, FEWEST_ROWS = 20_000, 4_000_000, 100  # of a sample


def sample(dataset: Dataset) -> Dataset:
    """Some random examples; all unless there are many."""
    m, n = dataset.x.shape
    most = min(m, MOST_ROWS, max(MOST_VALUES // n, FEWEST_ROWS))
    rows = np.sort(np.random.default_rng(0).choice(m, most, replace=False))
    return replace(dataset, x=select_rows(dataset.x, rows), y=dataset.y[rows])


def marks(dataset: Dataset) -> list[list[str]]:
    """The values of each column, and at last of the target, that may stand for missing ones.

    These are the least or the largest ones, if they are farther from the others than these are
    from each other.
    """
    dates = {*dataset.dates}
    of_x = _marks(dataset.x, [name in dates for name in dataset.features])
    found = [
        [] if name in dataset.categories else own
        for name, own in zip(dataset.features, of_x, strict=True)
    ]
    y = dataset.y.reshape(len(dataset), -1)
    if dataset.classes is not None:
        numbers = all(map(NUMBER.fullmatch, dataset.classes))
        y = np.array([[float(label)] for label in dataset.classes if numbers]).reshape(-1, 1)
    return [*found, sorted({text for own in _marks(y, [False] * y.shape[1]) for text in own})]


def _marks(x: Matrix, dates: Sequence[bool]) -> list[list[str]]:
    """For each column of x (m, n) of numbers or dates such values."""
    found = statistics(x)
    days = np.array(dates, bool)
    ends: HostArray = np.full((2, len(days)), np.nan)
    for i, end in enumerate((found.low, found.high)):
        for j in np.flatnonzero(np.isfinite(end)):
            ends[i, j] = end[j] if _is_mark(end[j], days[j]) else np.nan
    places = np.flatnonzero(~np.isnan(ends).all(axis=0))
    low, high = np.full(len(places), np.inf), np.full(len(places), -np.inf)
    for rows in chunks(x) if len(places) else ():
        part = np.asarray(x[rows][:, places], np.float64)
        whole = np.floor(part)
        part[(whole == np.floor(ends[0, places])) | (whole == np.floor(ends[1, places]))] = np.nan
        low, high = np.fmin(low, np.fmin.reduce(part)), np.fmax(high, np.fmax.reduce(part))
    apart = np.array([low - ends[0, places], ends[1, places] - high])
    clear = (low < high) & (apart > np.maximum(high - low, FAR * days[places]))
    texts: list[list[str]] = [[] for _ in days]
    for i, k in np.argwhere(clear):
        texts[places[k]].append(_text(ends[i, places[k]], days[places[k]]))
    return texts


def _text(value: Any, day: bool) -> str:
    return str(np.datetime64(math.floor(value), "D")) if day else f"{value:.10g}"


def _is_mark(value: Any, day: bool) -> bool:
    return bool((DAY if day else MARK).fullmatch(_text(value, day)))
