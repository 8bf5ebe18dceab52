"""--json: what a command found, as one line of JSON on stdout and nothing else there.

Numbers that JSON lacks become null; signs beyond ASCII are escaped, so that any console shows them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from gpumlp.cli.describe import FILES, metric_name, reported_epoch
from gpumlp.data import Dataset
from gpumlp.network import MLP
from gpumlp.training import History
from gpumlp.training.memory import Memory

KEYS = {"R²": "r2", "RMSE": "rmse", "MAE": "mae"}  # a metric's name for people → for machines


def show(content: Mapping[str, Any]) -> None:
    """Print it."""
    typer.echo(line(content))


def line(content: Mapping[str, Any]) -> str:
    """It as one line of JSON."""
    return json.dumps(_finite(content), allow_nan=False)


def about(dataset: Dataset, net: MLP) -> dict[str, Any]:
    """The data and the network."""
    return {
        "data": {
            "name": dataset.name,
            "task": dataset.task,
            "examples": len(dataset),
            "features": dataset.x.shape[1],
            "classes": dataset.classes,
        },
        "network": {
            "widths": net.widths,
            "activations": [f.name for f in net.f[1:]],
            "loss": net.loss.name,
            "parameters": net.theta.layout.count,
            "precision": net.precision,
            "room": net.backend.describe(),
        },
    }


def plan(dataset: Dataset, net: MLP, memory: Memory) -> None:
    """The memory that a training would take, in bytes."""
    show({**about(dataset, net), "memory": {**asdict(memory), "total": memory.total}})


def trained(dataset: Dataset, net: MLP, history: History, folder: Path) -> None:
    """How a training ended: the row of the history that the model's θ is of, and the files."""
    epoch = reported_epoch(history)
    show(
        {
            **about(dataset, net),
            "stopped": history.stopped,
            "epochs": history.epochs,
            "epoch": epoch,  # from 0, as in history.json
            "metric": KEYS.get(metric_name(net), metric_name(net)),
            "result": {} if epoch is None else history.row(epoch),
            "files": {name: str(folder / name) for name in FILES},
        }
    )


def evaluated(dataset: Dataset, net: MLP, cost: float, measured: Mapping[str, float]) -> None:
    """A model's cost and metrics."""
    metrics = {KEYS.get(name, name): value for name, value in measured.items()}
    show({**about(dataset, net), "result": {"cost": cost, **metrics}})


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
