"""Our own errors, besides ValueError and TypeError, and what several modules say alike."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class DeviceError(RuntimeError):
    """The GPU cannot be used, or failed.  The message says why and what to do."""


class OutOfMemoryError(DeviceError):
    """The GPU has too little memory.  For a fit, the message says which settings would fit."""


class CheckpointError(ValueError):
    """A file is no gpumlp checkpoint, is damaged or does not fit.  Nothing was loaded."""


class DivergenceError(FloatingPointError):
    """A training diverged; `what` says what is not finite, and since which epoch."""

    def __init__(self, message: str, what: str = "") -> None:
        super().__init__(message)
        self.what = what


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without a full stop; its type if there is none."""
    return str(error).partition("\n")[0].strip().rstrip(".") or type(error).__name__


def did_you_mean(name: str, known: Iterable[str], most: int = 1) -> str:
    """Return "did you mean 'price'? " for a known name similar to `name`; "" if there is none."""
    close = difflib.get_close_matches(name, list(known), n=most)
    return f"did you mean {' or '.join(map(repr, close))}? " if close else ""


def is_one_of(value: Any, known: Container[str]) -> bool:
    """Whether the value is a known name; arrays, which `==` compares by element, are not."""
    return isinstance(value, str) and value in known


@contextmanager
def needs(purpose: str, extra: str) -> Iterator[None]:
    """Around imports of an optional library: the ImportError says which extra to install."""
    try:
        yield
    except ImportError as error:
        raise ImportError(f'{purpose}: pip install "gpumlp[{extra}]"') from error


def renamed(old: str, new: str) -> property:
    """An attribute called `old` that returns the attribute `new`, with a DeprecationWarning."""

    def get(self: Any) -> Any:
        kind = type(self).__name__
        warnings.warn(f"{kind}.{old} is now {kind}.{new}", DeprecationWarning, stacklevel=2)
        return getattr(self, new)

    return property(get, doc=f"Deprecated: the earlier name of `{new}`.")
