"""Where the toolkit's headers are; only 16-bit storage types need any."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from gpumlp.errors import DeviceError


def include_options(headers: Iterable[str]) -> tuple[str, ...]:
    """The compiler's -I options for `headers`."""
    return tuple(dict.fromkeys(f"-I{include_folder(header)}" for header in headers))


def include_folder(header: str) -> Path:
    """The folder with `header` and what it includes: PyPI's packages or an installed toolkit.

    Raises:
        DeviceError: there is none.
    """
    folders = [p for entry in sys.path for p in Path(entry).glob("nvidia/*/include")]
    roots = [os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    folders += [Path(root) / "include" for root in roots if root]
    for folder in folders:
        if (folder / header).exists() and (folder / "nv" / "target").exists():
            return folder
    raise DeviceError(
        f"{header} was not found; pip install nvidia-cuda-runtime nvidia-cuda-crt "
        "nvidia-cuda-cccl, or set CUDA_PATH to a CUDA toolkit"
    )
