"""What callbacks keep in a checkpoint, by their classes' names."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from gpumlp.errors import CheckpointError
from gpumlp.training.callbacks import Callback


def _named(callbacks: Iterable[Callback]) -> dict[str, Callback]:
    """The callbacks by class, with a number where there are several: "CSVLogger", "CSVLogger 2"."""
    seen: Counter[str] = Counter()
    named = {}
    for callback in callbacks:
        name = type(callback).__qualname__
        seen[name] += 1
        named[name if seen[name] == 1 else f"{name} {seen[name]}"] = callback
    return named


def states(callbacks: Iterable[Callback]) -> dict[str, Any]:
    """What each callback keeps, by its name; those that keep nothing are left out.

    Raises:
        TypeError: JSON cannot hold it.
    """
    kept = {}
    for name, callback in _named(callbacks).items():
        state = dict(callback.state())
        try:
            json.dumps(state)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{name}.state() gave what JSON cannot hold ({error}); "
                "keep numbers, strings, lists and dicts"
            ) from error
        if state:
            kept[name] = state
    return kept


def restore_all(
    callbacks: Iterable[Callback], kept: Mapping[str, Any], path: os.PathLike[str]
) -> None:
    """Give each state back; a callback that has none there starts anew.

    Raises:
        CheckpointError: a state has no callback here; none was restored.
    """
    named = _named(callbacks)
    for name in kept:
        if name not in named:
            raise CheckpointError(
                f"{path} is of a run with the callback {name}, which this one lacks; "
                "pass what that run had, or resume=False to start anew"
            )
    for name, state in kept.items():
        named[name].restore(state)
