"""What the commands write: whole files or none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from gpumlp.cli.describe import metric_name, metrics
from gpumlp.data import Preparation
from gpumlp.network import MLP
from gpumlp.plots.training import plot_history
from gpumlp.storage import atomic_write
from gpumlp.training import History


def check_folder(path: Path) -> None:
    """Raise where the path, or what should hold it, is a file."""
    for each in (path, *path.parents):
        if each.exists() and not each.is_dir():
            raise ValueError(f"--out takes a folder, but {each} is a file; name another")


def nearest(path: Path) -> Path:
    """The path, or the first above it, that is a folder."""
    return next(each for each in (path, *path.absolute().parents) if each.is_dir())


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
    names = [metric_name(net) if name == "metric" else name for name in metrics(history)]
    plot_history(history, path / "history.png", metric=names[0], title=title)
