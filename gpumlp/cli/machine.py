"""--json: what a command found, as one line of JSON on stdout and nothing else there.

Numbers that JSON lacks become null; signs beyond ASCII are escaped, so that any console shows them.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy.typing as npt
import typer

from gpumlp.cli.describe import metric_name, metrics, reported_epoch
from gpumlp.data import Dataset, Preparation
from gpumlp.network import MLP
from gpumlp.training import History
from gpumlp.training.lr_range import LRCurve
from gpumlp.training.memory import Memory

KEYS = {
    "cost": "cost",
    "R²": "r2",
    "RMSE": "rmse",
    "MAE": "mae",
}  # a metric's name for people → for machines


def show(content: Mapping[str, Any]) -> None:
    """Print it."""
    typer.echo(_line(content))


def about(name: str, examples: int, known: Dataset | Preparation, net: MLP) -> dict[str, Any]:
    """The data, of which `known` says the task, features and classes, and the network."""
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
            "parameters": net.theta.layout.count,
            "precision": net.precision,
            "backend": net.backend.describe(),
        },
    }


def plan(dataset: Dataset, net: MLP, memory: Memory) -> None:
    """The memory that a training would take, in bytes."""
    told = about(dataset.name, len(dataset), dataset, net)
    show({**told, "memory": {**asdict(memory), "total": memory.total}})


def trained(
    dataset: Dataset, net: MLP, history: History, folder: Path, written: Iterable[str]
) -> None:
    """How a training ended: the row of the history that the model's θ is of, and the files."""
    epoch, usual = reported_epoch(history), KEYS.get(metric_name(net), metric_name(net))
    show(
        {
            **about(dataset.name, len(dataset), dataset, net),
            "stopped": history.stopped,
            "epochs": history.epochs,
            "epoch": epoch,  # from 0, as in history.json
            "metric": usual if "metric" in history else next(iter(metrics(history)), None),
            "result": {} if epoch is None else history.row(epoch),
            "files": {name: str(folder / name) for name in written},
        }
    )


def learning_rates(dataset: Dataset, net: MLP, curve: LRCurve) -> None:
    """What a range test found, and its curve."""
    told = about(dataset.name, len(dataset), dataset, net)
    found = {name: getattr(curve, name) for name in ("suggestion", "minimum", "exploded")}
    lines = {name: getattr(curve, name).tolist() for name in ("lr", "loss", "smoothed")}
    show({**told, **found, "curve": lines})


def evaluated(
    name: str, examples: int, known: Preparation, net: MLP, measured: Mapping[str, float]
) -> None:
    """A model's cost and metrics; of a standardised target the cost is in its standard units."""
    metrics = {KEYS.get(each.partition(" ")[0], each): v for each, v in measured.items()}
    show({**about(name, examples, known, net), "result": metrics})


def predicted(p: npt.NDArray[Any], classes: tuple[str, ...] | None) -> None:
    """A line an example: its label and each class's probability, or its value (or values)."""
    for row in p.tolist():
        if classes:
            label = classes[row.index(max(row))]
            told = {"prediction": label, "probabilities": dict(zip(classes, row, strict=True))}
        else:
            told = {"prediction": row[0] if len(row) == 1 else row}
        sys.stdout.write(f"{_line(told)}\n")


def _line(content: Mapping[str, Any]) -> str:
    return json.dumps(_finite(content), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
