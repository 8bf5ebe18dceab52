"""What a user can mend is told in one line, without a traceback."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

import typer

from gpumlp.errors import DeviceError

P = ParamSpec("P")
MENDABLE = (ValueError, TypeError, OSError, ImportError, FloatingPointError, DeviceError)

_shown = False  # whether tracebacks are wanted: --debug


def show_tracebacks(shown: bool) -> None:
    """Let errors through as they are, or not."""
    global _shown
    _shown = shown


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """The command, with its errors as one line on stderr and exit status 2."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except BrokenPipeError:
            raise  # the reader has gone: typer ends without a word
        except MENDABLE as error:
            if _shown:
                raise
            typer.echo(f"gpumlp: error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from None

    return run
