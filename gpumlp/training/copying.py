"""Copies and pickles of a trainer: views of θ and the slots are made anew, of the copy's own."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, Self

from gpumlp.io.types import Array
from gpumlp.network import MLP
from gpumlp.training.averaging import Average

MADE = ("slots", "factors", "scaling", "average", "_updating")  # by `allocate`


class Copied(ABC):
    """The part of `Trainer` that copies it.  `copy.copy` shares the network and the state."""

    net: MLP
    slots: Array
    scaling: Array
    average: Average | None

    @abstractmethod
    def allocate(self) -> None:
        """What is named in `MADE`, as before the first step."""

    def __copy__(self) -> Self:
        """Another trainer of the same network, with the same arrays."""
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A trainer that goes on as this one would, of a network of its own."""
        twin = memo[id(self)] = object.__new__(type(self))
        self.net.backend.synchronize()
        vars(twin).update({k: copy.deepcopy(v, memo) for k, v in self._settings().items()})
        twin.allocate()
        twin._take(self._state(), self.average is not None and self.average.shown)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """What pickle keeps: the settings, the network, and the state on the host."""
        backend = self.net.backend
        backend.synchronize()
        shown = self.average is not None and self.average.shown
        return {**self._settings(), "state": [*map(backend.to_host, self._state())], "shown": shown}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The trainer that goes on as that one would, in a backend of the same name."""
        arrays, shown = state.pop("state"), state.pop("shown")
        vars(self).update(state)
        self.allocate()
        self._take(arrays, shown)

    def _settings(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in MADE}

    def _state(self) -> list[Array]:
        """The arrays that a step begins with, beside θ."""
        return [
            self.slots,
            self.scaling,
            *([] if self.average is None else self.average.arrays[:1]),
        ]

    def _take(self, arrays: list[Array], shown: bool) -> None:
        """The state ← arrays of another trainer's."""
        backend = self.net.backend
        for ours, theirs in zip(self._state(), arrays, strict=True):
            backend.asarray(theirs, out=ours)
        backend.synchronize()
        if self.average is not None:
            self.average.shown = shown
