"""How options are declared, the ones that several commands share, and the parsing of their texts.

A command has one dataclass of options, and a field is one option:

    l2: float = option(0.0, "X", "L2 regularization: adds X/2·Σθ² to the cost.")

Its name is the flag (--l2; `batch_size` is --batch-size) and the key in a TOML file; its type says
which values it has.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Collection, Iterable
from dataclasses import MISSING, field, fields
from functools import cache, partial
from typing import Any

import typer

import gpumlp
from gpumlp.checks import positive_int
from gpumlp.data import EMBEDDED, Embed
from gpumlp.data.names import split_names
from gpumlp.training import Group

COLUMNS = (  # the help of an option that takes a list of columns
    "Separate names with commas, or repeat the option; write a name with a comma in quotation "
    "marks: '\"weight, kg\",age'."
)
WHOLE_NUMBER = re.compile(r"[+-]?\d{1,9}", re.ASCII)
PRECISIONS = ("float64", "float32", "tf32", "bfloat16", "float16")


def option(
    default: Any, metavar: str | None, help: str, names: Collection[str] = (), *flags: str,
    declare: Callable[..., Any] = typer.Option, **settings: Any,
) -> Any:  # fmt: skip
    """A field of a dataclass of options; the default MISSING is for a required argument.

    A shell completes `names`, and they replace {names} in the help.  `flags` are for an option that
    is not written like the field.
    """
    if names:
        help = help.format(names=", ".join(names))
        settings.setdefault("autocompletion", completing(names))
    declared = declare(*flags, metavar=metavar, help=help, **settings)
    return field(default=default, metadata={"declared": declared, "flags": flags})


def switch(flag: str, help: str, *short: str) -> Any:
    """An option without a value, which is off by default; without a flag, typer adds --no-…"""
    return option(False, None, help, (), flag, *short)


argument = partial(option, declare=typer.Argument)


@cache
def kinds(options: type) -> dict[str, type]:
    """Each field's name → bool, int, float or list, or str for all other types."""
    hints, found = typing.get_type_hints(options), {}
    for each in fields(options):
        hint = hints[each.name]
        if typing.get_origin(hint) is not list:  # X | None
            hint = next((kind for kind in typing.get_args(hint) if kind is not type(None)), hint)
        kind = typing.get_origin(hint) or hint
        found[each.name] = kind if kind in (bool, int, float, list) else str
    return found


def completing(names: Collection[str]) -> Callable[[str], list[str]]:
    """A function for `autocompletion`: completes the last part of a list with commas."""

    def complete(incomplete: str) -> list[str]:
        done, comma, last = incomplete.rpartition(",")
        return [f"{done}{comma}{name}" for name in names if name.startswith(last)]

    return complete


DATA = (
    "Data set: {names}, or a .csv, .csv.gz, .tsv, .parquet, .npz or .npy file.  Several .csv or "
    ".parquet files, folders of them or patterns in quotation marks, 'data/*.csv', are one table, "
    "with the files in the given order; those of a folder or pattern are in the order of their "
    "names, part-2 before part-10.  Subfolders called key=value give columns."
)
data = partial(argument, metavar="DATA", help=DATA, names=EMBEDDED)
new_data = partial(
    data, MISSING, help=f"{DATA}  It must have the features that the model was trained on."
)
model = partial(argument, MISSING, "MODEL", "The file model.safetensors that `gpumlp train` wrote.")
target = partial(
    option, None, "COLUMN",
    "Target that the network predicts: the name of a column in a .csv or .parquet file, the name "
    "of an array in an .npz file (default: y), or the number of a column in an .npy file "
    "(default: the last one).",
)  # fmt: skip
drop_missing_target = partial(
    switch, "--drop-missing-target", "Leave out the rows without a target."
)
activation = partial(
    option, metavar="NAME", help="Activation of the hidden layers: {names}.",
    names=gpumlp.ACTIVATIONS,
)  # fmt: skip
optimizer = partial(option, metavar="NAME", help="Optimizer: {names}.", names=gpumlp.OPTIMIZERS)
batch_size = partial(option, metavar="N", help="Number of examples in a minibatch.", min=1)
backend = partial(
    option, "auto", "NAME",
    "Backend: cupy (on the GPU), cpu (compiled), numpy, or auto (the first of these that works).",
    ["auto", "cupy", "cpu", "numpy"],
)  # fmt: skip
json = partial(switch, "--json", "Print the result as JSON, and nothing else.")


def dashed(name: str) -> str:
    """The name of an option as the user writes it, without the dashes before it."""
    return name.replace("_", "-")


def split_commas(text: str | None) -> list[str]:
    """The parts of "a,b"."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def parse_widths(text: str, flag: str, example: str) -> list[int]:
    """The widths of layers in "256,128"."""
    try:
        widths = [int(width) for width in text.split(",")]
    except ValueError:
        raise ValueError(f"{flag} must be widths such as {example}, got {text!r}") from None
    return [positive_int(width, f"a width of {flag}") for width in widths]


def parse_groups(texts: Iterable[str]) -> dict[str, Group]:
    """The argument `groups` of `Trainer`, from texts such as "biases:lr=2,decay=0"."""
    groups: dict[str, Group] = {}
    for text in texts:
        name, _, settings = (part.strip() for part in text.partition(":"))
        given = [part.split("=") for part in settings.split(",")]
        try:
            factors = {factor.strip(): float(number) for factor, number in given}
        except ValueError:
            factors = {}
        if not factors or factors.keys() - {"lr", "decay"}:
            example = "NAME:lr=X,decay=Y, such as biases:decay=0"
            raise ValueError(f"--group must be {example}, got {text!r}")
        if name in groups or len(factors) < len(given):
            raise ValueError(f"--group {text}: {name} is given twice; write {name}:lr=X,decay=Y")
        try:
            groups[name] = Group(**factors)
        except ValueError as error:
            raise ValueError(f"--group {text}: {error}") from None
    return groups


def parse_embed(texts: Iterable[str]) -> Embed:
    """The argument `embed` of `Preparation.of`, from texts such as "16" and "city=8,zone=4"."""
    width, columns = None, dict[str, int]()
    for part in [part for text in texts for part in split_names(text)]:
        name, equals, number = part.rpartition("=")
        name, number = name.strip(), number.strip()
        if bool(equals) != bool(name) or not WHOLE_NUMBER.fullmatch(number):
            raise ValueError(
                "--embed must be a whole number such as 16, or COLUMN=NUMBER such as city=16, "
                f"got {part!r}"
            )
        d = positive_int(int(number), f"--embed {part}: the number")
        if name in columns or (not name and width is not None):
            what = repr(name) if name else "a number for all columns"
            raise ValueError(f"--embed has {what} twice; give it once")
        if name:
            columns[name] = d
        else:
            width = d
    return Embed(width, tuple(columns.items()))
