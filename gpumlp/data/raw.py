"""Raw: what a source holds, and the words that its errors share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from gpumlp.data.scratch import Matrix
from gpumlp.io.types import HostArray

LARGEST_INT = 2**53  # float64 holds every whole number up to it
Categories = Mapping[str, tuple[str, ...]]
NONE: Categories = MappingProxyType({})


class Raw(NamedTuple):
    """What a source holds, as it is.

    Attributes:
        x: (m, n), float32 or float64, NaN where a value is missing, else finite; of a column of
            categories the position among its `categories`.
        features: the columns' names, n of them.
        y: (m,) of any dtype, or (m, k) numbers; None where no target was asked for.
        words: what the numbers in y stand for, where the target is words.
        categories: the categories of columns that hold such, by the columns' names.
        standardize: whether the features differ in unit, so that training should standardise them.
        whole: the file has one dtype for all columns, so that labels may come as 1.0, 2.0, …
        ordered: whether a split keeps the rows' order, so that a file is read from front to end.
    """

    x: Matrix
    features: tuple[str, ...]
    y: HostArray | None
    words: tuple[str, ...] | None = None
    categories: Categories = NONE
    standardize: bool = True
    whole: bool = False
    ordered: bool = True


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return str(error).partition("\n")[0].strip() or type(error).__name__


def listed(names: Iterable[Any], most: int = 8) -> str:
    """The first names, and how many more there are."""
    names = [str(name) for name in names]
    rest = f", … ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + rest if names else "none"


def missing(path: Path | str, what: str, name: str, names: Iterable[Any]) -> str:
    """FILE has no column 'prise'; did you mean 'price'? It has: …"""
    names = [str(n) for n in names]
    close = difflib.get_close_matches(name, names, n=2)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{path} has no {what} {name!r}; {hint}it has: {listed(names)}"
