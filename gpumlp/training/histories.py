"""Histories: the numbers of a fit of an ensemble, one `History` for each member."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

import numpy as np

from gpumlp.io.types import HostArray
from gpumlp.training.history import History


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
