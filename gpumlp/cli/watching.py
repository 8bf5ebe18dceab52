"""Metrics, early stopping and the learning rate's falls, as options ask for them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from gpumlp.callbacks import ReduceOnPlateau
from gpumlp.cli.options import completing, listed
from gpumlp.functions import LOSSES
from gpumlp.functions.entry import lookup
from gpumlp.training import EarlyStopping, scorers
from gpumlp.training.events import Callback
from gpumlp.training.metrics import measures
from gpumlp.training.monitor import Monitor


def complete(incomplete: str) -> list[str]:
    """Metrics that go on from what is typed; only now is scikit-learn asked for their names."""
    with contextlib.suppress(ImportError):
        return completing(["auto", *scorers.names()])(incomplete)
    return completing(["auto"])(incomplete)


def metrics(asked: str | None, loss: str | None) -> str | list[str]:
    """What `Trainer.fit` takes for --metric.

    Raises:
        ValueError, ImportError: a name is unknown or there twice, or scikit-learn is missing.
    """
    if asked is None:
        return "auto"
    if not (names := listed(asked)):
        raise ValueError(f"--metric takes names such as f1_macro,roc_auc_ovr, got {asked!r}")
    measures(lookup(LOSSES, "loss", loss or "squared_error"), names)  # what is of names alone
    return names


def columns(metric: str | list[str]) -> list[str]:
    """The metrics' columns in the history, without the val_ of the validation data's."""
    names = [metric] if isinstance(metric, str) else metric
    return ["metric" if name == "auto" else name for name in names]


def rules(
    metric: str | list[str], validation: float, monitor: str | None, patience: int | None,
    plateau: int | None, factor: float | None,
) -> tuple[EarlyStopping | None, list[Callback]]:  # fmt: skip
    """--patience as early stopping, and --plateau as a callback; both look at --monitor.

    Raises:
        ValueError: an option has no meaning without another, or the column will not be there.
    """
    asked = {"--patience": patience, "--plateau": plateau}
    users = [name for name, epochs in asked.items() if epochs is not None]
    if monitor is not None and not users:
        raise ValueError("--monitor is for --patience and --plateau; add one of them")
    if factor is not None and plateau is None:
        raise ValueError("--plateau-factor is for --plateau; add --plateau EPOCHS")
    column = monitor or "val_cost"
    if users:
        _check(column, monitor is None, users[0], columns(metric), validation)
    stopping = None if patience is None else EarlyStopping(patience, monitor=column)
    if plateau is None:
        return stopping, []
    given: Any = {} if factor is None else {"factor": factor}
    return stopping, [ReduceOnPlateau(column, patience=plateau, **given)]


def _check(column: str, usual: bool, who: str, names: Sequence[str], validation: float) -> None:
    """Raise unless the history will have the column."""
    if usual and not validation:
        raise ValueError(f"{who} watches the validation cost; leave out --validation 0")
    held = ["val_cost", *(f"val_{name}" for name in names)] if validation else []
    Monitor(column).check("--monitor", ["cost", *names, *held])
