"""The folder of a run: its files, written whole or not at all, and the summary of a training."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer

from gpumlp.cli import config
from gpumlp.cli.models import Model
from gpumlp.cli.output import METRIC_KEYS, check_outputs, metric_name, print_table
from gpumlp.data import Preparation
from gpumlp.ensemble import Ensemble
from gpumlp.io.files import atomic_write, check_place, together
from gpumlp.io.signals import Interrupt, ending
from gpumlp.plots import plot_history
from gpumlp.training import Histories, History
from gpumlp.training.monitor import COSTS, UNRANKED

MODEL, CHECKPOINT = "model.safetensors", "checkpoint.safetensors"
FILES = (MODEL, CHECKPOINT, "history.json", "history.png", "run.toml")
CHECKPOINTS = "checkpoints"  # the folder with a checkpoint for each member of an ensemble
EVENTS = "tensorboard"  # the folder that --tensorboard adds to the files
HOW = {  # by `History.stopped`
    "finished": "finished {after}",
    "early": "stopped early {after}",
    "diverged": "diverged",
    "interrupted": "interrupted {after}{by}; --resume continues",
}
ROWS = 12  # the most rows of the printed table


def checkpoint(several: bool) -> str:
    """The name of the checkpoint: a file, or a folder for several networks."""
    return CHECKPOINTS if several else CHECKPOINT


def check_files(options: Any, path: Path, names: Sequence[str]) -> None:
    """Raise if a command cannot write these files into its folder, or one would replace an input.

    options: those of a command that has the data as DATA, and --config.
    """
    check_folder(path, *names)
    own = options.config is not None and config.is_written_by_us(options.config)
    read = {"the data": options.data, "the file of --config": None if own else options.config}
    check_outputs({f"--out: {path / name}": path / name for name in names}, read)


def check_folder(path: Path, *names: str) -> None:
    """Raise if the folder cannot be made, or no files can have these names, or any, in it."""
    for each in (path, *path.parents):
        if each.exists() and not each.is_dir():
            raise ValueError(f"--out must be a folder, but {each} is a file; choose another name")
    target = Path(os.path.realpath(path))
    there = next(each for each in (target, *target.parents) if each.exists())
    if (there != target or not names) and not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(
            f"--out {path}: the folder {there} is read-only; choose another --out"
        )
    if CHECKPOINTS in names and (path / CHECKPOINTS).is_file():
        raise ValueError(
            f"--models needs a folder for its checkpoints, but {path / CHECKPOINTS} is a file; "
            "choose another --out"
        )
    if path.exists():
        for name in {*names} - {CHECKPOINTS}:
            check_place(path / name)


@contextlib.contextmanager
def folder(path: Path) -> Iterator[Path]:
    """The folder.  It is created where it is missing, and removed again if it stays empty."""
    target = Path(os.path.realpath(path))  # a link may lead to a folder that does not exist yet
    parts = (target / CHECKPOINTS, target, *target.parents)
    created = [each for each in parts if not each.exists()]
    target.mkdir(parents=True, exist_ok=True)
    try:
        yield path
    finally:
        for each in created:
            with contextlib.suppress(OSError):  # not empty, or not there
                each.rmdir()


def files(tensorboard: bool, several: bool) -> tuple[str, ...]:
    """The names of the files that a training writes into its folder."""
    names = (checkpoint(several) if name == CHECKPOINT else name for name in FILES)
    return (*names, *[EVENTS] * tensorboard)


def print_earlier_run(path: Path, resume: bool, tensorboard: bool, several: bool) -> None:
    """Print on stderr what happens to the files of an earlier run."""
    own = path / checkpoint(several)
    if resume and not own.exists():
        typer.echo(f"there is no {own}: starting from the beginning", err=True)
    elif not resume and any((path / name).exists() for name in files(tensorboard, several)):
        others = [] if tensorboard else [EVENTS]
        others = [name for name in (checkpoint(not several), *others) if (path / name).exists()]
        one = len(others) == 1 and others[0] != CHECKPOINTS
        stay = f"{' and '.join(others)} stay{'s' * one} unchanged"
        unchanged = f"; {stay}" if others else ""
        typer.echo(f"replacing the files of an earlier run in {path}{unchanged}", err=True)


@contextlib.contextmanager
def writing(path: Path, several: bool) -> Iterator[Interrupt]:
    """A block that writes the files of a run, together or not at all; signals wait for its end."""
    try:
        with Interrupt() as interrupt, together():
            yield interrupt
    except OSError as error:
        raise OSError(
            f"{error}; no file of the run has changed but {path / checkpoint(several)}, which "
            "holds the training: remove the cause, and add --resume"
        ) from error


def write(
    path: Path, net: Model, preparation: Preparation, history: History | Histories, data: str
) -> None:
    """Write model.safetensors, history.json and history.png into the folder."""
    net.save(path / MODEL, extra={"data": preparation.to_json()})
    atomic_write(path / "history.json", history.to_json().encode())
    several = f"{len(net)} × " if isinstance(net, Ensemble) else ""
    title = f"{data}: {several}{'-'.join(map(str, net.widths))}, {net.precision}"
    drawn = history.trained if isinstance(history, Histories) else history
    first = metrics(history)[0]
    name = metric_name(net) if first == "metric" else first
    plot_history(drawn, path / "history.png", metric=name, title=title)


class Report:
    """The end of a training of one network.

    Attributes:
        history: what `Trainer.fit` returned.
        model: what model.safetensors holds.
        stopped: how the training ended, as `History.stopped` says it.
        interrupted: whether a signal came before the end of the run.
    """

    interrupted = False

    def __init__(self, history: History, net: Model) -> None:
        self.history: Any = history
        self.model: Model = net
        self.stopped = history.stopped
        self._row = history.row(epoch_of_network(history))

    def print_history(self) -> None:
        """Print costs and metrics of some epochs."""
        print_epochs(self.history, self.model)

    def print_end(self) -> None:
        """Print how the training ended."""
        how, row = ended(self.stopped, [self.history.epochs]), self._row
        columns = (
            f"val_{name}" if f"val_{name}" in row else name for name in metrics(self.history)
        )
        results = ", ".join(
            f"{column_title(name, self.model)} {row[name]:.4f}" for name in columns if row
        )
        typer.echo(f"{how}{': ' * bool(results)}{results}")

    def end_as_json(self) -> dict[str, Any]:
        """How the training ended, with the epoch of the network's θ."""
        end = end_of_one(self.history)
        result = end.pop("result")
        return {**end, **self._result(result)}

    def _result(self, scores: Mapping[str, float]) -> dict[str, Any]:
        """Scores, and the name of the first metric, for JSON; that of "metric" says which it is."""
        default, found = metric_name(self.model), metrics(self.history)
        key = METRIC_KEYS.get(default, default) if "metric" in found else next(iter(found), None)
        return {"metric": key, "result": scores}


def print_epochs(
    history: History, net: Model, further: Mapping[str, Sequence[int]] | None = None
) -> None:
    """Print costs and metrics of some epochs, evenly spaced, with the best and the last.

    With several metrics and validation data, only the metrics of the validation data are shown:
    more columns would not fit.

    further: more columns, by title.
    """
    found, more = metrics(history), further or {}
    names = [column for name in ("cost", *found) for column in (name, f"val_{name}")]
    if len(found) > 1 and "val_cost" in history:
        names = [name for name in names if name not in found]
    names = [name for name in (*names, "lr", "seconds") if name in history]
    best = history.best_epoch
    shown = {round(i) for i in np.linspace(0, history.epochs - 1, min(ROWS, history.epochs))}
    shown |= set() if best is None else {best}
    print_table(
        ["epoch", *(column_title(name, net).replace(" ", "\n") for name in names), *more],
        [
            [
                f"{i + 1}{' (best)' * (i == best)}", *(f"{history[name][i]:.4g}" for name in names),
                *(str(column[i]) for column in more.values()),
            ]
            for i in sorted(shown)
        ],
    )  # fmt: skip


def ended(stopped: str, epochs: Sequence[int]) -> str:
    """How trainings with so many epochs ended: "finished after 20 epochs"."""
    low, high = min(epochs), max(epochs)
    after = f"after {f'{low} to ' * (low < high)}{high} epoch{'s' * (high != 1)}"
    by = f" by {ending.name}" if ending.number else ""
    return HOW[stopped].format(after=after, by=by)


def end_of_one(history: History) -> dict[str, Any]:
    """How the training of a network ended, for JSON."""
    epoch = epoch_of_network(history)
    return {
        "stopped": history.stopped,
        "epochs": history.epochs,
        "epoch": epoch if history.epochs else None,  # from 0, as in history.json
        "result": history.row(epoch),
    }


def metrics(history: History | Histories) -> list[str]:
    """The columns of the metrics, without those of the validation data."""
    columns = history.columns if isinstance(history, Histories) else list(history)
    return [name for name in columns if name not in (*COSTS, *UNRANKED) and name[:4] != "val_"]


def column_title(column: str, net: Model) -> str:
    """The title of a column: "validation accuracy" for "val_metric"."""
    if column in ("lr", "seconds"):
        return "learning rate" if column == "lr" else column
    name = column.removeprefix("val_")
    part = "training" if name == column else "validation"
    return f"{part} {metric_name(net) if name == 'metric' else name}"


def epoch_of_network(history: History) -> int:
    """The epoch, from 0, of the network's θ: the best one if it is known, else the last."""
    return history.epochs - 1 if history.best_epoch is None else history.best_epoch
