"""What the commands tell: the data, the network, the course of a training, the installation."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import gpumlp
from gpumlp.data import Dataset, Preparation, Scratch
from gpumlp.data.raw import listed
from gpumlp.io.threads import blas_name
from gpumlp.network import MLP
from gpumlp.training import History
from gpumlp.training.lr_range import LRCurve
from gpumlp.training.monitor import COSTS, UNRANKED

FILES = ("model.safetensors", "checkpoint.safetensors", "history.json", "history.png", "run.toml")
EVENTS = "tensorboard"  # the folder that --tensorboard adds to them
MISSING = "not installed"
ROWS, WIDEST = 12, 1000  # of the table: its lines, and their length, so that no number is cut
OPTIONAL = (
    "safetensors", "typer", "rich", "tqdm", "matplotlib", "pyarrow", "scikit-learn", "mlxtend",
    "ml_dtypes", "torch", "cupy-cuda12x", "cupy-cuda13x", "nvmath-python",
)  # fmt: skip


def metric_name(net: MLP) -> str:
    """What the history's metric is for this network."""
    return "accuracy" if net.loss.target in ("class", "binary") else "R²"


def start(dataset: Dataset, part: Dataset, held: Dataset | None, net: MLP) -> None:
    """The data and the network, and so the backend it runs in."""
    typer.echo(f"{dataset!r}; {len(part):,} to train on, {len(held or ()):,} held out")
    typer.echo(repr(net))


def preparation(preparation: Preparation) -> None:
    """What was encoded and filled, on stderr: nothing is done silently."""
    words = [
        f"{name} ({len(kept)}{' and others' * (name in preparation.others)})"
        for name, kept in preparation.categories.items()
    ]
    if words:
        typer.echo(f"categories, with an input each: {listed(words)}", err=True)
    if preparation.holes:
        told = f"missing values, filled and with an input of their own: {listed(preparation.holes)}"
        typer.echo(told, err=True)


def scratch(backend: Scratch) -> None:
    """What lies in temporary files, on stderr."""
    if backend.used:
        typer.echo(f"{backend.used / 1e9:.2f} GB of temporary files in {backend.folder}", err=True)


class Unmet:
    """Values that a model met none of in training, counted column by column."""

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation
        self._counts = np.zeros(len(preparation.features), np.int64)

    def note(self, part: Dataset) -> None:
        """Count those of these examples."""
        self._counts += self._preparation.unseen_counts(part.x[:])

    def tell(self) -> None:
        """On stderr, where there are any: what the model makes of them is a guess."""
        named = zip(self._preparation.features, self._counts.tolist(), strict=True)
        odd = [f"{name} ({count})" for name, count in named if count]
        if odd:
            told = "columns with missing values or unknown categories, unlike in training"
            typer.echo(f"{told}: {listed(odd)}", err=True)


def files(tensorboard: bool) -> tuple[str, ...]:
    """What a training writes into its folder."""
    return (*FILES, *[EVENTS] * tensorboard)


def earlier_run(folder: Path, checkpoint: Path, resume: bool, tensorboard: bool) -> None:
    """What becomes of files that are there, on stderr."""
    if resume and not checkpoint.exists():
        typer.echo(f"there is no {checkpoint}: starting from the beginning", err=True)
    elif not resume and any((folder / name).exists() for name in files(tensorboard)):
        kept = "" if tensorboard or not (folder / EVENTS).exists() else f"; {EVENTS} stays as it is"
        typer.echo(f"replacing the files of an earlier run in {folder}{kept}", err=True)


def table(history: History, net: MLP) -> None:
    """The costs and metrics of some epochs, evenly spread, the best and the last among them.

    Of several metrics those of the validation data alone, where there is some: more would not fit.
    """
    measured = metrics(history)
    names = [column for name in ("cost", *measured) for column in (name, f"val_{name}")]
    if len(measured) > 1 and "val_cost" in history:
        names = [name for name in names if name not in measured]
    names = [name for name in (*names, "lr", "seconds") if name in history]
    shown = {round(i) for i in np.linspace(0, history.epochs - 1, min(ROWS, history.epochs))}
    if history.best_epoch is not None:
        shown.add(history.best_epoch)
    lines = Table("epoch", box=None, pad_edge=False)
    cells = {name: [f"{history[name][epoch]:.4g}" for epoch in sorted(shown)] for name in names}
    for name in names:
        lines.add_column(_told(name, net).replace(" ", "\n"), justify="right", vertical="bottom")
    for epoch, *row in zip(sorted(shown), *cells.values(), strict=True):
        lines.add_row(f"{epoch + 1}{' (best)' * (epoch == history.best_epoch)}", *row)
    Console(width=WIDEST).print(lines)


def end(history: History, net: MLP, folder: Path, written: Iterable[str]) -> None:
    """How the training ended, and where its files are."""
    epochs = f"{history.epochs} epoch{'s' * (history.epochs != 1)}"
    how = {
        "finished": f"finished after {epochs}",
        "early": f"stopped early after {epochs}",
        "interrupted": f"interrupted after {epochs}; --resume goes on",
    }[history.stopped]
    epoch = reported_epoch(history)
    row = {} if epoch is None else history.row(epoch)
    columns = (f"val_{n}" if f"val_{n}" in row else n for n in metrics(history))
    found = ", ".join(f"{_told(name, net)} {row[name]:.4f}" for name in columns if row)
    typer.echo(f"{how}{': ' * bool(found)}{found}")
    typer.echo(f"wrote {folder}/{', '.join(written)}")


def metrics(history: History) -> list[str]:
    """The metrics' columns, those of the validation data left out."""
    return [name for name in history if name not in (*COSTS, *UNRANKED) and name[:4] != "val_"]


def _told(column: str, net: MLP) -> str:
    """How people call a column: "validation accuracy" for "val_metric"."""
    if column in ("lr", "seconds"):
        return {"lr": "learning rate"}.get(column, column)
    name = column.removeprefix("val_")
    part = "training" if name == column else "validation"
    return f"{part} {metric_name(net) if name == 'metric' else name}"


def learning_rates(curve: LRCurve) -> None:
    """What a range test found, a line each."""
    best = "none: the cost never falls"
    if curve.suggestion is not None:
        best = f"{curve.suggestion:.2g}, where the cost falls most steeply"
    typer.echo(f"suggestion  {best}")
    typer.echo(f"minimum     {curve.minimum:.2g}, where the cost is least")
    end = ", where the cost explodes" if curve.exploded else ""
    typer.echo(f"steps       {len(curve.lr)}, from {curve.lr[0]:.2g} to {curve.lr[-1]:.2g}{end}")


def exported(out: Path, told: Mapping[str, Any]) -> None:
    """What a file holds that `gpumlp export` wrote."""
    for way in ("inputs", "outputs"):
        if way in told:
            shapes = (f"{name} ({', '.join(map(str, s))})" for name, s in told[way].items())
            typer.echo(f"{way:<9}{listed(shapes)}")
    typer.echo(f"wrote {out}")


def reported_epoch(history: History) -> int | None:
    """The epoch, from 0, that the network's θ is of: the best where it is known, else the last."""
    last = history.epochs - 1 if history.epochs else None
    return last if history.best_epoch is None else history.best_epoch


def installation() -> Iterator[tuple[str, str]]:
    """Names and versions of what gpumlp runs on, and its backends."""
    yield "gpumlp", gpumlp.__version__
    yield "Python", f"{platform.python_version()} on {platform.platform()}"
    yield "NumPy", f"{np.__version__} with {blas_name()}"
    for name in OPTIONAL:
        yield name, _version(name)
    yield "CPU", gpumlp.get_backend("numpy").describe()
    try:
        yield "GPU", gpumlp.get_backend("cupy").describe()
        yield "default", "the GPU"
    except gpumlp.DeviceError as error:
        yield "GPU", f"not used: {error}"
        yield "default", "the CPU"


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return MISSING
