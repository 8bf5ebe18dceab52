"""History: the numbers of a fit, one row per epoch; Histories: those of an ensemble's members."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, overload

import numpy as np

from gpumlp.io.types import HostArray

STOPPED = ("finished", "early", "interrupted", "converged", "diverged")


class History(Mapping[str, list[float]]):
    """Columns by name, each with one number per epoch.  Only computed columns are present.

    Columns:
        cost: the mean of L over the epoch's examples, each taken just before its update, plus
            λΩ(θ) at the epoch's end.
        metric: the metric of the training data at the epoch's end.  Several metrics have a column
            each, under their own names.
        val_cost, val_metric: cost and metric of the validation data at the epoch's end; val_cost
            includes λΩ(θ).
        lr: the learning rate of the epoch's last step.
        seconds: the duration of the epoch, validation included.

    Attributes:
        stopped: how the fit ended: "finished"; "early" by early stopping or a callback;
            "interrupted" by Ctrl-C or an error; "converged" in `fit_lbfgs`; "diverged" for a member
            of an ensemble.
        best_epoch: the epoch (from 0) that early stopping found best, else None.
    """

    def __init__(self, columns: Iterable[str]) -> None:
        self._columns: dict[str, list[float]] = {name: [] for name in columns}
        self.stopped = "interrupted"
        self.best_epoch: int | None = None

    def __getitem__(self, column: str) -> list[float]:
        return self._columns[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {value:.4g}" for name, value in self.row(-1).items())
        return f"History({self.epochs} epochs, {self.stopped}; last: {last or 'none'})"

    @property
    def epochs(self) -> int:
        """The number of completed epochs."""
        return min(map(len, self._columns.values()), default=0)

    def append(self, row: Mapping[str, float]) -> None:
        """Add an epoch's numbers, given by column."""
        for name, column in self._columns.items():
            column.append(float(row[name]))

    def row(self, epoch: int) -> dict[str, float]:
        """An epoch's numbers by column; empty if no epoch was completed."""
        return {name: column[epoch] for name, column in self._columns.items() if column}

    def to_dict(self) -> dict[str, Any]:
        """Columns, `stopped` and `best_epoch`, for `from_dict`."""
        return {
            "columns": {name: list(column) for name, column in self._columns.items()},
            "stopped": self.stopped,
            "best_epoch": self.best_epoch,
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        """The history that `to_dict` returned."""
        history = cls(())
        history._columns = {name: list(column) for name, column in saved["columns"].items()}
        history.stopped, history.best_epoch = saved["stopped"], saved["best_epoch"]
        return history

    def to_json(self) -> str:
        """`to_dict` as JSON.  Numbers that are not finite become null, since JSON lacks them."""
        saved = self.to_dict()
        for column in saved["columns"].values():
            column[:] = [value if math.isfinite(value) else None for value in column]
        return json.dumps(saved, indent=1)


class Histories(Sequence[History]):
    """The `History` of each member.  ``histories["val_cost"]`` is this column of each: K arrays.

    Attributes:
        diverged: for each member whose training diverged, in this fit or before, its number and
            what was not finite.
    """

    def __init__(self, each: Iterable[History], diverged: Mapping[int, str]) -> None:
        self._each, self.diverged = tuple(each), dict(diverged)

    @overload
    def __getitem__(self, key: int) -> History: ...
    @overload
    def __getitem__(self, key: str) -> list[HostArray]: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[History, ...]: ...

    def __getitem__(self, key: int | str | slice) -> Any:
        """The history of a member; or of a column, (epochs,) float64 of each member."""
        if isinstance(key, str):
            return [np.array(history[key]) for history in self._each]
        return self._each[key]

    def __len__(self) -> int:
        return len(self._each)

    def __repr__(self) -> str:
        counts = Counter(self.stopped)
        ends = ", ".join(f"{count} {stopped}" for stopped, count in counts.items())
        return f"Histories({len(self)} members: {ends})"

    @property
    def trained(self) -> list[History]:
        """The histories of the members that have not diverged and have completed an epoch."""
        return [h for i, h in enumerate(self._each) if h.epochs and i not in self.diverged]

    def mean(self) -> History:
        """The mean of each column over the members of `trained` that have the epoch."""
        found = History(self.columns)
        for epoch in range(max((history.epochs for history in self.trained), default=0)):
            rows = [h.row(epoch) for h in self.trained if epoch < h.epochs]
            found.append({name: float(np.mean([row[name] for row in rows])) for name in found})
        return found

    def to_json(self) -> str:
        """As JSON: "members", a list with `History.to_json` of each, and "diverged", by number."""
        members = [json.loads(history.to_json()) for history in self._each]
        return json.dumps({"members": members, "diverged": self.diverged}, indent=1)

    @property
    def columns(self) -> list[str]:
        """The names of the columns, which all members have."""
        return list(self._each[0])

    @property
    def stopped(self) -> list[str]:
        """How each member's fit ended: see `History`."""
        return [history.stopped for history in self._each]

    @property
    def best_epochs(self) -> list[int | None]:
        """The epoch (from 0) that early stopping found best, of each member; else None."""
        return [history.best_epoch for history in self._each]
