"""What a user can mend is told in one line, without a traceback."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, ParamSpec

import typer
from typer.core import TyperGroup

from gpumlp.errors import DeviceError, OutOfMemoryError

P = ParamSpec("P")
MENDABLE = (
    ValueError, TypeError, OSError, ImportError, FloatingPointError, MemoryError, DeviceError,
)  # fmt: skip
# UsageError, of click or of the click that newer typers bring with them
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
IN_OPTIONS = {  # what the Python API's errors advise → the option that does it
    "resume=False": "leave out --resume",
    "pass clip_norm=1.0": "pass --clip-norm 1",
    "lower lr": "lower --lr",
    "lower start": "lower --start",
    "batch_size=": "--batch-size ",
    'smaller batch_size, or data="stream"': "smaller --batch-size",
    "smaller batch_size": "smaller --batch-size",
    "accumulate=": "--accumulate ",
    "as 0.999, or None": "as 0.999",
    "ema=None": "no --ema",
    "factor must": "--plateau-factor must",
    "monitor must be": "--monitor must be",
    "pass validation=(x_val, y_val)": "leave out --validation 0",
    "groups['": "--group '",
    "pass a dict with a name for each": "name it once",
    "'] multiplies": "' multiplies",
    "or the network's regularizer": "or --l2",
    'memory="low"': "--memory low",
    'slot_precision="bfloat16"': "--slot-precision bfloat16",
    'precision="bfloat16"': "--precision bfloat16",
    "preparation=None": "--no-raw",
}

_shown = False  # whether tracebacks are wanted: --debug


def show_tracebacks(shown: bool) -> None:
    """Let errors through as they are, or not."""
    global _shown
    _shown = shown


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """The command, with its errors on stderr and exit status 2."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except BrokenPipeError:
            raise  # the reader has gone: typer ends without a word
        except MENDABLE as error:
            if _shown:
                raise
            told = str(error)
            for words, option in IN_OPTIONS.items():
                told = told.replace(words, option)
            if isinstance(error, MemoryError):
                told = f"out of memory ({told.rstrip('.')}); use a smaller network or less data"
            _tell(told, as_it_is=isinstance(error, OutOfMemoryError))
            raise typer.Exit(2) from None

    return run


class Commands(TyperGroup):
    """The commands; wrong usage is one line on stderr, too, and no arguments ask for help."""

    def main(self, args: Sequence[str] | None = None, **settings: Any) -> NoReturn:  # type: ignore[override]
        """Run a command and exit."""
        args = list(sys.argv[1:] if args is None else args)
        settings["standalone_mode"] = False  # errors come here; what is returned is the status
        try:
            status = super().main(args or ["--help"], **settings)
        except USAGE_ERROR as error:
            _tell(error.format_message())  # type: ignore[attr-defined]
            sys.exit(2)
        except MENDABLE as error:  # of values that cannot even be parsed, a path with a NUL say
            if _shown:
                raise
            _tell(str(error))
            sys.exit(2)
        except typer.Abort:  # Ctrl-C, in older typers
            sys.exit(130)
        sys.exit(status or 0)


def _tell(error: str, as_it_is: bool = False) -> None:
    """On stderr, in one line unless it comes with a table."""
    typer.echo(f"gpumlp: error: {error if as_it_is else ' '.join(error.split())}", err=True)
