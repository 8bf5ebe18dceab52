"""Raw: the contents of a file or an embedded data set; and wordings that several errors share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from gpumlp.data.scratch import Matrix
from gpumlp.errors import first_line
from gpumlp.io.types import HostArray

LARGEST_INT = 2**53  # float64 represents every whole number up to this one
Categories = Mapping[str, tuple[str, ...]]
NONE: Categories = MappingProxyType({})


class Raw(NamedTuple):
    """The contents of a source, before a task is chosen.

    x, features, categories, standardize and ordered are those of the `Dataset`.

    Attributes:
        y: (m,) of any dtype, or (m, k) numbers; None if no target was requested.
        words: if the target holds words, the words; y then holds positions in this list.
        one_dtype: the file has one dtype for all columns, so labels may be stored as 1.0, 2.0, …
    """

    x: Matrix
    features: tuple[str, ...]
    y: HostArray | None
    words: tuple[str, ...] | None = None
    categories: Categories = NONE
    standardize: bool = True
    one_dtype: bool = False
    ordered: bool = True


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


def unknown_name(path: Path | str, what: str, name: str, names: Iterable[Any]) -> str:
    """FILE has no column 'prise'; did you mean 'price'? It has: …"""
    names = [str(n) for n in names]
    close = difflib.get_close_matches(name, names, n=2)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{path} has no {what} {name!r}; {hint}it has: {listed(names)}"


def huge_numbers(names: Iterable[Any], columns: int) -> str:
    """The error for columns of whole numbers that float64 cannot represent."""
    names = list(names)
    return (
        f"{len(names)} of {columns} feature columns have whole numbers beyond 2**53, which would "
        f"lose digits: {listed(names)}: drop columns of identifiers, or subtract an offset"
    )
