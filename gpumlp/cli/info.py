"""gpumlp info: the versions of what gpumlp uses, and its devices."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import numpy as np
import typer

import gpumlp
from gpumlp.bench.timing import version
from gpumlp.cli import options as shared
from gpumlp.cli.output import print_json
from gpumlp.io.threads import blas_name

OPTIONAL = (
    "safetensors", "typer", "rich", "tqdm", "matplotlib", "pyarrow", "scikit-learn", "mlxtend",
    "ml_dtypes", "torch", "cupy-cuda12x", "cupy-cuda13x", "nvmath-python",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class InfoOptions:
    """The options of info."""

    json: bool = shared.json()


def info(options: InfoOptions) -> None:
    """Show versions and devices, and why the GPU is or is not used."""
    found = {
        "gpumlp": gpumlp.__version__,
        "Python": f"{platform.python_version()} on {platform.platform()}",
        "NumPy": f"{np.__version__} with {blas_name()}",
        **{name: version(name) for name in OPTIONAL},
        "CPU": gpumlp.get_backend("numpy").describe(),
        "CPU, compiled": _described("cpu"),
        "GPU": _described("cupy"),
    }
    chosen = gpumlp.get_backend("auto")
    found["default"] = f'the {"CPU" if chosen.on_host else "GPU"}, backend "{chosen.name}"'
    if options.json:
        print_json(found)
        return
    for name, text in found.items():
        typer.echo(f"{name:<15}{text or 'not installed'}")


def _described(name: str) -> str:
    """The backend of this name, or why it is not used."""
    try:
        return gpumlp.get_backend(name).describe()
    except gpumlp.DeviceError as error:
        return f"not used: {error}"
