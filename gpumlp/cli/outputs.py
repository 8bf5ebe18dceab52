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

from gpumlp.cli.describe import metric_name
from gpumlp.data import Preparation
from gpumlp.network import MLP
from gpumlp.plots import plot_history
from gpumlp.storage import atomic_write
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


def write(path: Path, net: MLP, preparation: Preparation, history: History, name: str) -> None:
    """Put model.safetensors, history.json and history.png into the folder."""
    net.save(path / "model.safetensors", extra={"data": preparation.to_json()})
    atomic_write(path / "history.json", history.to_json().encode())
    widths = "-".join(map(str, net.widths))
    title = f"{name}: {widths}, {net.precision}"
    plot_history(history, path / "history.png", metric=metric_name(net), title=title)


def predictions_writer(out: Path | None) -> Callable[[HostArray, Classes], None]:
    """Where predictions go: stdout, or a .csv or .npy file."""
    if out is None:
        return _write_stdout
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
