"""How many steps a fit does in one call."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gpumlp.training.callbacks import ProgressBar
from gpumlp.training.checkpoint import Checkpoint
from gpumlp.training.events import Callback

UNINTERRUPTED = 0.05  # seconds of steps after which signals are answered


class Pace:
    """The steps of a call take about `UNINTERRUPTED` seconds.

    They are single steps unless one call gains by more and no callback watches each step.

    Only after the last step of a call may a checkpoint be due.

    Args:
        several: whether a call gains by more steps.

    Attributes:
        watched: whether a callback has a hook of its own that is called after each step.
    """

    def __init__(self, several: bool, watched: bool, checkpoint: Checkpoint | None) -> None:
        self.watched = watched
        self._single = not several or watched
        self._every = None if checkpoint is None else checkpoint.every
        self._fitting = 1.0  # the steps that fit into the time, as far as known
        self._began = 0.0

    def next(self, alike: int, done: int) -> int:
        """The number of steps of a call that begins now.

        alike: the most steps that one program does; done: the completed steps of the fit.
        """
        due = alike if self._every is None else self._every - done % self._every
        self._began = time.perf_counter()
        return 1 if self._single else max(1, min(int(self._fitting), alike, due))

    def note(self, steps: int) -> None:
        """The call has ended, with so many steps."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        self._fitting = min(2 * self._fitting, steps * UNINTERRUPTED / seconds)


def follows_steps(callback: Callback) -> bool:
    """Whether it has a hook of its own that is called after steps."""
    return getattr(callback.on_step_end, "__func__", None) is not Callback.on_step_end


def watched(callbacks: Sequence[Callback]) -> bool:
    """Whether one of these, which follow steps, must be called after each single one."""
    return any(not isinstance(each, ProgressBar) for each in callbacks)
