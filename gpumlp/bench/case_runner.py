"""One case: the process of this library, and one process of another competitor at a time."""

from __future__ import annotations

import math
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from gpumlp.bench.cases import Case
from gpumlp.bench.correct import Change, check
from gpumlp.bench.peers import OURS, NotTimed
from gpumlp.bench.results import TIMED, Result
from gpumlp.bench.settings import Clock, Settings
from gpumlp.bench.worker import Burst, Ended, Worker

WARM_SECONDS = {"numpy": 0.3, "cupy": 1.0}  # the clocks of a GPU settle only under load
BURST_SECONDS = {"numpy": 0.1, "cupy": 0.05}  # long enough for the resolution of the clock
# Pause before a burst: the OpenBLAS threads of the process before spin for 2²⁶ cycles, some 25 ms.
REST_SECONDS = {"numpy": 0.05, "cupy": 0.0}


@dataclass(frozen=True)
class Ready:
    """A competitor that is checked and warm, and the number of steps in its bursts.

    lead: whether an untimed step comes before each burst.
    """

    worker: Worker
    steps: int
    lead: bool

    def burst(self) -> Burst:
        """Time one burst."""
        return self.worker.burst(self.steps, self.lead)


class CaseRunner:
    """Measures the competitors of one case, one after another.

    The process of this library stays open. The rounds of each competitor alternate with its rounds.
    """

    def __init__(self, case: Case, settings: Settings, clock: Clock) -> None:
        self.case, self._settings, self._clock = case, settings, clock
        self._open = ExitStack()
        self._ours: Ready | None = None
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
                self._start(replace(result, competitor=OURS))
                culprit = ""
            cold = self._cold_start(competitor) if self._settings.cold else {}
            ready, result = self._start(result)
            result = replace(result, first_step=cold | result.first_step)
            if competitor == OURS:
                return self._rounds(result, ready)
            with ready.worker:
                return self._rounds(result, ready)
        except NotTimed as reason:
            return replace(result, status=reason.status, reason=f"{culprit}{reason}")

    def _cold_start(self, competitor: str) -> dict[str, float]:
        """The first step with empty caches. The caches that it fills make the next start warm."""
        with self._worker(competitor) as worker:
            started = worker.started()
        return {} if started.changes is None else {"cold": started.first_step}

    def _start(self, result: Result) -> tuple[Ready, Result]:
        """A checked and warm competitor, and its result so far."""
        with ExitStack() as on_failure:
            worker = on_failure.enter_context(self._worker(result.competitor))
            started = worker.started()
            result = replace(
                result, peak_bytes=started.peak_bytes, peak_of=started.peak_of,
                machine=started.machine, notes=started.notes,
            )  # fmt: skip
            if started.changes is not None:
                error = check(started.changes, self._reference(), self.case)
                start = "warm" if self._settings.cold else "cold"
                result = replace(result, error=error, first_step={start: started.first_step})
            step_seconds = worker.warm_up(WARM_SECONDS[result.backend])
            self._open.push(on_failure.pop_all())
        enough = BURST_SECONDS[result.backend]
        steps = max(1, math.ceil(enough / step_seconds))
        ready = Ready(worker, steps, lead=step_seconds < enough)
        if result.competitor == OURS:
            self._ours = ready
        return ready, result

    def _reference(self) -> dict[str, Change]:
        """The exact change of θ: that of this library in float64, or float32 if that fails."""
        if self._exact is None:
            try:
                self._exact = self._changes("float64")
            except Ended as end:
                if end.status != "failed":  # a GPU may not have enough memory for float64
                    raise
                self._exact = self._changes("float32")
        return self._exact

    def _changes(self, precision: str) -> dict[str, Change]:
        with self._worker(OURS, replace(self.case, precision=precision)) as worker:
            return worker.started().changes or {}

    def _worker(self, competitor: str, case: Case | None = None) -> Worker:
        caches = self._folder / f"caches-{competitor.replace(':', '-')}"
        caches.mkdir(exist_ok=True)
        self._logs += 1
        return Worker(
            competitor, case or self.case, self._settings.backend,
            self._folder / f"{self._logs}.log", caches, self._clock.end,
        )  # fmt: skip

    def _rounds(self, result: Result, ready: Ready) -> Result:
        """Time the competitor, alternating with this library; the first of a round changes too."""
        pair = [ready] if result.competitor == OURS or self._ours is None else [self._ours, ready]
        bursts: list[list[Burst]] = [[] for _ in pair]
        for i in range(self._settings.rounds):
            order = range(len(pair)) if i % 2 == 0 else reversed(range(len(pair)))
            for j in order:
                time.sleep(REST_SECONDS[result.backend])
                bursts[j].append(pair[j].burst())
        seconds = [[burst.seconds for burst in of_one] for of_one in bursts]
        peak = bursts[-1][-1].peak_bytes
        return replace(
            result, seconds=seconds[-1], ours=seconds[0] if len(pair) > 1 else [],
            peak_bytes=result.peak_bytes if peak is None else peak,
        )  # fmt: skip
