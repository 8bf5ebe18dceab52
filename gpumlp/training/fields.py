"""Mappings that were read from a file: their fields are checked as they are used."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable
from typing import Any

from gpumlp.errors import CheckpointError

LARGEST = 2**53  # up to it, float64 holds every whole number
ADVICE = "use another copy of the file, or resume=False to start anew"


class Fields:
    """A mapping in a file; every method raises CheckpointError that names the file and the field.

    Args:
        values: the mapping, of anything that JSON can hold.
        name: the name of the mapping in the file, "" for the whole.
    """

    def __init__(self, values: dict[str, Any], path: Any, name: str = "") -> None:
        self.values, self._path, self._name = values, path, name

    def get(
        self, name: str, expected: str = "", fits: Callable[[Any], bool] = lambda value: True
    ) -> Any:
        """The value of a field, which must be there and fit."""
        field = self._full(name)
        if name not in self.values:
            raise CheckpointError(f"{self._path}: {field} is missing; {ADVICE}")
        value = self.values[name]
        if not fits(value):
            shown = " ".join(reprlib.repr(value).split())
            raise CheckpointError(
                f"{self._path}: {field} must be {expected}, got {shown}; {ADVICE}"
            )
        return value

    def fields(self, name: str) -> Fields:
        """A mapping."""
        values = self.get(name, "a mapping", lambda value: isinstance(value, dict))
        return Fields(values, self._path, self._full(name))

    def whole(self, name: str, least: int = 0, most: int = LARGEST) -> Any:
        """A whole number from `least` to `most`."""
        limit = f"to {most}" if most < LARGEST else "on"
        return self.get(
            name, f"a whole number from {least} {limit}",
            lambda value: type(value) is int and least <= value <= most,
        )  # fmt: skip

    def number(self, name: str) -> None:
        """Check that a field is a finite number of 0 or more."""
        self.get(
            name, "a finite number of 0 or more",
            lambda value: _is_number(value) and 0 <= value < math.inf,
        )  # fmt: skip

    def numbers(
        self, name: str, count: int, of: str, least: float = -math.inf, finite: bool = True
    ) -> Any:
        """A list of `count` numbers, as many as `of` says."""

        def bounded(values: list[float]) -> bool:
            return not finite or all(math.isfinite(x) and x >= least for x in values)

        self.get(name, "a list of numbers", _is_list)
        self.get(name, f"{count} numbers, as {of} says", lambda values: len(values) == count)
        bound = f" of {least:g} or more" if least > -math.inf else ""
        return self.get(name, f"finite numbers{bound}", bounded)

    def _full(self, name: str) -> str:
        return f"{self._name}.{name}" if self._name else name


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) <= LARGEST)
