"""Options in a TOML file: train and find-lr read one by --config, and each run writes run.toml.

A key is the long name of an option, with - or _; `data` is the argument DATA. The dataclass of the
command's options says which keys there are and which type each value has.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import typer

import gpumlp
from gpumlp.cli.command import USAGE_ERROR
from gpumlp.cli.options import dashed, kinds, option
from gpumlp.errors import did_you_mean
from gpumlp.storage import atomic_write

SIGN = "# gpumlp "  # the first characters of a file that `write` wrote
# options that only change what is shown, or how a run starts: run.toml leaves them out
NOT_OF_THE_RUN = ("config", "json", "plan", "quiet", "resume")
EXPECTED = {
    bool: "true or false", int: "a whole number", float: "a number",
    str: "text, a number, or a list of these", list: "text, or a list of texts",
}  # fmt: skip


def _apply(context: typer.Context, path: Path | None) -> Path | None:
    """Use the values of the file as defaults of the command; the command line overrides them."""
    if path is not None and not context.resilient_parsing:
        context.default_map = {**(context.default_map or {}), **_values(context, path)}
    return path


from_file = partial(
    option, None, "FILE",
    "Read options from a TOML file with a key for each option, such as batch-size = 128; the key "
    "of DATA is data.  Options on the command line override the file.  Paths are relative to the "
    "current folder.",
    is_eager=True, callback=_apply,
)  # fmt: skip


def write(path: Path, command: str, options: Any) -> None:
    """Write the options of a run, also defaults: a later version may have other defaults."""
    lines = [f"{SIGN}{gpumlp.__version__}; to repeat: gpumlp {command} --config run.toml"]
    for key, name in keys(type(options)).items():
        value = getattr(options, name)
        if name == "data" and len(value) == 1:
            (value,) = value  # as earlier versions write and read it
        if value not in (None, (), []) and name not in NOT_OF_THE_RUN:
            lines.append(f"{key} = {literal(value)}")
    atomic_write(path, "\n".join([*lines, ""]).encode(errors="replace"))


def is_written_by_us(path: Path) -> bool:
    """Whether `write` wrote the file, so that nothing of the user's is lost with it."""
    return path.read_bytes().startswith(SIGN.encode())


def keys(options: type) -> dict[str, str]:
    """Each key of a TOML file → the field of the dataclass."""
    named = {field.name: field.metadata["flags"] for field in fields(options)}
    flags = {
        name: next((flag[2:] for flag in own if flag.startswith("--")), dashed(name))
        for name, own in named.items()
    }
    return {flag: name for name, flag in flags.items() if name != "config"}


def literal(value: Any) -> str:
    """The value in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(literal, value))}]"
    # JSON and TOML have the same escapes, except for DEL
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _values(context: typer.Context, path: Path) -> dict[str, Any]:
    """Each parameter's name → the value in the file, checked like the value of an option."""
    options = context.command.callback.options  # type: ignore[union-attr]
    known, types = keys(options), kinds(options)
    group: Any = context.parent and context.parent.command
    # find-lr also reads the files of train, and ignores the keys that it does not have
    only_of_train = keys(group.commands["train"].callback.options) if group else {}
    parameters = {parameter.name: parameter for parameter in context.command.params}
    values: dict[str, Any] = {}
    for written, value in _read(path).items():
        key = dashed(written)
        if isinstance(value, dict):
            raise USAGE_ERROR(f"{path}: [{written}] is a table; write its keys without a table")
        if key not in known:
            if key in only_of_train:
                continue
            hint = did_you_mean(key, known)
            raise USAGE_ERROR(f"{path}: unknown key {written!r}; {hint}known: {', '.join(known)}")
        name = known[key]
        if name in values:
            raise USAGE_ERROR(f"{path}: {key} is given twice, with - and with _; remove one")
        values[name] = text = _as_on_command_line(types[name], value)
        if text is None:
            expected = EXPECTED[types[name]]
            raise USAGE_ERROR(f"{path}: {written} must be {expected}, got {literal(value)}")
        try:
            parameters[name].process_value(context, text)
        except USAGE_ERROR as error:
            raise USAGE_ERROR(f"{path}: {error.format_message()}") from None  # type: ignore[attr-defined]
    return values


def _as_on_command_line(kind: type, value: Any) -> Any:
    """The value as the command line would give it, [8, 4] as "8,4"; None for another type."""
    if kind is list:
        texts = value if isinstance(value, list) else [value]
        return texts if all(isinstance(text, str) for text in texts) else None
    if kind is str and isinstance(value, list):
        items = [_as_on_command_line(str, item) for item in value]
        return None if None in items else ",".join(items)
    if isinstance(value, bool) or kind is bool:
        return value if kind is bool and isinstance(value, bool) else None
    if kind is str:
        return str(value) if isinstance(value, (str, int)) else None
    return value if isinstance(value, (int, kind)) else None


def _read(path: Path) -> dict[str, Any]:
    if path.is_dir() or not path.exists():  # it may be a pipe, <(command)
        raise USAGE_ERROR(f"--config: there is no file {path}")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise USAGE_ERROR(f"{path} is not a TOML file: {error}") from None
