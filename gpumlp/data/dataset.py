"""Dataset: features, targets and their names; how one is loaded and split."""

from __future__ import annotations

import dataclasses
import difflib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpumlp.data.arrays import read_npy, read_npz
from gpumlp.data.embedded import EMBEDDED
from gpumlp.data.preparation import Preparation
from gpumlp.data.raw import HostArray, Raw, listed
from gpumlp.data.tables import read_table
from gpumlp.data.targets import check_finite, check_varies, labels, task_of, values

Source = str | os.PathLike[str]

TASKS = ("classification", "regression")
READERS = {".csv": read_table, ".parquet": read_table, ".npz": read_npz, ".npy": read_npy}


@dataclass(frozen=True)
class Dataset:
    """Examples with targets.

    Attributes:
        name: short, for messages and folders.
        task: "classification" or "regression".
        x: (m, n), float32 or float64, finite, raw.
        y: labels (m,) int64, 0 … len(classes) − 1; or values (m,) or (m, k), float64.
        features: names of x's columns.
        classes: names of the labels; None for regression.
        target: the column that was asked for; None for the source's own.
        standardize: whether training should standardise the features: not for pixels, which
            share a unit.
    """

    name: str
    task: str
    x: HostArray
    y: HostArray
    features: tuple[str, ...]
    classes: tuple[str, ...] | None = None
    target: str | None = None
    standardize: bool = True

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
) -> Dataset:
    """A data set with targets.

    Args:
        source: "mnist5k", "digits", "breast_cancer", "diabetes", or a file:
            .csv, .parquet: columns with names, all numeric but for the target; a .csv file is
            UTF-8, its columns apart by comma, semicolon, tab or |;
            .npz: arrays x (or X) and y (or Y);
            .npy: one table of numbers.
        target: the column to predict; needed for .csv and .parquet; of an .npz file the array's
            name (y), of an .npy file the column's number (the last).
        task: "classification" or "regression"; None decides by the target: words, truth values
            and up to 20 distinct whole numbers are classes, all else values.
        like: what a model was trained on: its features are taken, by name from .csv and .parquet
            files and by position from arrays, and its labels for the classes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError, TypeError: it cannot be used; the message says why and what to do.
        ImportError: a library is missing; the message says what to install.
    """
    if task not in (None, *TASKS):
        raise ValueError(f"unknown task {task!r}; known: {', '.join(TASKS)}")
    if like is not None:
        task, target = like.task, target or like.target
    name, raw = _read(source, target, like, labelled=True)
    assert raw.y is not None  # labelled
    check_finite(name, raw.y)
    task = task or task_of(raw)
    classes = None
    if task == "classification":
        y, classes = labels(name, raw.y, like.classes if like is not None else None)
    else:
        y = values(name, raw.y)
    if like is None:
        check_varies(name, raw.x, y)
    return Dataset(name, task, raw.x, y, raw.features, classes, target, raw.standardize)


def load_inputs(source: Source, like: Preparation) -> HostArray:
    """The raw features (m, n) that a model takes, of a source as in `load`; no target is needed."""
    return _read(source, like.target, like, labelled=False)[1].x


def split(
    dataset: Dataset, validation: float = 0.2, seed: int = 0
) -> tuple[Dataset, Dataset | None]:
    """Training and validation part, drawn at random, classification stratified.

    Args:
        dataset: what to split.
        validation: below 1 the share of the examples to hold out, else their number; 0 for none.
        seed: of the draw.
    """
    count = _held_out(len(dataset), validation)
    if count == 0:
        return dataset, None
    if dataset.classes is not None:
        _check_stratum(dataset, count)
    from sklearn.model_selection import train_test_split

    rows = train_test_split(
        np.arange(len(dataset)),
        test_size=count,
        random_state=seed,
        stratify=None if dataset.classes is None else dataset.y,
    )
    train, held = (dataclasses.replace(dataset, x=dataset.x[i], y=dataset.y[i]) for i in rows)
    return train, held


# ---- reading -------------------------------------------------------------------------------------


def _read(
    source: Source, target: str | None, like: Preparation | None, labelled: bool
) -> tuple[str, Raw]:
    features = None if like is None else like.features
    name = os.fspath(source)
    if name in EMBEDDED:
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
        raw = READERS[path.suffix.lower()](path, target, features, labelled)
    for count, what in zip(raw.x.shape, ("rows", "feature columns"), strict=True):
        if count == 0:
            raise ValueError(f"{source} has no {what}")
    return name, raw


def _path(name: str) -> Path:
    path = Path(name)
    if path.suffix.lower() not in READERS:
        close = difflib.get_close_matches(name, EMBEDDED, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(
            f"unknown data {name!r}; {hint}known: {', '.join(EMBEDDED)}, "
            f"or a file {', '.join(READERS)}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {name}")
    return path


# ---- splitting -----------------------------------------------------------------------------------


def _held_out(m: int, validation: float) -> int:
    """How many of m examples to hold out."""
    whole = validation >= 1 and float(validation).is_integer()
    if not (0 <= validation < 1 or (whole and validation < m)):
        raise ValueError(
            f"validation must be a share in [0, 1) or a number of examples below {m}, "
            f"got {validation}"
        )
    count = int(validation) if whole else round(validation * m)
    if validation and not 0 < count < m:
        raise ValueError(f"validation {validation} of {m} examples leaves one part empty")
    return count


def _check_stratum(dataset: Dataset, count: int) -> None:
    """Every class must have an example on both sides."""
    assert dataset.classes is not None
    sizes = np.bincount(dataset.y, minlength=len(dataset.classes))
    single = [c for c, size in zip(dataset.classes, sizes, strict=True) if size < 2]
    if single:
        raise ValueError(
            f"{dataset.name}: classes of a single example cannot be split: {listed(single)}; "
            "drop them, or say --validation 0, or --task regression if the target is a quantity"
        )
    if min(count, len(dataset) - count) < len(sizes):
        raise ValueError(
            f"{dataset.name}: {len(sizes)} classes do not fit into a part of "
            f"{min(count, len(dataset) - count)} examples; choose another --validation"
        )
