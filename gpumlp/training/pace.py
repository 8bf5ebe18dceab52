"""How many steps a fit does in one call."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gpumlp.backends import Backend
from gpumlp.training.callbacks import ProgressBar
from gpumlp.training.checkpoint import Checkpoint
from gpumlp.training.events import Callback

UNINTERRUPTED = 0.05  # seconds of steps after which signals are answered


class Pace:
    """The steps of a call take about `UNINTERRUPTED` seconds.

    They are single steps unless the backend gains by more and no callback watches each step.

    Only after the last step of a call may a checkpoint be due.

    Attributes:
        watched: whether a callback has a hook of its own that is called after each step.
    """

    def __init__(
        self, backend: Backend, watched: bool, checkpoint: Checkpoint | None
    ) -> None:  # fmt: skip
        self.watched = watched
        self._single = not backend.compiles or self.watched
        self._every = None if checkpoint is None else checkpoint.every
        self._fitting = 1.0  # the steps that fit into the time, as far as known

    @contextmanager
    def steps(self, alike: int, done: int) -> Iterator[int]:
        """Give the number of steps of a call, which is timed.

        alike: the most steps that one program does; done: the completed steps of the fit.
        """
        due = alike if self._every is None else self._every - done % self._every
        count = 1 if self._single else max(1, min(int(self._fitting), alike, due))
        began = time.perf_counter()
        yield count
        seconds = max(time.perf_counter() - began, 1e-9)
        self._fitting = min(2 * self._fitting, count * UNINTERRUPTED / seconds)


def watched(callbacks: Sequence[Callback]) -> bool:
    """Whether a callback has a hook of its own that is called after each single step."""
    return any(
        getattr(each.on_step_end, "__func__", None) is not Callback.on_step_end
        and not isinstance(each, ProgressBar)
        for each in callbacks
    )
