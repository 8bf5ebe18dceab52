"""How a command runs: from a dataclass of options to typer, and from an error to one line."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import inspect
import os
import re
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from gpumlp.cli import processes, streams
from gpumlp.cli.options import dashed, kinds
from gpumlp.errors import DeviceError, OutOfMemoryError
from gpumlp.io.signals import ending

USER_ERRORS = (  # errors that the user can fix
    ValueError, TypeError, OSError, ImportError, FloatingPointError, MemoryError, DeviceError,
)  # fmt: skip
# UsageError of click, or of the copy of click in newer versions of typer
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
# arguments of the Python API whose option has another name
API_NAMES = {"smoothing": "label_smoothing", "factor": "plateau_factor", "preparation": "raw"}
# advice of the Python API that no option can follow
NOT_AN_OPTION = re.compile(r',?( or)? data="stream"( for large data)?|, or None\b')

_show_tracebacks = False


def command(run: Callable[[Any], None]) -> Callable[..., None]:
    """The function that typer registers for a command: a parameter is a field of `run`'s options.

    Errors that the user can fix are one line on stderr, and exit status 2.  Ctrl-C, SIGTERM and
    SIGHUP are one line, too.
    """
    options = typing.get_type_hints(run)["options"]
    hints = typing.get_type_hints(options)

    @functools.wraps(run)
    def call(**values: Any) -> None:
        try:
            run(options(**values))
        except KeyboardInterrupt:
            _print(f"gpumlp: stopped by {ending.name}")
            raise typer.Exit(ending.status) from None
        except BrokenPipeError:
            raise  # the reader of the pipe has ended: typer exits silently
        except USER_ERRORS as error:
            if _show_tracebacks:
                raise
            given = [str(value) for value in values.values() if isinstance(value, str | Path)]
            message = name_options(str(error), options, given, _is_about_data(error))
            if isinstance(error, MemoryError):
                message = (
                    f"out of memory ({message.rstrip('.')}); use a smaller network or less data"
                )
            _print_error(message, keep_lines=isinstance(error, OutOfMemoryError))
            raise typer.Exit(2) from None

    parameters = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY,
            annotation=typing.Annotated[hints[field.name], field.metadata["declared"]],
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
        )
        for field in fields(options)
    ]  # fmt: skip
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.options = options  # type: ignore[attr-defined]
    return call


def require(*modules: str) -> None:
    """Raise ImportError before the work begins if a module is not installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ImportError(f'this command needs {module}: pip install "gpumlp[cli]"')


def show_tracebacks(shown: bool) -> None:
    """Let errors through with their traceback, or not."""
    global _show_tracebacks
    _show_tracebacks = shown


def name_options(
    message: str, options: type, given: Sequence[str] = (), about_data: bool = False
) -> str:
    """The message of an API error, with API arguments written as the command's options.

    `batch_size=16` becomes --batch-size 16, `resume=True` --resume, `resume=False` "leave out
    --resume". A bare name is an option only where it cannot be an ordinary word or a column: it has
    an underscore and is not in a list, or stands before "must" or after "lower" or "smaller".

    What the user has written stays as it is: paths, quoted texts, and the texts `given` as options.
    In an error `about_data` any word but the first may belong to the name of a column.
    """
    if message.startswith("--"):  # the command's own
        return message
    types, default = kinds(options), {field.name: field.default for field in fields(options)}
    names = {name: name for name in types if name not in ("data", "model")}
    names |= {api: name for api, name in API_NAMES.items() if name in types}
    any_name = rf"(?<![\w'\"-])({'|'.join(names)})"

    def setting(found: re.Match[str]) -> str:
        verb, name, value = found[1] or "", names[found[2]], found[3].strip('"')
        if value == "True" and types[name] is bool:
            return f"{verb}--{dashed(name)}"
        if value in ("None", "False"):
            switch = types[name] is bool and default[name] is not False
            return f"{verb}--no-{dashed(name)}" if switch else f"leave out --{dashed(name)}"
        return f"{verb}--{dashed(name)} {value}"

    def bare(found: re.Match[str]) -> str:
        before, name, after = found.groups(default="")
        listed = before in (": ", ", ")  # it may be the name of a column
        sure = after or (not listed and (before or "_" in name))
        return f"{before}--{dashed(names[name])}{after}" if sure else found[0]

    def translated(text: str) -> str:
        text = NOT_AN_OPTION.sub("", text)
        text = re.sub(rf'(use |pass )?{any_name}=("[^"]*"|[\w.]+)', setting, text)
        return re.sub(rf"(lower |smaller |: |, )?{any_name}\b( must)?", bare, text)

    if about_data:
        return re.sub(r"\A\w+ must\b", lambda found: translated(found[0]), message)
    own = [re.escape(text) for text in given if re.search(any_name, text)]
    parts = re.split("({})".format("|".join([*own, r"\S*/\S*", r"(?<!\w)'[^']*'"])), message)
    return "".join(part if i % 2 else translated(part) for i, part in enumerate(parts))


class Commands(TyperGroup):
    """The group of commands.  A usage error is one line on stderr; no arguments mean --help."""

    def main(self, args: Sequence[str] | None = None, **settings: Any) -> NoReturn:  # type: ignore[override]
        """Run a command and exit."""
        args = list(sys.argv[1:] if args is None else args)
        settings["standalone_mode"] = False  # click raises errors, and returns the exit status
        with ending:
            try:
                status = self._status(args or ["--help"], settings)
            except (typer.Abort, KeyboardInterrupt):  # outside a command
                status = ending.status
            except Exception as error:
                processes.fail(error)
                raise
            if not ending.number:
                status, message = streams.end(status)
                if message:
                    _print_error(message)
            else:  # whatever failed after that, such as printing
                status = ending.status
                _leave_closed_terminal()
            processes.end(status)
            sys.exit(status)

    def _status(self, args: Sequence[str], settings: dict[str, Any]) -> int:
        """Run a command, print its error, and return its exit status."""
        try:
            if "train" in args[:2]:  # the command that several processes can run together
                processes.join()
            return super().main(args, **settings) or 0
        except USAGE_ERROR as error:
            message = error.format_message()  # type: ignore[attr-defined]
            _print_error(f"{message}{self._owners(error)}")
            return 2
        except USER_ERRORS as error:  # a value that cannot be parsed, such as a path with a NUL
            if _show_tracebacks:
                raise
            _print_error(str(error))
            return 2
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0

    def _owners(self, error: Exception) -> str:
        """Which commands have the option that the error says this one lacks."""
        option = getattr(error, "option_name", None)
        owners = [
            name for name, each in self.commands.items()
            if any(option in parameter.opts for parameter in each.params)
        ]  # fmt: skip
        return f"; it belongs to {', '.join(owners)}" if option and owners else ""


def _is_about_data(error: BaseException) -> bool:
    """Whether a module of `gpumlp.data` raised the error."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return at is not None and at.tb_frame.f_globals["__name__"].startswith("gpumlp.data")


def _print_error(message: str, keep_lines: bool = False) -> None:
    """Print on stderr; `keep_lines` is for a message with a table."""
    message = message if keep_lines else re.sub(r"\s*[\r\n]+\s*", " ", message)
    _print(f"gpumlp: error: {message}")


def _print(line: str) -> None:
    """Print on stderr, if anything can be written there."""
    with contextlib.suppress(OSError):
        typer.echo(line, err=True)


def _leave_closed_terminal() -> None:
    """Drop what cannot be printed: after SIGHUP it would change the exit status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
