"""θ̄, an exponential moving average of θ, and which of the two the network has."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.io.types import Array
from gpumlp.network import MLP

SPARE = 1 << 20  # entries that change places at a time


class Average:
    """θ̄ ← d θ̄ + (1 − d) θ after each step t of a trainer, with d = min(ema, (t − 1) / (t + 8)).

    So θ̄ is θ after the first step, and while steps are few an average over the last ninth of them:
    the weights that training started from are soon forgotten.  A step that float16 skips leaves θ̄
    as it is.

    Attributes:
        shown: whether the network has θ̄ and this the training's own θ, or the other way round.
    """

    def __init__(self, net: MLP, ema: float) -> None:
        backend, theta = net.backend, net.theta.flat
        self.shown = False
        self._ema, self._other = ema, backend.asarray(theta)
        self._spare = backend.empty((min(SPARE, len(theta)),))

    def step(self, net: MLP, control: Array) -> None:
        """θ̄ after the step whose control this is; θ is in the network."""
        net.backend.average(net.theta.flat, self._other, self._ema, control)

    def start(self, net: MLP) -> None:
        """θ̄ ← θ: no step has been done."""
        net.backend.asarray(net.theta.flat, out=self._other)

    def show(self, net: MLP, shown: bool) -> None:
        """The network gets θ̄ where `shown`, else θ."""
        if shown == self.shown:
            return
        backend, theta = net.backend, net.theta.flat
        for start in range(0, len(theta), SPARE):
            ours, theirs = (a[start : start + SPARE] for a in (self._other, theta))
            spare = backend.asarray(ours, out=self._spare[: len(ours)])
            backend.asarray(theirs, out=ours)
            backend.asarray(spare, out=theirs)
        self.shown = shown
        net.round()

    @property
    def arrays(self) -> tuple[Array, Array]:
        """What it holds."""
        return self._other, self._spare

    def both(self, net: MLP) -> tuple[Array, Array]:
        """The flat θ̄ and the flat θ, wherever they are."""
        found = net.theta.flat, self._other
        return found if self.shown else found[::-1]


def checked_ema(value: Any) -> float | None:
    """`Trainer`'s ema, checked.

    Raises:
        ValueError: it is no number between 0 and 1.
    """
    number = isinstance(value, (int, float, np.floating)) and not isinstance(value, bool)
    if value is not None and not (number and 0 < value < 1):
        raise ValueError(f"ema must be a number between 0 and 1, as 0.999, or None; got {value!r}")
    return None if value is None else float(value)
