"""Dataset: features, targets and their names; how one is loaded, whole or piece by piece."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from gpumlp.data.arrays import read_npy, read_npz
from gpumlp.data.embedded import EMBEDDED
from gpumlp.data.preparation import Preparation
from gpumlp.data.raw import NONE, Categories, Raw, listed
from gpumlp.data.scratch import Matrix, Scratch
from gpumlp.data.tables import Piece, Table
from gpumlp.data.targets import check_finite, check_varies, labels, task_of, values
from gpumlp.io.chunks import chunks
from gpumlp.io.types import HostArray

Source = str | os.PathLike[str]

TASKS = ("classification", "regression")
TABLES = (".csv", ".parquet")
ARRAYS: Mapping[str, Callable[..., Raw]] = MappingProxyType({".npz": read_npz, ".npy": read_npy})


@dataclass(frozen=True)
class Dataset:
    """Examples with targets.

    Attributes:
        name: short, for messages and folders.
        task: "classification" or "regression".
        x: (m, n), float32 or float64, raw: NaN where a value is missing, else finite; of a column
            of categories the position among its `categories`.  Of data that is streamed, what is
            read a slice at a time: ``x[a:b]``.
        y: labels (m,) int64, 0 … len(classes) − 1; or values (m,) or (m, k), float64.
        features: names of x's columns.
        classes: names of the labels; None for regression.
        target: the column that was asked for; None for the source's own.
        standardize: whether training should standardise the features: not for pixels, which
            share a unit.
        categories: the categories of columns that hold such, by the columns' names.
        ordered: whether `split` keeps the rows' order.
    """

    name: str
    task: str
    x: Matrix
    y: HostArray
    features: tuple[str, ...]
    classes: tuple[str, ...] | None = None
    target: str | None = None
    standardize: bool = True
    categories: Categories = field(default_factory=dict)
    ordered: bool = True

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        m, n = self.x.shape
        what = f"{len(self.classes)} classes" if self.classes else "real target"
        return f"{self.name}: {m:,} examples, {n} features, {self.task}, {what}"


def load(
    source: Source = "mnist5k",
    target: str | None = None,
    task: str | None = None,
    like: Preparation | None = None,
    *,
    categorical: Collection[str] = (),
    scratch: Scratch | None = None,
) -> Dataset:
    """A data set with targets.

    Args:
        source: "mnist5k", "digits", "breast_cancer", "diabetes", or a file:
            .csv, .parquet: columns with names, of numbers, truth values or words; a .csv file is
            UTF-8, its columns apart by comma, semicolon, tab or |;
            .npz: arrays x (or X) and y (or Y);
            .npy: one table of numbers.
        target: the column to predict; needed for .csv and .parquet; of an .npz file the array's
            name (y), of an .npy file the column's number (the last).
        task: "classification" or "regression"; None decides by the target: words, truth values
            and up to 20 distinct whole numbers are classes, all else values.
        like: what a model was trained on: its features are taken, by name from .csv and .parquet
            files and by position from arrays, and its labels for the classes.
        categorical: columns of .csv and .parquet files that hold categories though they look like
            numbers, or though they have many different words.
        scratch: where large data goes; None keeps all in memory.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError, TypeError: it cannot be used; the message says why and what to do.
        ImportError: a library is missing; the message says what to install.
        OSError: the disk is full.
    """
    if task not in (None, *TASKS):
        raise ValueError(f"unknown task {task!r}; known: {', '.join(TASKS)}")
    if like is not None:
        task, target = like.task, target or like.target
    scratch = scratch or Scratch(stream=False)
    name, raw = _read(source, target, like, True, categorical, scratch)
    assert raw.y is not None  # labelled
    task, y, classes = _targets(name, raw, task, like)
    if like is None:
        check_varies(name, raw.x, y)
    return Dataset(
        name, task, raw.x, y, raw.features, classes, target, raw.standardize, raw.categories,
        raw.ordered,
    )  # fmt: skip


def load_inputs(source: Source, like: Preparation) -> HostArray:
    """The raw features (m, n) that a model takes, of a source as in `load`; no target is needed.

    Of a column of categories the position among the model's; unknown ones are one beyond them.
    """
    return _read(source, like.target, like, False, (), Scratch(stream=False))[1].x[:]


def pieces(
    source: Source, like: Preparation, target: str | None = None, *, labelled: bool = True
) -> Iterator[Dataset]:
    """The data set of `load` with a model's preparation, some rows at a time.

    labelled: whether targets are wanted; y is empty otherwise.

    Raises:
        FileNotFoundError, ValueError, TypeError, ImportError, OSError: as `load`, when the piece
            is reached.
    """
    target = target or like.target
    if _suffix(source) in TABLES:
        path = _path(os.fspath(source))
        table = Table(path, target, like.features, labelled, (), like.categories)
        name, parts, column = path.stem, table.pieces(), table.target
    else:
        name, raw = _read(source, target, like, labelled, (), Scratch())
        parts, column = _slices(raw), None
    empty = True
    for x, y in parts:
        if len(x) == 0:
            continue
        empty = False
        words = tuple(column.words) if column is not None and column.worded else None
        part = Raw(x, like.features, y, words)
        targets = x[:0, 0] if y is None else _targets(name, part, like.task, like)[1]
        yield Dataset(
            name, like.task, x, targets, like.features, like.classes, target,
            categories=like.categories,
        )  # fmt: skip
    if empty:
        raise ValueError(f"{source} has no rows")


# ---- reading -------------------------------------------------------------------------------------


def _read(
    source: Source, target: str | None, like: Preparation | None, labelled: bool,
    categorical: Collection[str], scratch: Scratch,
) -> tuple[str, Raw]:  # fmt: skip
    features = None if like is None else like.features
    name = os.fspath(source)
    if _suffix(source) in TABLES:
        path = _path(name)
        name = path.stem
        known = NONE if like is None else like.categories
        raw = Table(path, target, features, labelled, categorical, known).raw(scratch)
    elif categorical:
        raise ValueError(f"{name} has no columns with names; leave out --categorical")
    elif name in EMBEDDED:
        raw = EMBEDDED[name]()
        if target is not None and like is None:
            raise ValueError(f"{name} has a target of its own; leave out --target")
        if features is not None and features != raw.features:
            raise ValueError(
                f"{name} has other features than the model takes: {listed(raw.features, 4)}; "
                f"the model's: {listed(features, 4)}"
            )
    else:
        path = _path(name)
        name = path.stem
        raw = ARRAYS[path.suffix.lower()](path, target, features, labelled, scratch)
    for count, what in zip(raw.x.shape, ("rows", "feature columns"), strict=True):
        if count == 0:
            raise ValueError(f"{source} has no {what}")
    return name, raw


def _targets(
    name: str, raw: Raw, task: str | None, like: Preparation | None
) -> tuple[str, HostArray, tuple[str, ...] | None]:
    """The task, labels or values, and the classes' names."""
    assert raw.y is not None
    check_finite(name, raw.y)
    task = task or task_of(raw)
    if task == "regression":
        return task, values(name, raw.y, raw.words), None
    return task, *labels(name, raw.y, raw.words, like.classes if like is not None else None)


def _slices(raw: Raw) -> Iterator[Piece]:
    for rows in chunks(raw.x):
        yield raw.x[rows], None if raw.y is None else raw.y[rows]


def _suffix(source: Source) -> str:
    return Path(source).suffix.lower()


def _path(name: str) -> Path:
    path = Path(name)
    if path.suffix.lower() not in (*TABLES, *ARRAYS):
        close = difflib.get_close_matches(name, EMBEDDED, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(
            f"unknown data {name!r}; {hint}known: {', '.join(EMBEDDED)}, "
            f"or a file {', '.join((*TABLES, *ARRAYS))}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {name}")
    return path
