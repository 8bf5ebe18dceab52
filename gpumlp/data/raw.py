"""Raw: what a source holds, and the words that its errors share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt

HostArray = npt.NDArray[Any]
LARGEST_INT = 2**53  # float64 holds every whole number up to it


class Raw(NamedTuple):
    """What a source holds, as it is.

    Attributes:
        x: (m, n), float32 or float64, finite.
        features: the columns' names, n of them.
        y: (m,) of any dtype, or (m, k) numbers; None where no target was asked for.
        standardize: whether the features differ in unit, so that training should standardise them.
        whole: the file has one dtype for all columns, so that labels may come as 1.0, 2.0, …
    """

    x: HostArray
    features: tuple[str, ...]
    y: HostArray | None
    standardize: bool = True
    whole: bool = False


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return str(error).partition("\n")[0].strip() or type(error).__name__


def listed(names: Iterable[Any], most: int = 8) -> str:
    """The first names, and how many more there are."""
    names = [str(name) for name in names]
    rest = f", … ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + rest if names else "none"


def missing(path: Path, what: str, name: str, names: Iterable[Any]) -> str:
    """FILE has no column 'prise'; did you mean 'price'? It has: …"""
    close = difflib.get_close_matches(name, [str(n) for n in names], n=2)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{path} has no {what} {name!r}; {hint}it has: {listed(names)}"
