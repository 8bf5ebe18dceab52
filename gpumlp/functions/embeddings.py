"""Embeddings: columns of category codes, each replaced by a row of a table that is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np

MOST = 1 << 24  # float32, in which x is stored, has all whole numbers up to it


@dataclass(frozen=True)
class Embedding:
    """Column `column` of x has codes 0 … c − 1; the row of a code in E, (c, d), replaces it."""

    column: int
    c: int
    d: int


@dataclass(frozen=True)
class Embeddings:
    """What layer 1 reads: the columns of x without codes, in order, and then the rows of each E.

    Attributes:
        columns: n_0, the number of columns of x.
        each: the embeddings, in the order of their columns.
        starts: the first entry of each E in the array that has all.
    """

    columns: int
    each: tuple[Embedding, ...]
    starts: tuple[int, ...] = ()

    @cached_property
    def coded(self) -> list[int]:
        """The columns of codes."""
        return [one.column for one in self.each]

    @cached_property
    def plain(self) -> list[int]:
        """The other columns."""
        return [j for j in range(self.columns) if j not in set(self.coded)]

    @cached_property
    def places(self) -> list[int]:
        """The first of the columns of layer 1's input that each embedding has, and last its end."""
        return list(accumulate((one.d for one in self.each), initial=len(self.plain)))

    @property
    def added(self) -> int:
        """The number of columns that all embeddings have: the last ones of layer 1's input."""
        return self.places[-1] - len(self.plain)

    @property
    def width(self) -> int:
        """The number of columns of layer 1's input."""
        return self.places[-1]

    def cuda(self) -> str:
        """The numbers as CUDA source for `embedding.cu`."""
        numbers = {
            "TABLES": len(self.each), "COLUMNS": self.columns, "PLAIN": len(self.plain),
            "WIDTH": self.width, "ADDED": self.added,
        }  # fmt: skip
        tables = ", ".join("{" + ", ".join(map(str, row)) + "}" for row in self.numbers(self.width))
        plain = ", ".join(map(str, self.plain or [0]))
        return (
            f"enum {{ {', '.join(f'{name} = {n}' for name, n in numbers.items())} }};\n"
            f"__device__ const int64 TABLE[{len(self.each)}][5] = {{{tables}}};\n"
            f"__device__ const int PLAIN_COLUMN[{max(1, len(self.plain))}] = {{{plain}}};\n"
        )

    def numbers(self, width: int) -> Any:
        """(embeddings, 5) int64: column, c, d, start and place, as the last of `width` columns."""
        shift = width - self.width
        rows = [
            (one.column, one.c, one.d, start, place + shift)
            for one, start, place in zip(self.each, self.starts, self.places, strict=False)
        ]
        return np.array(rows, np.int64)


def embeddings(n_0: int, embed: Any) -> Embeddings | None:
    """The argument `embed` of `MLP` for n_0 columns, checked; None if there is no embedding."""
    if embed is None:
        return None
    if not isinstance(embed, Mapping):
        raise TypeError(
            "embed must be a mapping from columns to (categories, width), as {2: (100, 16)}; got "
            f"{type(embed).__name__}"
        )
    pairs = {_column(j, n_0): value for j, value in embed.items()}
    if len(pairs) < len(embed):
        raise ValueError(f"embed names a column twice: {list(embed)}")
    each = tuple(Embedding(j, *_shape(j, pairs[j])) for j in sorted(pairs))
    return Embeddings(n_0, each) if each else None


def _column(j: Any, n_0: int) -> int:
    """The number of a column, also from text, as the keys of JSON are."""
    number = int(j) if isinstance(j, str) and j.isdecimal() else j
    if not _whole(number) or not 0 <= number < n_0:
        raise ValueError(f"embed has the column {j!r}; x has the columns 0 … {n_0 - 1}")
    return int(number)


def _shape(j: int, value: Any) -> tuple[int, int]:
    pair = isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str)
    if not pair or len(value) != 2 or not all(_whole(n) and n >= 1 for n in value):
        raise ValueError(
            f"embed[{j}] must be (categories, width), whole numbers of 1 or more, as (100, 16); "
            f"got {value!r}"
        )
    c, d = map(int, value)
    if c > MOST or d >= 1 << 16:
        raise ValueError(
            f"embed[{j}] is ({c}, {d}); a column has at most {MOST:,} categories, whose codes "
            f"float32 can hold, of width below {1 << 16:,}"
        )
    return c, d


def _whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def config(of: Embeddings | None) -> dict[str, Any]:
    """The argument of `MLP` for these embeddings, in JSON types; empty for none."""
    if of is None:
        return {}
    return {"embed": {str(one.column): [one.c, one.d] for one in of.each}}


def described(of: Embeddings | None) -> list[str]:
    """What they are, for `repr`: "embeddings 100 × 16, 7 × 3"."""
    if of is None:
        return []
    shapes = [f"{one.c:,} × {one.d}" for one in of.each]
    shown = shapes if len(shapes) < 4 else [*shapes[:2], "…", shapes[-1]]
    return [f"embeddings {', '.join(shown)}"]


def initial(rng: np.random.Generator, c: int, d: int) -> Any:
    """The first E, (c, d): normal, such that a row has a length of about 0.1.

    The columns of W for one-hot inputs begin as short.  Rows of length 1 are distinct before
    anything is learnt of them, and new examples are then predicted less well: R² is lower by 0.02
    in the mean of the tables of `benchmarks/embeddings.py`.
    """
    return rng.standard_normal((c, d)) * (0.1 / np.sqrt(d))
