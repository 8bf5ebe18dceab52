"""Learning-rate schedules: the factor of the base learning rate at step t = 0 … steps − 1."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from gpumlp.functions.entry import Entry, table


@dataclass(frozen=True, repr=False)
class Schedule(Entry):
    """One schedule.

    Attributes:
        factor: ``factor(t, steps, **params)``, of the base learning rate at step t of `steps`; it
            depends on nothing else, so a resumed run continues in the same way.
    """

    factor: Callable[..., float]

    def lr(self, base: float, t: int, steps: int) -> float:
        """Return the learning rate at step t (from 0) of `steps`; ValueError: it is none."""
        factor = self.factor(t, steps, **self.params)
        if not -1e-9 <= factor < math.inf:  # the end of a decay may be below 0 by rounding
            raise ValueError(
                f"factor of {self.what} must be finite and 0 or more, got {factor} at step {t} of "
                f"{steps}"
            )
        return base * max(factor, 0.0)


def _cosine(progress: float, start: float, end: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def _warmup_cosine(t: int, steps: int, warmup: float, final: float) -> float:
    rising = warmup * steps
    if t < rising:
        return (t + 1) / (rising + 1)
    return _cosine((t - rising) / max(steps - rising, 1), 1.0, final)


def _one_cycle(t: int, steps: int, rise: float, start: float, final: float) -> float:
    peak = max(rise * (steps - 1), 1e-12)
    if t <= peak:
        return _cosine(t / peak, start, 1.0)
    return _cosine((t - peak) / max(steps - 1 - peak, 1e-12), 1.0, final)


def _step(t: int, steps: int, drops: float, gamma: float) -> float:
    return gamma ** math.floor(t * (drops + 1) / steps)


def _inverse_sqrt(t: int, steps: int, warmup: float) -> float:
    rising = max(warmup * steps, 1.0)
    return min((t + 1) / rising, math.sqrt(rising / (t + 1)))


constant = Schedule("constant", factor=lambda t, steps: 1.0)
warmup_cosine = Schedule(
    "warmup_cosine",  # linear rise over the fraction `warmup` of the steps, then Loshchilov &
    factor=_warmup_cosine,  # Hutter (2017) without restarts, down to the factor `final`
    params={"warmup": 0.05, "final": 0.0},
    limits={"warmup": "[0, 1)", "final": "[0, 1]"},
)
one_cycle = Schedule(
    "one_cycle",  # Smith & Topin (2018), with cosines: to 1 over the fraction `rise`, then to final
    factor=_one_cycle,
    params={"rise": 0.3, "start": 0.04, "final": 4e-6},
    limits={"rise": "(0, 1)", "start": "(0, 1]", "final": "[0, 1]"},
)
step = Schedule(
    "step",  # times gamma at each of `drops` evenly spaced steps
    factor=_step,
    params={"drops": 3.0, "gamma": 0.1},
    limits={"drops": "[0, inf)", "gamma": "(0, 1]"},
)
inverse_sqrt = Schedule(
    "inverse_sqrt",  # Vaswani et al. (2017): linear rise, then 1/√t
    factor=_inverse_sqrt,
    params={"warmup": 0.05},
    limits={"warmup": "[0, 1)"},
)

SCHEDULES = table(constant, warmup_cosine, one_cycle, step, inverse_sqrt)
