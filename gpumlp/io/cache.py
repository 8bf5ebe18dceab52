"""The folder of what is kept between processes and can be made again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """$GPUMLP_CACHE, or the folder of gpumlp in the user's cache folder."""
    if "GPUMLP_CACHE" in os.environ:
        return Path(os.environ["GPUMLP_CACHE"])
    variable = "LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME"
    try:
        return Path(os.environ.get(variable) or Path.home() / ".cache") / "gpumlp"
    except RuntimeError:  # a user without a home folder, in a container
        return Path(tempfile.gettempdir()) / f"gpumlp-{os.getuid()}"
