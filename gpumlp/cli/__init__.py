"""The command line: gpumlp train | evaluate | predict | export | tune | bench | info."""

from __future__ import annotations

import io
import sys

__all__ = ["main"]


def main() -> None:
    """Entry point of the command `gpumlp`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console that lacks a sign, Σ say, shows ?
            stream.reconfigure(errors="replace")
    try:
        from gpumlp.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("gpumlp"):
            raise
        print(
            f'gpumlp: error: the command line needs {error.name}: pip install "gpumlp[cli]"',
            file=sys.stderr,
        )
        sys.exit(2)
    app()
