"""Dataset: features, targets and their names; its contents, its split, and wordings of errors."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from gpumlp.data.dates import DateFormat
from gpumlp.data.names import quoted
from gpumlp.data.numbers import NumberFormat
from gpumlp.data.scratch import Matrix, select_rows
from gpumlp.errors import did_you_mean, first_line
from gpumlp.io.types import HostArray

LARGEST_INT = 2**53  # float64 represents every whole number up to this one
Categories = Mapping[str, tuple[str, ...]]
NONE: Categories = MappingProxyType({})


@dataclass(frozen=True)
class Dataset:
    """Examples with targets.

    Attributes:
        name: a short name for messages and folders.
        task: "classification" or "regression".
        x: (m, n), float32 or float64, not standardised. A missing value is NaN, all others are
            finite. A column of categories holds positions in its list in `categories`. If the data
            is streamed, ``x[a:b]`` is read from disk.
        y: labels (m,) int64, 0 … len(classes) − 1; or values (m,) or (m, k), float64.
        features: the names of x's columns.
        classes: the names of the labels; None for regression.
        target: the column that was requested; None for the source's own target.
        standardize: whether training should standardise the features; pixels, which share a unit,
            are not standardised.
        categories: for each column of categories, by name, the list of its categories.
        ordered: whether `split` keeps the order of the rows, to read a file from start to end.
        formats: for each column of numbers or dates that the file writes in a format of its own,
            by name, this format.
        dates: the names of the columns of dates or times, as days since 1970-01-01 in UTC.
        left_out: the columns of the file that are no features, by name, and why; "" if the caller
            dropped them.
        zones: for each column of times, by name, whether the file gives their time zone.
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
    formats: Mapping[str, NumberFormat | DateFormat] = field(default_factory=dict)
    dates: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    zones: Mapping[str, bool] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        m, n = self.x.shape
        what = f"{len(self.classes)} classes" if self.classes else "real target"
        return f"{self.name}: {m:,} examples, {n} features, {self.task}, {what}"


class Raw(NamedTuple):
    """The contents of a file or an embedded data set, before a task is chosen.

    x, features, categories, standardize, ordered, formats, dates, left_out and zones are those of
    the `Dataset`.

    Attributes:
        y: (m,) of any dtype, or (m, k) numbers; None if no target was requested.
        words: if the target holds words, the words; y then holds positions in this list.
        unlabelled: whether the target of each row (m,) is missing; None if that shows in y.
    """

    x: Matrix
    features: tuple[str, ...]
    y: HostArray | None
    words: tuple[str, ...] | None = None
    categories: Categories = NONE
    standardize: bool = True
    ordered: bool = True
    formats: Mapping[str, NumberFormat | DateFormat] = MappingProxyType({})
    dates: tuple[str, ...] = ()
    left_out: Mapping[str, str] = MappingProxyType({})
    unlabelled: HostArray | None = None
    zones: Mapping[str, bool] = MappingProxyType({})


def split(
    dataset: Dataset, validation: float = 0.2, seed: int = 0
) -> tuple[Dataset, Dataset | None]:
    """Draw a training and a validation part at random. Classes keep their shares in both.

    Every class has an example in the training part. A warning names the classes that have none in
    the validation part, since they have a single example or the part is too small. The parts of a
    file keep the order of its rows, so that both are read from its start to its end.

    Args:
        dataset: the data set to split.
        validation: the size of the validation part: below 1 its share of the examples, else their
            number; 0 for no validation part.
        seed: the seed of the random draw.
    """
    count = _validation_size(len(dataset), validation)
    if count == 0:
        return dataset, None
    from sklearn.model_selection import train_test_split

    free, labels = np.arange(len(dataset)), None
    if dataset.classes is not None:
        free, labels = _free_rows(dataset, count)
    rows = train_test_split(free, test_size=count, random_state=seed, stratify=labels)
    rows[0] = np.append(rows[0], np.delete(np.arange(len(dataset)), free))
    if dataset.ordered:
        rows = [np.sort(part) for part in rows]
    train, validation_part = (
        dataclasses.replace(dataset, x=select_rows(dataset.x, i), y=dataset.y[i]) for i in rows
    )
    if dataset.classes is not None:
        lacking = np.setdiff1d(train.y, validation_part.y).tolist()
        if lacking:
            warnings.warn(
                f"{dataset.name}: the validation part has no example of {len(lacking)} of the "
                f"{len(dataset.classes)} classes: {listed(dataset.classes[c] for c in lacking)}",
                stacklevel=2,
            )
    return train, validation_part


def _validation_size(m: int, validation: float) -> int:
    """The number of validation examples among m examples."""
    whole = validation >= 1 and validation % 1 == 0
    if not (0 <= validation < 1 or (whole and validation < m)):
        raise ValueError(
            f"validation must be a share in [0, 1) or a number of examples below {m}, "
            f"got {validation}"
        )
    count = int(validation) if whole else round(validation * m)
    if validation and not 0 < count < m:
        raise ValueError(f"validation {validation} of {m} examples leaves one part empty")
    return count


def _free_rows(dataset: Dataset, count: int) -> tuple[HostArray, HostArray | None]:
    """The rows of which `count` are drawn, and their labels if classes can keep their shares.

    Single examples of a class are not drawn, nor the first ones if the classes cannot keep shares.
    """
    first, sizes = np.unique(dataset.y, return_index=True, return_counts=True)[1:]
    rows = np.delete(np.arange(len(dataset)), first[sizes == 1])
    shared = (sizes > 1).sum() <= min(count, len(rows) - count)
    if not shared:
        rows = np.delete(np.arange(len(dataset)), first)
    if count >= len(rows):
        raise ValueError(
            f"{dataset.name}: {len(sizes)} classes do not leave {count} of {len(dataset)} examples "
            f"for validation; say --validation {max(len(rows) - 1, 0)}"
        )
    return rows, dataset.y[rows] if shared else None


# ---- wordings that several errors share ----------------------------------------------------------


def unreadable(path: Path, error: BaseException) -> ValueError:
    """The error for a damaged file, which another error revealed."""
    kind, reason = path.suffix.lower(), first_line(error)
    if kind.startswith(".np") and ("pickle" in reason or "Object arrays" in reason):
        reason = "it contains Python objects, which are never loaded"
    return ValueError(f"{path} cannot be read: it is not a {kind} file or not complete ({reason})")


def listed(names: Iterable[Any], most: int = 8) -> str:
    """The first names, and the number of all names if there are more."""
    names = [str(name) for name in names]
    rest = f", … ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + rest if names else "none"


def unknown_name(path: object, what: str, name: str, names: Iterable[Any]) -> str:
    """FILE has no column 'prise'; did you mean 'price'? It has: …"""
    names = [str(n) for n in names]
    hint = did_you_mean(name, names, most=2)
    if hint and any("," in close for close in names if repr(close) in hint):
        hint += 'A name with a comma is written in quotation marks, "a, b". '
    return f"{path} has no {what} {name!r}; {hint}it has: {listed(map(quoted, names))}"
