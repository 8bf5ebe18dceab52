"""What the learning rates of an epoch's steps depend on, and how a checkpoint holds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from gpumlp.functions import SCHEDULES, Schedule
from gpumlp.functions.entry import lookup
from gpumlp.functions.schedules import constant
from gpumlp.training.fields import Fields
from gpumlp.training.stepping import Stepping


class Rates(NamedTuple):
    """The base learning rate, its factor and its schedule; a callback may assign each of them."""

    lr: float
    lr_factor: float
    schedule: Schedule

    @classmethod
    def of(cls, trainer: Stepping) -> Self:
        """Those of the trainer now."""
        return cls(*(getattr(trainer, name) for name in cls._fields))

    def of_steps(self, steps: range, total: int) -> list[float]:
        """The learning rates of some steps (from 0) of a fit of `total` steps."""
        if self.schedule is constant:
            return [self.lr_factor * self.lr] * len(steps)
        return [self.lr_factor * self.schedule.lr(self.lr, t, total) for t in steps]

    def position(self, prefix: str = "") -> dict[str, Any]:
        """The fields of a checkpoint's "position"."""
        values = {**self._asdict(), "schedule": self.schedule.spec()}
        return {f"{prefix}{name}": value for name, value in values.items()}

    def read(self, position: Mapping[str, Any], path: Any, prefix: str = "") -> Self:
        """What `position` returned.  Values that an older file lacks are those of this object.

        CheckpointError: lr is no learning rate, or the schedule is neither in `gpumlp.SCHEDULES`
        nor that of this object.
        """
        fields = Fields({**self.position(prefix), **position}, path, "position")
        lr, factor, schedule = (f"{prefix}{name}" for name in self._fields)
        fields.number(lr)
        fields.get(lr, "more than 0", lambda value: value > 0)
        fields.fields(schedule)
        known = "the trainer's, or one of gpumlp.SCHEDULES"
        spec = fields.get(schedule, known, lambda spec: self._schedule(spec) is not None)
        return type(self)(fields.get(lr), fields.get(factor), self._schedule(spec))

    def _schedule(self, spec: dict[str, Any]) -> Any:
        """The schedule with this `spec()`; None if it is unknown."""
        if spec == self.schedule.spec():
            return self.schedule
        try:
            return lookup(SCHEDULES, "schedule", spec)
        except (ValueError, TypeError):
            return None
