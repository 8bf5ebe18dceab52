"""A column of the history that something watches: which way is better, and what counts as more."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from gpumlp import checks

COSTS = ("cost", "val_cost")
UNRANKED = ("epoch", "lr", "seconds")  # neither of their ways is better


@dataclass(frozen=True)
class Monitor:
    """The column, and when a value of it is better than another.

    Args:
        column: of the history.
        mode: "min" where it is to fall, "max" where it is to rise; "auto": costs fall, and metrics,
            as scikit-learn's scorers do, rise.
        min_delta: a change must be larger than this to count as one.

    Raises:
        ValueError, TypeError: an argument is not as said.
    """

    column: str
    mode: str = "auto"
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.column, str) or self.column in UNRANKED:
            raise ValueError(
                "monitor must be a column of costs or metrics, such as "
                f'"val_cost" or "val_metric", got {self.column!r}'
            )
        if self.mode not in ("auto", "min", "max"):
            raise ValueError(f'mode must be "auto", "min" or "max", got {self.mode!r}')
        checks.positive_number(self.min_delta, "min_delta", least=0)

    def improves(self, value: float, best: float | None) -> bool:
        """Whether `value` is better than `best`, or the first; NaN never is."""
        falls = self.mode == "min" or (self.mode == "auto" and self.column in COSTS)
        sign = -1.0 if falls else 1.0
        return sign * value > (-math.inf if best is None else sign * best + self.min_delta)

    def check(self, who: str, columns: Iterable[str]) -> None:
        """Raise unless the fit's history has the column."""
        known = [name for name in columns if name not in UNRANKED]
        if self.column in known:
            return
        unseen = self.column.startswith("val_") and "val_cost" not in known
        data = "pass validation=(x_val, y_val), or " if unseen else ""
        raise ValueError(
            f"{who} watches {self.column!r}, which this fit does not compute; "
            f"{data}monitor one of: {', '.join(known)}"
        )
