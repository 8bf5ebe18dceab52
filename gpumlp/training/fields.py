"""Mappings that were read from a file: their fields are checked as they are used."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from typing import Any, NoReturn

from gpumlp.errors import CheckpointError

LARGEST = 2**53  # up to it, float64 holds every whole number
ADVICE = "use another copy of the file, or resume=False to start anew"


class Fields:
    """A mapping in a file; every method raises CheckpointError that names the file and the field.

    Args:
        values: the mapping, of anything that JSON can hold, or a wrong value in its place.
        name: the name of the mapping in the file, "" for the whole.
    """

    def __init__(self, values: Any, path: Any, name: str = "") -> None:
        self._values, self._path, self._name = values, path, name
        if not isinstance(values, dict):
            self._refuse("", values, "a mapping")

    def __iter__(self) -> Any:
        return iter(self._values)

    def fields(self, name: str) -> Fields:
        """A mapping."""
        return Fields(self._value(name), self._path, self._full(name))

    def mapping(self, name: str) -> dict[str, Any]:
        """A mapping, as it is."""
        self.fields(name)
        value: dict[str, Any] = self._values[name]
        return value

    def word(self, name: str, known: Sequence[str]) -> str:
        """One of the known words."""
        value = self._value(name)
        if not isinstance(value, str) or value not in known:
            self._refuse(name, value, f"one of {', '.join(known)}")
        return value

    def whole(self, name: str, least: int = 0, most: int = LARGEST) -> int:
        """A whole number from `least` to `most`."""
        value = self._value(name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            limit = f"to {most}" if most < LARGEST else "on"
            self._refuse(name, value, f"a whole number from {least} {limit}")
        return value

    def number(self, name: str) -> float:
        """A finite number of 0 or more."""
        value = self._value(name)
        if not (_is_number(value) and 0 <= value < math.inf):
            self._refuse(name, value, "a finite number of 0 or more")
        return float(value)

    def numbers(
        self, name: str, count: int, of: str, least: float = -math.inf, finite: bool = True
    ) -> list[float]:
        """A list of `count` numbers, as many as `of` says."""
        values = self._value(name)
        if not isinstance(values, list) or not all(map(_is_number, values)):
            self._refuse(name, values, "a list of numbers")
        if len(values) != count:
            self._refuse(name, values, f"{count} numbers, as {of} says")
        if finite and not all(math.isfinite(value) and value >= least for value in values):
            bound = f" of {least:g} or more" if least > -math.inf else ""
            self._refuse(name, values, f"finite numbers{bound}")
        return values

    def is_none(self, name: str) -> bool:
        """Whether the field, which must be there, is null."""
        return self._value(name) is None

    def refuse(self, name: str, expected: str) -> NoReturn:
        """Raise the error for a field."""
        self._refuse(name, self._value(name), expected)

    def _value(self, name: str) -> Any:
        if name not in self._values:
            raise CheckpointError(f"{self._path}: {self._full(name)} is missing; {ADVICE}")
        return self._values[name]

    def _full(self, name: str) -> str:
        return ".".join(filter(None, (self._name, name)))

    def _refuse(self, name: str, value: Any, expected: str) -> NoReturn:
        shown, full = " ".join(reprlib.repr(value).split()), self._full(name)
        raise CheckpointError(
            f"{self._path}: {full or 'its contents'} must be {expected}, got {shown}; {ADVICE}"
        )


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, float) or abs(value) <= LARGEST
