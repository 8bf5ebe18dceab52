"""θ̄, an exponential moving average of θ, and the exchange of θ and θ̄ in the network."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.io.types import Array
from gpumlp.network import MLP

SPARE = 1 << 20  # entries that are exchanged at a time


class Average:
    """θ̄ ← d θ̄ + (1 − d) θ after each step t of a trainer, with d = min(ema, (t − 1) / (t + 8)).

    After the first step θ̄ is θ.  While steps are few, θ̄ averages over the last ninth of them, so
    that it soon forgets the initial weights.  A step that float16 skips does not change θ̄.

    Attributes:
        shown: whether the network holds θ̄ and this object θ, or the other way round.
    """

    def __init__(self, net: MLP, memory: Array) -> None:
        """memory: (p,), for θ̄."""
        backend, theta = net.backend, net.theta.flat
        self.shown = False
        self._other = backend.asarray(theta, out=memory)
        self._spare = backend.empty((min(SPARE, len(theta)),))

    def start(self, net: MLP) -> None:
        """θ̄ ← θ, before the first step."""
        net.backend.asarray(net.theta.flat, out=self._other)

    def show(self, net: MLP, shown: bool) -> None:
        """Put θ̄ into the network if `shown`, else θ."""
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
        """The arrays that are allocated here: θ̄ (or θ), and the space for the exchange."""
        return self._other, self._spare

    def both(self, net: MLP) -> tuple[Array, Array]:
        """The flat θ̄ and the flat θ, whichever of them the network holds."""
        found = net.theta.flat, self._other
        return found if self.shown else found[::-1]


def checked_ema(value: Any) -> float | None:
    """The argument `ema` of `Trainer`, checked."""
    number = isinstance(value, (int, float, np.floating)) and not isinstance(value, bool)
    if value is not None and not (number and 0 < value < 1):
        raise ValueError(f"ema must be a number between 0 and 1, as 0.999, or None; got {value!r}")
    return None if value is None else float(value)
