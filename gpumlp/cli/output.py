"""What several commands print: JSON, tables, and what they say about data and network.

With --json, stdout holds one line of JSON and nothing else. Numbers that JSON lacks become null;
characters beyond ASCII are escaped, so that any console shows them.
"""

from __future__ import annotations

import glob
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from gpumlp.cli.models import Model, members
from gpumlp.data import EMBEDDED, Dataset, Preparation, sources
from gpumlp.ensemble import Ensemble
from gpumlp.functions import blocks
from gpumlp.plots import blank_figure
from gpumlp.storage import check_place

METRIC_KEYS = {"R²": "r2", "RMSE": "rmse", "MAE": "mae"}  # name for people → key in JSON


def print_json(content: Mapping[str, Any]) -> None:
    """Print one line of JSON."""
    typer.echo(json.dumps(finite(content), allow_nan=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> None:
    """Print a table without borders; its first `left` columns are aligned to the left."""
    table = Table(box=None, pad_edge=False)
    for j, name in enumerate(columns):
        table.add_column(name, justify="left" if j < left else "right", vertical="bottom")
    for row in rows:
        table.add_row(*row)
    # in a line of 10,000 characters, nothing is wrapped or cut off
    Console(width=10_000, markup=False, highlight=False, emoji=False).print(table)


def describe(name: str, examples: int, known: Dataset | Preparation, net: Model) -> dict[str, Any]:
    """The data and the network for JSON; `known` has the task, the features and the classes."""
    return {
        "data": {
            "name": name,
            "task": known.task,
            "examples": examples,
            "features": len(known.features),
            "classes": known.classes,
        },
        "network": {
            "widths": net.widths,
            "activations": [f.name for f in net.f[1:]],
            "loss": net.loss.name,
            "parameters": sum(each.theta.layout.count for each in members(net)),
            **blocks.config(members(net)[0].blocks),
            "precision": net.precision,
            "backend": net.backend.describe(),
            **({"members": len(members(net))} if isinstance(net, Ensemble) else {}),
        },
    }


def metric_name(net: Model) -> str:
    """The name of the default metric for this network."""
    return "accuracy" if net.loss.target in ("class", "binary") else "R²"


def check_plot(path: Path | None, option: str = "--plot") -> None:
    """Raise before the work begins if the figure could not be written; None means no figure."""
    if path is not None:
        if path.suffix.lower() != ".png":
            raise ValueError(f"{option} must end in .png, got {path}")
        check_place(path)
        blank_figure()


def check_outputs(written: Mapping[str, Path | None], read: Mapping[str, Any]) -> None:
    """Raise ValueError if a file to write is a file that is read, or two are the same file.

    Args:
        written: the files to write, by what the user calls them; None is no file.
        read: the files, folders and patterns of files to read, or lists of these, by what they are.
    """
    targets: dict[Path, str] = {}
    for name, path in written.items():
        if path is None:
            continue
        for what, source in read.items() if path.exists() else ():
            if any(path.samefile(file) for file in _files(source)):
                raise ValueError(f"{name} is {what} that is read; choose another name")
        other = targets.setdefault(Path(os.path.realpath(path)), name)
        if other != name:
            raise ValueError(f"{name} is the same file as {other}; choose another name")


def check_apart(name: str, out: Path, data: Sequence[str]) -> None:
    """Raise ValueError if a table to write would be one of the files of a folder or pattern."""
    if sources.suffix(out) not in sources.TABLES:
        return
    place = Path(os.path.realpath(out))
    for source in data:
        folder = os.path.realpath(source)
        inside = place.is_relative_to(folder) if Path(source).is_dir() else place.match(folder)
        if inside and place != Path(folder):
            raise ValueError(
                f"{name} would be one of the files of {source} that are read; choose another folder"
            )


def _files(source: Any) -> Iterator[Path]:
    """The files that a source stands for: itself, those in a folder, or those of a pattern."""
    if source is None or str(source) in EMBEDDED:
        return
    if isinstance(source, (list, tuple)):
        for each in source:
            yield from _files(each)
        return
    path = Path(source)
    if path.is_dir():
        yield from sources.walk(path)
    elif path.exists():
        yield path
    else:
        yield from map(Path, glob.iglob(str(source), recursive=True))  # noqa: PTH207  (it may be absolute)


def finite(value: Any) -> Any:
    """The value with None in place of numbers that JSON lacks."""
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
