"""Calls of the library, as operations are lowered to them."""

from __future__ import annotations

from typing import Any, NamedTuple

from gpumlp.io.types import HostArray as Array

PIECE, LEAST_ROWS, FEW = 8192, 32, 512  # as in pieces.hpp
C_TYPES = {"float32": "float", "float64": "double", "bfloat16": "bfloat16"}


class Scratch(int):
    """An argument: memory of so many bytes, which the next call may overwrite.

    Attributes:
        start: its first byte in the memory of all calls.
    """

    start = 0

    def behind(self, start: int) -> Scratch:
        """As many bytes, from the first cache line from `start` on."""
        moved = Scratch(self)
        moved.start = -(-start // 64) * 64
        return moved


class RowWise(NamedTuple):
    """An operation row by row: see `RowWise` in rows.hpp.

    m, n: its rows and columns.  flops: of its product.  whole: a matrix of which it reads all.
    """

    rows: int
    end: int
    arguments: tuple[Any, ...]
    m: int
    n: int
    flops: int = 0
    whole: Array | None = None


class Independent(NamedTuple):
    """A product that may be done beside its neighbours of this kind: see `Several`.

    several: the function that does so.  out: its result.
    """

    several: int
    out: Array


class Entrywise(NamedTuple):
    """An update of θ, entry by entry, from `begin` to `end`.

    part: the function that does it on some entries.
    """

    part: int
    dtheta: Array
    begin: int
    end: int


class Work(NamedTuple):
    """A function of the library and its arguments.

    They are arrays, `Scratch`, numbers, None, or a `Work`, which stands for its own arguments.
    how: what allows to do it together with its neighbours; empty if nothing does.
    """

    function: int
    arguments: tuple[Any, ...]
    how: tuple[RowWise, ...] | Independent | Entrywise = ()


class NotCompiledError(Exception):
    """The operation exists in NumPy only."""


def partial_sums(m: int, n: int, entry_bytes: int = 8, width: int = 1) -> Scratch:
    """Memory for the sums of the pieces of (m, n): `width` of each."""
    rows = PIECE // n // LEAST_ROWS * LEAST_ROWS if n < PIECE // LEAST_ROWS else LEAST_ROWS
    return Scratch(-(-m // rows) * width * entry_bytes)


def row_sums(m: int, entry_bytes: int = 8, width: int = 1) -> Scratch:
    """Memory for the sums of some rows, of m: `width` of each."""
    rows = LEAST_ROWS // 2 if m <= FEW else LEAST_ROWS
    return Scratch(-(-m // rows) * width * entry_bytes)
