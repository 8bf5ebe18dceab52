"""Calls of the library, as operations are lowered to them."""

from __future__ import annotations

from typing import Any, NamedTuple

PIECE, LEAST_ROWS = 8192, 32  # of a piece, as in pieces.hpp


class Scratch(int):
    """An argument: memory of so many bytes, which the next call may overwrite."""


class Work(NamedTuple):
    """A function of the library and its arguments.

    They are arrays, `Scratch`, numbers, None, or a `Work`, which stands for its own arguments.
    """

    function: int
    arguments: tuple[Any, ...]


class NotCompiledError(Exception):
    """The operation exists in NumPy only."""


def partial_sums(m: int, n: int, entry_bytes: int = 8, width: int = 1) -> Scratch:
    """Memory for the sums of the pieces of (m, n): `width` of each."""
    rows = PIECE // n if n < PIECE // LEAST_ROWS else LEAST_ROWS
    return Scratch(-(-m // rows) * width * entry_bytes)
