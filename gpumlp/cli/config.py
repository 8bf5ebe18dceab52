"""Options in a TOML file: train and find-lr --config read one, and each run leaves one, run.toml.

A key is an option's long name, with - or _, or DATA's, `data`; the command's own signature and
options say which there are, what they hold and what is refused.
"""

from __future__ import annotations

import difflib
import inspect
import json
import tomllib
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

import gpumlp
from gpumlp.cli.errors import USAGE_ERROR
from gpumlp.storage import atomic_write

# how a command is told of its run, and how it tells: nothing that the run itself depends on
NOT_THE_RUNS = ("json", "plan", "quiet", "resume")
EXPECTED = {
    bool: "true or false", int: "a whole number", float: "a number",
    str: "text, a number, or a list of these", list: "text, or a list of texts",
}  # fmt: skip


def apply(context: typer.Context, path: Path | None) -> Path | None:
    """Take the file's values for defaults of the command: what its command line says goes first."""
    if path is not None and not context.resilient_parsing:
        context.default_map = {**(context.default_map or {}), **_values(context, path)}
    return path


def write(path: Path, context: typer.Context) -> None:
    """Write what the command was asked to do, as a file for --config.

    Options without a value are left out; defaults are there, since a later version may have others.
    """
    command = context.info_name
    lines = [f"# gpumlp {gpumlp.__version__}; to repeat: gpumlp {command} --config run.toml"]
    for key, parameter in _keys(context).items():
        value = context.params.get(parameter.name)
        if value not in (None, ()) and key not in NOT_THE_RUNS:
            lines.append(f"{key} = {_literal(value)}")
    atomic_write(path, "\n".join([*lines, ""]).encode(errors="replace"))


def _values(context: typer.Context, path: Path) -> dict[str, Any]:
    """Parameter's name → the file's value, checked as an option's is."""
    known, kinds, trains = _keys(context), _kinds(context), _of_train(context)
    values: dict[str, Any] = {}
    for written, value in _read(path).items():
        key = written.replace("_", "-")
        if isinstance(value, dict):
            raise _error(f"{path}: [{written}] is a table; write its keys at the top, without it")
        if key in trains:
            continue
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise _error(f"{path}: unknown key {written!r}; {hint}known: {', '.join(known)}")
        parameter = known[key]
        if parameter.name in values:
            raise _error(f"{path}: {key} is there twice, with - and with _; leave one")
        values[parameter.name] = text = _typed(kinds[parameter.name], value)
        if text is None:
            expected = EXPECTED[kinds[parameter.name]]
            raise _error(f"{path}: {written} takes {expected}, got {_literal(value)}")
        try:
            parameter.process_value(context, text)
        except USAGE_ERROR as error:
            raise _error(f"{path}: {error.format_message()}") from None  # type: ignore[attr-defined]
    return values


def _typed(kind: type, value: Any) -> Any:
    """The value as the command line would bring it, or None where it is of another kind.

    A list stands for its items with commas, hidden = [256, 256], or for an option that may be there
    several times.
    """
    if kind is list:
        texts = value if isinstance(value, list) else [value]
        return texts if all(isinstance(text, str) for text in texts) else None
    if kind is str and isinstance(value, list):
        items = [_typed(str, item) for item in value]
        return None if None in items else ",".join(items)
    if isinstance(value, bool) or kind is bool:
        return value if kind is bool and isinstance(value, bool) else None
    if kind is str:
        return str(value) if isinstance(value, (str, int)) else None
    return value if isinstance(value, (int, kind)) else None


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise _error(f"--config: there is no file {path}")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise _error(f"{path} is no TOML file: {error}") from None


def _keys(context: typer.Context) -> dict[str, Any]:
    """Key → parameter, in the order of the command's signature."""
    return _of(context.command)


def _of_train(context: typer.Context) -> set[str]:
    """Keys of train that another command lacks, which reads train's files, too."""
    if context.parent is None:
        return set()
    train = context.parent.command.commands["train"]  # type: ignore[attr-defined]
    return set(_of(train)) - set(_keys(context))


def _of(command: Any) -> dict[str, Any]:
    keys = {key: each for each in command.params for key in _names(each)}
    return {key: each for key, each in keys.items() if key not in ("config", "help")}


def _names(parameter: Any) -> Iterator[str]:
    """Its long names, "batch-size" of --batch-size, or "data" of the argument."""
    if parameter.param_type_name == "argument":
        yield parameter.name
    yield from (name[2:] for name in parameter.opts if name.startswith("--"))


def _kinds(context: typer.Context) -> Mapping[str, type]:
    """Parameter's name → bool, int, float, list, or str for the rest, by the annotations."""
    assert context.command.callback is not None
    hints = typing.get_type_hints(inspect.unwrap(context.command.callback))
    kinds: dict[str, type] = {}
    for name, hint in hints.items():
        kind = next((each for each in typing.get_args(hint) if each is not type(None)), hint)
        kind = typing.get_origin(kind) or kind
        kinds[name] = kind if kind in EXPECTED else str
    return kinds


def _literal(value: Any) -> str:
    """The value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_literal, value))}]"
    # JSON's escapes are TOML's, but for DEL
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _error(message: str) -> Exception:
    return USAGE_ERROR(message)
