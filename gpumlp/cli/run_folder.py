"""The folder of a run: its files, written whole or not at all, and the summary of a training."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import typer

from gpumlp.cli.output import METRIC_KEYS, metric_name, print_table
from gpumlp.data import Preparation
from gpumlp.io.files import atomic_write, check_place, together
from gpumlp.io.signals import Interrupt, ending
from gpumlp.network import MLP
from gpumlp.plots import plot_history
from gpumlp.training import History
from gpumlp.training.monitor import COSTS, UNRANKED

FILES = ("model.safetensors", "checkpoint.safetensors", "history.json", "history.png", "run.toml")
EVENTS = "tensorboard"  # the folder that --tensorboard adds to the files
ROWS = 12  # the most rows of the printed table


def check_folder(path: Path, *names: str) -> None:
    """Raise if the path, or one of its parents, is a file, or no files can have these names."""
    for each in (path, *path.parents):
        if each.exists() and not each.is_dir():
            raise ValueError(f"--out must be a folder, but {each} is a file; choose another name")
    if path.exists():
        for name in names:
            check_place(path / name)


@contextlib.contextmanager
def folder(path: Path) -> Iterator[Path]:
    """The folder.  It is created where it is missing, and removed again if it stays empty."""
    target = Path(os.path.realpath(path))  # a link may lead to a folder that does not exist yet
    created = [each for each in (target, *target.parents) if not each.exists()]
    target.mkdir(parents=True, exist_ok=True)
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):  # not empty
            for each in created:
                each.rmdir()


def files(tensorboard: bool) -> tuple[str, ...]:
    """The names of the files that a training writes into its folder."""
    return (*FILES, *[EVENTS] * tensorboard)


def print_earlier_run(path: Path, resume: bool, tensorboard: bool) -> None:
    """Print on stderr what happens to the files of an earlier run."""
    checkpoint = path / "checkpoint.safetensors"
    if resume and not checkpoint.exists():
        typer.echo(f"there is no {checkpoint}: starting from the beginning", err=True)
    elif not resume and any((path / name).exists() for name in files(tensorboard)):
        stays = not tensorboard and (path / EVENTS).exists()
        unchanged = f"; {EVENTS} stays unchanged" if stays else ""
        typer.echo(f"replacing the files of an earlier run in {path}{unchanged}", err=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Interrupt]:
    """A block that writes the files of a run, together or not at all; signals wait for its end."""
    try:
        with Interrupt() as interrupt, together():
            yield interrupt
    except OSError as error:
        raise OSError(
            f"{error}; no file of the run has changed but {path / 'checkpoint.safetensors'}, which "
            "holds the training: remove the cause, and add --resume"
        ) from error


def write(path: Path, net: MLP, preparation: Preparation, history: History, data: str) -> None:
    """Write model.safetensors, history.json and history.png into the folder."""
    net.save(path / "model.safetensors", extra={"data": preparation.to_json()})
    atomic_write(path / "history.json", history.to_json().encode())
    title = f"{data}: {'-'.join(map(str, net.widths))}, {net.precision}"
    first = _metrics(history)[0]
    name = metric_name(net) if first == "metric" else first
    plot_history(history, path / "history.png", metric=name, title=title)


def print_history(history: History, net: MLP) -> None:
    """Print costs and metrics of some epochs, evenly spaced, with the best and the last.

    With several metrics and validation data, only the metrics of the validation data are shown:
    more columns would not fit.
    """
    metrics = _metrics(history)
    names = [column for name in ("cost", *metrics) for column in (name, f"val_{name}")]
    if len(metrics) > 1 and "val_cost" in history:
        names = [name for name in names if name not in metrics]
    names = [name for name in (*names, "lr", "seconds") if name in history]
    best = history.best_epoch
    shown = {round(i) for i in np.linspace(0, history.epochs - 1, min(ROWS, history.epochs))}
    shown |= set() if best is None else {best}
    print_table(
        ["epoch", *(_title(name, net).replace(" ", "\n") for name in names)],
        [
            [f"{i + 1}{' (best)' * (i == best)}", *(f"{history[name][i]:.4g}" for name in names)]
            for i in sorted(shown)
        ],
    )


def print_end(history: History, net: MLP, path: Path, written: tuple[str, ...]) -> None:
    """Print how the training ended, and which files it wrote."""
    epochs = f"{history.epochs} epoch{'s' * (history.epochs != 1)}"
    by = f" by {ending.name}" if ending.terminated else ""
    how = {
        "finished": f"finished after {epochs}",
        "early": f"stopped early after {epochs}",
        "interrupted": f"interrupted after {epochs}{by}; --resume continues",
    }[history.stopped]
    row = history.row(_epoch_of_network(history))
    columns = (f"val_{name}" if f"val_{name}" in row else name for name in _metrics(history))
    results = ", ".join(f"{_title(name, net)} {row[name]:.4f}" for name in columns if row)
    typer.echo(f"{how}{': ' * bool(results)}{results}")
    typer.echo(f"wrote {path}/{', '.join(written)}")


def end_as_json(history: History, net: MLP, path: Path, written: tuple[str, ...]) -> dict[str, Any]:
    """How the training ended: the epoch of the network's θ, and the files."""
    epoch, default = _epoch_of_network(history), metric_name(net)
    metric = METRIC_KEYS.get(default, default)
    return {
        "stopped": history.stopped,
        "epochs": history.epochs,
        "epoch": epoch if history.epochs else None,  # from 0, as in history.json
        "metric": metric if "metric" in history else next(iter(_metrics(history)), None),
        "result": history.row(epoch),
        "files": {name: str(path / name) for name in written},
    }


def _metrics(history: History) -> list[str]:
    """The columns of the metrics, without those of the validation data."""
    return [name for name in history if name not in (*COSTS, *UNRANKED) and name[:4] != "val_"]


def _title(column: str, net: MLP) -> str:
    """The title of a column: "validation accuracy" for "val_metric"."""
    if column in ("lr", "seconds"):
        return "learning rate" if column == "lr" else column
    name = column.removeprefix("val_")
    part = "training" if name == column else "validation"
    return f"{part} {metric_name(net) if name == 'metric' else name}"


def _epoch_of_network(history: History) -> int:
    """The epoch, from 0, of the network's θ: the best one if it is known, else the last."""
    return history.epochs - 1 if history.best_epoch is None else history.best_epoch
