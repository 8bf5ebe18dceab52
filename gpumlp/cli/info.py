"""gpumlp info: the versions of what gpumlp uses, and its devices."""

from __future__ import annotations

import platform
from collections.abc import Iterator
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
    found = dict(_installation())
    if options.json:
        print_json(found)
        return
    for name, text in found.items():
        typer.echo(f"{name:<14}{text or 'not installed'}")


def _installation() -> Iterator[tuple[str, str | None]]:
    """The names and versions of what gpumlp runs on, and the backends."""
    yield "gpumlp", gpumlp.__version__
    yield "Python", f"{platform.python_version()} on {platform.platform()}"
    yield "NumPy", f"{np.__version__} with {blas_name()}"
    for name in OPTIONAL:
        yield name, version(name)
    yield "CPU", gpumlp.get_backend("numpy").describe()
    try:
        yield "GPU", gpumlp.get_backend("cupy").describe()
        yield "default", "the GPU"
    except gpumlp.DeviceError as error:
        yield "GPU", f"not used: {error}"
        yield "default", "the CPU"
