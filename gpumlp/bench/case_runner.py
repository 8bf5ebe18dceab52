"""How a case is timed: this library's process, and one process of a competitor at a time."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from gpumlp.bench.cases import Case
from gpumlp.bench.correct import Change, check
from gpumlp.bench.peers import OURS, NotTimed
from gpumlp.bench.results import TIMED, Result, Results
from gpumlp.bench.worker import Burst, Worker

WARM_SECONDS = {"numpy": 0.3, "cupy": 1.0}  # the clocks of a GPU settle only under load
BURST_SECONDS = {"numpy": 0.1, "cupy": 0.05}  # long enough for the resolution of the clock
# Pause before a burst: the OpenBLAS threads of the process before spin for 2²⁶ cycles, some 25 ms.
REST_SECONDS = {"numpy": 0.05, "cupy": 0.0}


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
        # `time.monotonic()` at the end
        self.end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._longest: dict[str, float] = {}
        for result in earlier.all() if earlier else ():
            self.record(result.competitor, result.part_seconds)

    def record(self, competitor: str, seconds: float) -> None:
        """Note how long a competitor took on a case."""
        self._longest[competitor] = max(seconds, self._longest.get(competitor, 0.0))

    def allows(self, competitor: str) -> bool:
        """Whether the competitor would end in time if it took as long as it ever did.

        For a competitor without an earlier time the longest time of all others counts.
        """
        longest = max(self._longest.values(), default=0.0)
        return time.monotonic() + self._longest.get(competitor, longest) < self.end


class CaseRunner:
    """Measures the competitors of one case, one after another.

    The process of this library stays open. The rounds of each competitor alternate with its rounds.
    """

    def __init__(self, case: Case, settings: Settings, clock: Clock) -> None:
        self.case, self._settings, self._clock = case, settings, clock
        self._open = ExitStack()
        self._ours: Worker | None = None
        self._exact: dict[str, Change] | None = None
        self._logs = 0

    def __enter__(self) -> Self:
        # a library may still be writing to its cache when the folder is removed
        folder = tempfile.TemporaryDirectory(prefix="gpumlp-bench-", ignore_cleanup_errors=True)
        self._folder = Path(self._open.enter_context(folder))
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def measure(self, competitor: str) -> Result:
        """Start a competitor, check it and time it. If this fails, the result says why."""
        result = Result(self.case, self._settings.backend, competitor, TIMED)
        culprit = ""
        try:
            if competitor != OURS and self._ours is None:  # its own result was resumed
                culprit = f"{OURS}, which must run for the comparison: "
                self._ours, _ = self._start(replace(result, competitor=OURS))
                culprit = ""
            cold = self._first_step(result) if self._settings.cold else {}
            worker, result = self._start(result)
            result = replace(result, first_step=cold | result.first_step)
            if competitor == OURS:
                self._ours = worker
                return self._rounds(result, [worker])
            assert self._ours is not None
            with worker:
                return self._rounds(result, [self._ours, worker])
        except NotTimed as reason:
            return replace(result, status=reason.status, reason=f"{culprit}{reason}")

    def _first_step(self, result: Result) -> dict[str, float]:
        """The first step with empty caches. The caches that it fills make the next start warm."""
        with self._worker(result) as worker:
            return worker.started()[0].first_step

    def _start(self, result: Result) -> tuple[Worker, Result]:
        """A worker that is checked and warm, and its result so far."""
        with ExitStack() as on_failure:
            worker = on_failure.enter_context(self._worker(result))
            result, changes = worker.started()
            if changes:
                result = replace(result, error=check(changes, self._reference(), self.case))
            worker.warm_up(WARM_SECONDS[result.backend], BURST_SECONDS[result.backend])
            self._open.push(on_failure.pop_all())
        return worker, result

    def _reference(self) -> dict[str, Change]:
        """The exact change of θ: that of this library in float64, or float32 if that fails."""
        if self._exact is None:
            try:
                self._exact = self._changes("float64")
            except NotTimed as reason:
                if reason.status != "failed":  # a GPU may not have enough memory for float64
                    raise
                self._exact = self._changes("float32")
        return self._exact

    def _changes(self, precision: str) -> dict[str, Change]:
        case = replace(self.case, precision=precision)
        with self._worker(Result(case, self._settings.backend, OURS, TIMED)) as worker:
            return worker.started()[1]

    def _worker(self, result: Result) -> Worker:
        caches = self._folder / f"caches-{result.competitor.replace(':', '-')}"
        self._logs += 1
        return Worker(result, self._folder / f"{self._logs}.log", caches, self._clock.end)

    def _rounds(self, result: Result, workers: list[Worker]) -> Result:
        """Time all workers in every round. The order changes from one round to the next."""
        bursts: list[list[Burst]] = [[] for _ in workers]
        for i in range(self._settings.rounds):
            order = range(len(workers)) if i % 2 == 0 else reversed(range(len(workers)))
            for j in order:
                time.sleep(REST_SECONDS[result.backend])
                bursts[j].append(workers[j].burst())
        seconds = [[each for each, _ in of_one] for of_one in bursts]
        _, peak = bursts[-1][-1]
        return replace(
            result, seconds=seconds[-1], ours=seconds[0] if len(workers) > 1 else [],
            peak_bytes=result.peak_bytes if peak is None else peak,
        )  # fmt: skip
