"""Paths as callers pass them, and the folder of what can be made again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

PathLike = str | os.PathLike[str]


def checked_path(path: PathLike, name: str = "path") -> str:
    """The path as a string; TypeError, which names the argument, if it is none."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{name} must be a string or a pathlib.Path, got {type(path).__name__}")
    return os.fspath(path)


def cache_folder() -> Path:
    """$GPUMLP_CACHE, or the folder of gpumlp in the user's cache folder."""
    if folder := os.environ.get("GPUMLP_CACHE"):
        return Path(folder)
    variable = "LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME"
    try:
        return Path(os.environ.get(variable) or Path.home() / ".cache") / "gpumlp"
    except RuntimeError:  # a user without a home folder, in a container
        return Path(tempfile.gettempdir()) / f"gpumlp-{os.getuid()}"
