"""Track the best value of one column of the history, and how long ago it was."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from gpumlp import checks
from gpumlp.errors import is_one_of

COSTS = ("cost", "val_cost")
UNRANKED = ("epoch", "lr", "seconds")  # columns of which neither direction is better


@dataclass
class Monitor:
    """The best value of a column so far, and the number of epochs since then.

    Args:
        mode, min_delta: what an improvement on `best` is, as in `gpumlp.EarlyStopping`.
        scikit_learn: apply scikit-learn's rule instead: a change by exactly `min_delta` is an
            improvement, and `best` follows smaller changes too.

    Attributes:
        best: the best value; None before the first.
        waited: the epochs since the last improvement.
    """

    column: str
    mode: str = "auto"
    min_delta: float = 0.0
    scikit_learn: bool = False
    best: float | None = field(default=None, init=False)
    waited: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.column, str) or self.column in UNRANKED:
            raise ValueError(
                "monitor must be a column of costs or metrics, such as "
                f'"val_cost" or "val_metric", got {self.column!r}'
            )
        if not is_one_of(self.mode, ("auto", "min", "max")):
            raise ValueError(f'mode must be "auto", "min" or "max", got {self.mode!r}')
        self.min_delta = checks.positive_number(self.min_delta, "min_delta", least=0)

    def check(self, user: str, columns: Iterable[str]) -> None:
        """Raise ValueError unless the column is one of `columns`; `user` is named in the error."""
        known = [name for name in columns if name not in UNRANKED]
        if self.column in known:
            return
        no_validation = self.column.startswith("val_") and "val_cost" not in known
        data = "pass validation=(x_val, y_val), or " if no_validation else ""
        raise ValueError(
            f"{user} watches {self.column!r}, which this fit does not compute; "
            f"{data}monitor one of: {', '.join(known)}"
        )

    @property
    def unranked(self) -> bool:
        """Whether there were epochs, but each value was NaN or infinite, so that none is best."""
        return self.waited > 0 and self._score(self.best) == -math.inf

    def check_ranked(self, user: str, advice: str) -> None:
        """Raise ValueError if `unranked`; `user` and `advice` are named in the error."""
        if self.unranked:
            raise ValueError(
                f"{user} watches {self.column!r}, which was NaN or infinite in every epoch, so no "
                f"epoch is the best; {advice}"
            )

    def reset(self) -> None:
        """Forget all values."""
        self.best, self.waited = None, 0

    def improves(self, value: float) -> bool:
        """Return whether `value` is an improvement. The first value is; NaN never is."""
        score, least = self._score(value), self._score(self.best) + self.min_delta
        return score > least or (self.scikit_learn and score == least)

    def update(self, value: float) -> bool:
        """Note the value of an epoch. Return whether it is an improvement."""
        improved = self.improves(value)
        self.waited = 0 if improved else self.waited + 1
        if improved or (self.scikit_learn and self._score(value) > self._score(self.best)):
            self.best = value
        return improved

    def _score(self, value: float | None) -> float:
        """Return `value` with its sign such that larger is better."""
        if value is None:
            return -math.inf
        smaller_is_better = self.mode == "min" or (self.mode == "auto" and self.column in COSTS)
        return -value if smaller_is_better else value
