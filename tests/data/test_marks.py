"""Values far from all others that may stand for missing ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpumlp.data import Dataset
from gpumlp.data.marks import MOST_ROWS, marks, sample

RNG = np.random.default_rng(0)
M = 200
RARE = np.arange(M) % 50 == 1
DAYS = np.datetime64("2020-01-01").astype(int) + RNG.integers(0, 900, M).astype(float)


def dataset(x: Any, y: Any = None, classes: Any = None, **more: Any) -> Dataset:
    task = "regression" if classes is None else "classification"
    y = RNG.normal(size=len(x)) if y is None else y
    names = tuple(f"x{j}" for j in range(x.shape[1]))
    return Dataset("t", task, x, y, names, classes, **more)


@pytest.mark.parametrize(
    "mark",
    ["-999", "9999", "-99", "99", "999999", "9999.9", "-32768", "32767", "65535", "-2147483648"],
)
def test_numbers_far_from_all_others(mark: str) -> None:
    column = np.where(RARE, float(mark), RNG.normal(size=M))
    other = RNG.normal(size=M)
    assert marks(dataset(np.stack([other, column], 1))) == [[], [mark], []]
    assert marks(dataset(np.stack([other, other], 1), column)) == [[], [], [mark]]


@pytest.mark.parametrize("column", [
    np.arange(M) % 100,  # 99 is one of them
    np.where(RARE, -1, 5 + np.arange(M)), np.where(RARE, 1000, np.arange(M)),
    np.where(RARE, -999, 7),  # of two values neither is far
    np.full(M, -999), np.full(M, np.nan), np.exp(3 * RNG.normal(size=M)),
])  # fmt: skip
def test_other_numbers(column: Any) -> None:
    x = np.stack([column, RNG.normal(size=M)], 1).astype(float)
    assert marks(dataset(x, x[:, 0])) == [[], [], []]


def test_marks_at_both_ends() -> None:
    column = np.where(RARE, -999, np.where(np.arange(M) % 50 == 3, 9999.0, np.nan))
    column[::2] = RNG.normal(size=M // 2)
    assert marks(dataset(column[:, None])) == [["-999", "9999"], []]


@pytest.mark.parametrize(
    "day", ["9999-12-31", "1900-01-01", "1899-12-30", "0001-01-01", "1970-01-01", "2099-12-31"]
)
def test_dates_far_from_all_others(day: str) -> None:
    """Also with a time of the day."""
    column = np.where(RARE, np.datetime64(day).astype(int) + np.arange(M) / M, DAYS + 0.25)
    x = np.stack([column, RNG.normal(size=M)], 1)
    assert marks(dataset(x, dates=("x0",))) == [[day], [], []]
    assert marks(dataset(x)) == [[], [], []]


@pytest.mark.parametrize("day", ["2023-12-31", "2041-07-04", "1890-03-05"])
def test_other_dates(day: str) -> None:
    column = np.where(RARE, np.datetime64(day).astype(int), DAYS)
    assert marks(dataset(column[:, None], dates=("x0",))) == [[], []]


def test_positions_of_categories_are_no_numbers() -> None:
    x = np.where(RARE, 99.0, np.arange(M) % 3)[:, None]
    words = {"x0": tuple(map(str, range(100)))}
    assert marks(dataset(x)) == [["99"], []]
    assert marks(replace(dataset(x), categories=words)) == [[], []]


def test_classes() -> None:
    x, y = RNG.normal(size=(M, 1)), np.arange(M) % 3
    assert marks(dataset(x, y, ("-999", "0", "1"))) == [[], ["-999"]]
    assert marks(dataset(x, y, ("0", "1", "2"))) == [[], []]
    assert marks(dataset(x, y, ("-999", "no", "yes"))) == [[], []]


def test_several_targets() -> None:
    y = RNG.normal(size=(M, 2))
    assert marks(dataset(y, np.where(RARE[:, None], [[0, -999]], y))) == [[], [], ["-999"]]


def test_a_sample_of_many_rows() -> None:
    """In wide tables it has fewer rows; of few rows it has all."""
    x = np.where(np.arange(50_000) % 100, RNG.normal(size=50_000), -999)[:, None]
    some = sample(dataset(x, x[:, 0]))
    assert len(some) == MOST_ROWS
    np.testing.assert_array_equal(some.x[:, 0], some.y)
    assert marks(some) == [["-999"], ["-999"]]
    assert sample(dataset(np.zeros((500, 40_000), np.float32))).x.shape == (100, 40_000)
    np.testing.assert_array_equal(sample(dataset(x[:50])).x, x[:50])
