"""What the commands write: whole files or none."""

from __future__ import annotations

import contextlib
import csv
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import typer

from gpumlp.cli.describe import metric_name
from gpumlp.cli.machine import line
from gpumlp.data import Dataset, Preparation
from gpumlp.network import MLP
from gpumlp.plots import blank_figure, plot_history, save_figure
from gpumlp.plots_evaluation import confusion_figure, residual_figure
from gpumlp.storage import atomic_write, check_place
from gpumlp.training import History

HostArray = npt.NDArray[Any]
Classes = tuple[str, ...] | None


def check_folder(path: Path) -> None:
    """Raise where the path, or what should hold it, is a file."""
    for each in (path, *path.parents):
        if each.exists() and not each.is_dir():
            raise ValueError(f"--out takes a folder, but {each} is a file; name another")


@contextlib.contextmanager
def folder(path: Path) -> Iterator[Path]:
    """The folder, made where it is missing; what was made and stayed empty is removed again.

    Raises:
        ValueError: there is a file of that name.
    """
    check_folder(path)
    made = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):  # not empty
            for each in made:
                each.rmdir()


def write(
    path: Path, net: MLP, preparation: Preparation, history: History, name: str, run: str
) -> None:
    """Put model.safetensors, history.json, history.png and run.toml into the folder."""
    net.save(path / "model.safetensors", extra={"data": preparation.to_json()})
    atomic_write(path / "history.json", history.to_json().encode())
    atomic_write(path / "run.toml", run.encode(errors="replace"))
    widths = "-".join(map(str, net.widths))
    title = f"{name}: {widths}, {net.precision}"
    plot_history(history, path / "history.png", metric=metric_name(net), title=title)


def picture(path: Path | None) -> Callable[[Dataset, HostArray], None]:
    """What draws the predictions p of a data set: the confusion matrix, or residuals; or nothing.

    Raises:
        ValueError, OSError, ImportError: the picture could not be written, before anything is done.
    """
    if path is None:
        return lambda dataset, p: None
    if path.suffix.lower() != ".png":
        raise ValueError(f"--plot must end in .png, got {path}")
    check_place(path)
    blank_figure()

    def draw(dataset: Dataset, p: HostArray) -> None:
        if dataset.classes is None:
            y = dataset.y.reshape(len(p), -1)
            figure = residual_figure(y, p, name=dataset.target or "target", title=dataset.name)
        else:
            figure = confusion_figure(dataset.y, p.argmax(axis=1), dataset.classes, dataset.name)
        save_figure(figure, path)

    return draw


def predictions_writer(
    out: Path | None, as_json: bool = False
) -> Callable[[HostArray, Classes], None]:
    """Where predictions go: stdout, as CSV or JSON lines, or a .csv or .npy file."""
    if out is None:
        return _write_json if as_json else _write_stdout
    if out.suffix.lower() not in (".csv", ".npy"):
        raise ValueError(f"--out must end in .csv or .npy, got {out}")

    def write_file(p: HostArray, classes: Classes) -> None:
        if out.suffix.lower() == ".csv":
            text = io.StringIO()
            _write_csv(text, p, classes)
            data = text.getvalue().encode()
        else:
            binary = io.BytesIO()
            np.save(binary, p, allow_pickle=False)
            data = binary.getvalue()
        atomic_write(out, data)

    return write_file


def _write_stdout(p: HostArray, classes: Classes) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    for name in classes or ():
        if name.encode(encoding, "replace").decode(encoding) != name:  # a ? would stand for another
            raise ValueError(f"the class {name!r} cannot be written in {encoding}; use --out FILE")
    _write_csv(sys.stdout, p, classes)


def _write_json(p: HostArray, classes: Classes) -> None:
    """One object an example: its label and each class's probability, or its value (or values)."""
    for row in p.tolist():
        if classes:
            label = classes[max(range(len(row)), key=row.__getitem__)]
            told = {"prediction": label, "probabilities": dict(zip(classes, row, strict=True))}
        else:
            told = {"prediction": row[0] if len(row) == 1 else row}
        typer.echo(line(told))


def _write_csv(file: Any, p: HostArray, classes: Classes) -> None:
    """One line an example: its label and each class's probability, or its value (or values)."""
    rows = csv.writer(file, lineterminator="\n")
    if classes:
        rows.writerow(["prediction", *(f"probability_{name}" for name in classes)])
        for row in p:
            rows.writerow([classes[row.argmax()], *(f"{value:.9g}" for value in row)])
    else:
        several = [f"prediction_{j}" for j in range(p.shape[1])]
        rows.writerow(["prediction"] if p.shape[1] == 1 else several)
        rows.writerows([f"{value:.9g}" for value in row] for row in p)
