"""What callbacks keep in a checkpoint, by their classes' names."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from gpumlp.training.events import Callback


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
    """Give each state back, with a warning where its callback is not there.

    A callback that has none there starts anew.
    """
    named = _named(callbacks)
    for name, state in kept.items():
        if name in named:
            named[name].restore(state)
        else:
            warnings.warn(
                f"{path} is of a run with the callback {name}, without which this one goes on; "
                "pass it to go on as that run would have",
                RuntimeWarning,
                stacklevel=2,
            )
