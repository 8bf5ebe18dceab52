"""The parts of a benchmark, one after another: each a competitor on a case, and a file."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gpumlp.bench.case_runner import CaseRunner
from gpumlp.bench.cases import Case
from gpumlp.bench.peers import OURS
from gpumlp.bench.results import FINAL, TIMED, Result, Results
from gpumlp.bench.timing import gpu, machine

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How the cases are timed.

    Attributes:
        backend: "numpy" or "cupy".
        peers: names, in the table's order; this library itself comes first and is not named.
        rounds: timed turns of each competitor.
        cold: also take the first step with nothing compiled.
        resume: keep the results that are there.
        minutes: start no part that would not end by then, and end one that has not.
    """

    backend: str
    peers: Sequence[str]
    rounds: int = 15
    cold: bool = True
    resume: bool = False
    minutes: float | None = None


def run(cases: Sequence[Case], settings: Settings, results: Results, tell: Tell) -> bool:
    """Measure every part that has no result yet; True if none is left.

    What is done stays in `results` and its folder, also after KeyboardInterrupt.

    Raises:
        ValueError: results to go on from are of another machine.
    """
    clock = Clock(settings.minutes, results if settings.resume else None)
    where = {"processor": machine()["processor"]}
    if settings.backend == "cupy":
        where["gpu"] = gpu()
    for case in cases:
        with CaseRunner(case, settings, clock) as lane:
            for competitor in (OURS, *(peer for peer in settings.peers if peer != OURS)):
                known = results.of(case, settings.backend, competitor)
                if settings.resume and known is not None and known.status in FINAL:
                    _check_machine(known, where)
                else:
                    known = _part(lane, competitor, clock, tell)
                    if known is None:
                        return False
                    results.add(replace(known, machine={**known.machine, **where}))
                if competitor == OURS and known.status != TIMED:
                    tell(f"{case}: no other is timed, since there is nothing to compare it with")
                    break
    return True


def _part(lane: CaseRunner, competitor: str, clock: Clock, tell: Tell) -> Result | None:
    """A part's result, or None where the time would not do, or did not."""
    if not clock.allows(competitor):
        tell(f"stopped before {competitor} on {lane.case}: it may not end in time")
        return None
    tell(f"{lane.case}: {competitor} …")
    begun = time.monotonic()
    result = lane.measure(competitor)
    if result.status == "late":
        tell(f"stopped in {competitor} on {lane.case}: {result.reason}")
        return None
    if result.status != TIMED:
        tell(f"  {result.status}: {result.reason}")
    seconds = time.monotonic() - begun
    clock.took(competitor, seconds)
    return replace(result, part_seconds=seconds)


class Clock:
    """The time that is left, and what parts have taken so far."""

    def __init__(self, minutes: float | None, earlier: Results | None) -> None:
        self._end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._took: dict[str, float] = {}
        for result in earlier.all() if earlier else ():
            self.took(result.competitor, result.part_seconds)

    @property
    def end(self) -> float:
        """`time.monotonic()` at the end; a month away if there is none."""
        return min(self._end, time.monotonic() + 30 * 24 * 3600)

    def took(self, competitor: str, seconds: float) -> None:
        """Remember the longest part of a competitor."""
        self._took[competitor] = max(seconds, self._took.get(competitor, 0.0))

    def allows(self, competitor: str) -> bool:
        """Whether a part as long as this competitor's longest, else as anyone's, would end."""
        longest = max(self._took.values(), default=0.0)
        return time.monotonic() + self._took.get(competitor, longest) < self._end


def _check_machine(known: Result, here: dict[str, Any]) -> None:
    """Raise where a result that is there was measured elsewhere."""
    for part in ("processor", "gpu"):
        if known.machine.get(part) != here.get(part):
            raise ValueError(
                f"--out holds results of another machine ({part} {known.machine.get(part)}, here "
                f"{here.get(part)}); choose another folder"
            )
