"""Paths as callers pass them."""

from __future__ import annotations

import os

PathLike = str | os.PathLike[str]


def checked_path(path: PathLike, name: str = "path") -> str:
    """The path as a string; TypeError, which names the argument, if it is none."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{name} must be a string or a pathlib.Path, got {type(path).__name__}")
    return os.fspath(path)
