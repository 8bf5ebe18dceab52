"""The command line: `gpumlp train`, `gpumlp search`, `gpumlp predict` and others; see `app`."""

from __future__ import annotations

import io
import sys
import warnings

from gpumlp.cli import streams
from gpumlp.io.signals import deferred, ending

__all__ = ["main"]


def main() -> None:
    """Run the command `gpumlp`."""
    streams.protect()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console that lacks a character shows ?
            stream.reconfigure(errors="replace")
    warnings.formatwarning = _format_warning  # type: ignore[assignment]
    ending.install()
    try:
        _run()
    except KeyboardInterrupt:  # before the command begins
        print(f"gpumlp: stopped by {ending.name}", file=sys.stderr)
        sys.exit(ending.status)


def _run() -> None:
    """Run the command; an error of its own is printed and exits."""
    try:
        with deferred():  # KeyboardInterrupt in an import becomes another error, or is lost
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


def _format_warning(message: Warning | str, *_: object) -> str:
    """Format a warning like an error: one line, without the source file."""
    return f"gpumlp: warning: {' '.join(str(message).split())}\n"
