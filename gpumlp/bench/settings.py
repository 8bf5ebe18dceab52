"""How the cases are timed, and the time that is left for it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from gpumlp.bench.results import Results


@dataclass(frozen=True)
class Settings:
    """How the cases are timed.

    Attributes:
        backend: "numpy" or "cupy".
        peers: names in the order of the table. This library always comes first, unnamed.
        rounds: how often each competitor is timed.
        cold: also time a first step with empty caches, when nothing is compiled.
        resume: keep the results that exist.
        minutes: start no competitor that might end later than this, and stop one that does.
    """

    backend: str
    peers: Sequence[str]
    rounds: int = 15
    cold: bool = True
    resume: bool = False
    minutes: float | None = None


class Clock:
    """The time that is left, and the longest time that each competitor has needed so far."""

    def __init__(self, minutes: float | None, earlier: Results | None) -> None:
        self._end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._longest: dict[str, float] = {}
        for result in earlier.all() if earlier else ():
            self.record(result.competitor, result.part_seconds)

    @property
    def end(self) -> float:
        """`time.monotonic()` at the end; infinite without a limit."""
        return self._end

    def record(self, competitor: str, seconds: float) -> None:
        """Note how long a competitor took on a case."""
        self._longest[competitor] = max(seconds, self._longest.get(competitor, 0.0))

    def allows(self, competitor: str) -> bool:
        """Whether the competitor would end in time if it took as long as it ever did.

        For a competitor without an earlier time the longest time of all others counts.
        """
        longest = max(self._longest.values(), default=0.0)
        return time.monotonic() + self._longest.get(competitor, longest) < self._end
