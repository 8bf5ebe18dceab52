"""Embedded columns of an estimator: their values become codes, before scikit-learn checks X."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils.validation import _check_feature_names

from gpumlp import checks
from gpumlp.data.codes import MORE
from gpumlp.data.dataset import listed
from gpumlp.errors import did_you_mean
from gpumlp.estimators import frames
from gpumlp.io.distinct import distinct
from gpumlp.io.types import HostArray


@dataclass(frozen=True)
class Column:
    """An embedded column: its categories, sorted, and the number of entries of their vectors.

    Code i is that of categories[i], n that of all other values, n + 1 that of missing ones.
    missing: whether the first fit has missing values.
    """

    categories: HostArray
    width: int
    missing: bool

    @property
    def shape(self) -> tuple[int, int]:
        """(c, d) of the table that `MLP` learns."""
        return len(self.categories) + MORE, self.width

    @property
    def never(self) -> list[int]:
        """The codes that the first fit does not have."""
        n = len(self.categories)
        return [n] if self.missing else [n, n + 1]

    def codes(self, values: HostArray, j: int) -> HostArray:
        """The codes of values (m,) of column j: float32, exact for as many as `MLP` takes."""
        known, n = self.categories, len(self.categories)
        if known.dtype.kind in "iuf" and values.dtype.kind in "iufb":
            at = np.searchsorted(known, values).clip(max=max(n - 1, 0))
            same = known[at] == values if n else np.zeros(len(values), bool)
            found = np.where(same, at, n)
            found[values != values] = n + 1
            return found.astype(np.float32)
        places: dict[Any, int] = {value: i for i, value in enumerate(known.tolist())}
        texts, new = ({isinstance(v, str) for v in each if not _gone(v)}
                      for each in (places, values.tolist()))  # fmt: skip
        if texts and new and texts.isdisjoint(new):
            what = ["numbers", "texts"] if True in texts else ["texts", "numbers"]
            raise TypeError(
                f"column {j} of X holds {what[0]}, and in the first fit it had {what[1]}, such as "
                f"{known.tolist()[0]!r}; convert it"
            )
        of = [n + 1 if _gone(v) else places.get(v, n) for v in values.tolist()]
        return np.array(of, np.float32)


@dataclass(frozen=True)
class Codes:
    """The embedded columns of a fit, by position, and the parameter `embed` that chose them."""

    columns: Mapping[int, Column] = field(default_factory=dict)
    embed: Any = None

    @property
    def never(self) -> dict[int, list[int]]:
        """The codes that the first fit does not have, by column."""
        return {j: column.never for j, column in self.columns.items()}

    def apply(self, X: Any) -> Any:
        """X with codes in its embedded columns; a copy, of the same kind if it is a data frame."""
        if not self.columns:
            return X
        X = frames.on_host(X)
        if len(X.shape) != 2 or sp.issparse(X):
            return X
        own = [(j, each) for j, each in self.columns.items() if j < X.shape[1]]
        return frames.replaced(X, {j: each.codes(frames.column(X, j), j) for j, each in own})


def check(embed: Any) -> None:
    """Raise unless `embed` is None, a number of entries, or a mapping from columns to numbers."""
    if embed is not None and not isinstance(embed, Mapping):
        checks.positive_int(embed, "embed")
    for name, width in embed.items() if isinstance(embed, Mapping) else ():
        if isinstance(name, bool) or not isinstance(name, (str, int, np.integer)):
            raise TypeError(
                f"embed must be a mapping from names or positions of columns, got {name!r}"
            )
        checks.positive_int(width, f"embed[{name!r}]")


def encoded(e: Any, X: Any, reset: bool) -> Any:
    """X with codes in the embedded columns of the estimator e.

    `reset` learns the categories, and notes them in `e._codes` and `e.categories_`.
    """
    if "_given" in vars(e):  # X has codes, which another estimator has made
        codes = e._given
    elif reset:
        X = X if e.embed is None else frames.on_host(X)
        codes = Codes() if e.embed is None else _learnt(e.embed, X)
    else:
        if e._codes.columns:
            _check_feature_names(e, X, reset=False)
        return e._codes.apply(X)
    e._codes = codes
    e.__dict__.pop("categories_", None)
    if codes.columns:
        e.categories_ = {j: column.categories for j, column in codes.columns.items()}
    return X if "_given" in vars(e) else codes.apply(X)


def _learnt(embed: int | Mapping[Any, int], X: Any) -> Codes:
    """The codes of X (m, n)."""
    if sp.issparse(X):
        raise TypeError("embed needs dense columns, but X is sparse; pass X.toarray()")
    if len(X.shape) != 2:
        return Codes({}, embed)  # scikit-learn says what is wrong
    if isinstance(embed, Mapping):
        widths = _positions(embed, X)
    else:
        widths = {j: int(embed) for j in range(X.shape[1]) if frames.holds_words(X, j)}
        if not widths:
            raise ValueError(
                f"embed={embed} is for columns of words, and X has none; name the columns whose "
                f"numbers stand for categories, for example embed={{0: {embed}}}"
            )
    columns = {}
    for j, width in widths.items():
        categories, missing = _categories(frames.column(X, j))
        # with more entries than categories, vectors would only have more numbers
        most = width if isinstance(embed, Mapping) else max(1, min(width, len(categories)))
        columns[j] = Column(categories, most, missing)
    return Codes(columns, dict(embed) if isinstance(embed, Mapping) else embed)


def _positions(embed: Mapping[Any, int], X: Any) -> dict[int, int]:
    """The number of entries for each position."""
    frame, n, names = frames.is_frame(X), X.shape[1], frames.names(X)
    found = {}
    for name, width in embed.items():
        if isinstance(name, str) and not frame:
            raise ValueError(
                f"embed names {name!r}, but X is no data frame; pass positions, such as "
                f"embed={{0: {width}}}"
            )
        if isinstance(name, str) and name not in names:
            hint = did_you_mean(name, map(str, names))
            raise ValueError(
                f"embed has {name!r}, but X has no such column; {hint}it has: {listed(names)}"
            )
        j = names.index(name) if isinstance(name, str) else int(name)
        if not 0 <= j < n:
            raise ValueError(f"embed has the column {j}, but X has the columns 0 … {n - 1}")
        if j in found:
            raise ValueError(f"embed has the column {j} twice, by name and by position")
        found[j] = int(width)
    return found


def _categories(values: HostArray) -> tuple[HostArray, bool]:
    """The different values (m,), sorted, and whether some are missing."""
    if values.dtype.kind in "iufb":
        known = distinct(values)
        gone = known != known
        return known[~gone].astype(float if known.dtype == bool else known.dtype), bool(gone.any())
    found = dict.fromkeys(values.tolist())
    words = [value for value in found if not _gone(value)]
    try:
        words.sort()
    except TypeError:  # of several types
        words.sort(key=lambda value: (type(value).__name__, str(value)))
    array = np.empty(len(words), object)
    array[:] = words
    return array, len(words) < len(found)


def _gone(value: Any) -> bool:
    """Whether a value is missing: None, NaN, or pandas' NA and NaT."""
    nan = isinstance(value, float) and value != value
    return value is None or nan or type(value).__name__ in ("NAType", "NaTType")
