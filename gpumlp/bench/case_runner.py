"""All competitors on all cases, one after another. Each pair is a part with its own result.

The process of this library stays open during a case. Its rounds alternate with those of each
competitor.
"""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gpumlp.bench.cases import Case
from gpumlp.bench.correct import Change, check
from gpumlp.bench.peers import OURS, UNTUNED, NotTimed
from gpumlp.bench.results import TIMED, Result, Results
from gpumlp.bench.timing import gpu, machine
from gpumlp.bench.worker import Burst, Worker, load
from gpumlp.io.threads import cores

WARM_SECONDS = {"host": 0.3, "GPU": 1.0}  # the clocks of a GPU settle only under load
BURST_SECONDS = {"host": 0.1, "GPU": 0.05}  # long enough for the resolution of the clock
# Pause before a burst: the OpenBLAS threads of the process before spin for 2²⁶ cycles, some 25 ms.
REST_SECONDS = {"host": 0.05, "GPU": 0.0}

Report = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How the cases are timed.

    Attributes:
        backend: "numpy", "cpu" or "cupy".
        peers: names in the order of the table. This library always comes first, unnamed.
        rounds: how often each competitor is timed.
        cold: also time a first step with empty caches, when nothing is compiled.
        profile: also time each operation of this library's step alone.
        minutes: start no competitor that might end later than this, and stop one that does.
    """

    backend: str
    peers: Sequence[str]
    rounds: int = 15
    cold: bool = True
    profile: bool = False
    minutes: float | None = None


def run(cases: Sequence[Case], settings: Settings, results: Results, report: Report) -> bool:
    """Measure every part that has no result yet; True if all parts have one at the end.

    Each result is in `results` and in its folder as soon as it exists, so KeyboardInterrupt loses
    no result. `report` gets lines about the progress.
    """
    clock = Clock(settings.minutes, results.values())
    here = {"processor": machine()["processor"]}
    if settings.backend == "cupy":
        here["gpu"] = gpu()
    for case in cases:
        with ExitStack() as stack:
            runner = CaseRunner(case, settings, clock, stack)
            for competitor in (OURS, *(peer for peer in settings.peers if peer != OURS)):
                result = results.get((case.slug, settings.backend, competitor))
                if result is not None and result.status != "missing":  # it may be installed now
                    _check_machine(result, here)
                else:
                    result = _measure(runner, competitor, clock, report)
                    if result is None:
                        return False
                    results.add(replace(result, machine={**result.machine, **here}))
                if competitor == OURS and result.status != TIMED:
                    report(f"{case}: the peers are not timed, because {OURS} was not timed")
                    break
    return True


def _check_machine(result: Result, here: dict[str, Any]) -> None:
    """Raise if an earlier result was measured on another machine."""
    for part in ("processor", "gpu"):
        if result.machine.get(part) != here.get(part):
            raise ValueError(
                f"--out holds results of another machine ({part} {result.machine.get(part)}; this "
                f"machine has {here.get(part)}); choose another folder"
            )


def _measure(runner: CaseRunner, competitor: str, clock: Clock, report: Report) -> Result | None:
    """The result of a competitor, or None if the time is too short for it."""
    if not clock.allows(competitor):
        report(f"stopped before {competitor} on {runner.case}: the time may be too short for it")
        return None
    report(f"{runner.case}: {competitor} …")
    begun = time.monotonic()
    result = runner.measure(competitor)
    if result.status == "late":
        report(f"stopped in {competitor} on {runner.case}: {result.reason}")
        return None
    if result.status != TIMED:
        report(f"  {result.status}: {result.reason}")
    seconds = time.monotonic() - begun
    clock.record(competitor, seconds)
    return replace(result, part_seconds=seconds)


class Clock:
    """The time that is left, and the longest time that each competitor has needed so far."""

    def __init__(self, minutes: float | None, earlier: Iterable[Result] = ()) -> None:
        self.end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._longest: dict[str, float] = {}
        for result in earlier:
            self.record(result.competitor, result.part_seconds)

    def record(self, competitor: str, seconds: float) -> None:
        """Note how long a competitor took on a case."""
        self._longest[competitor] = max(seconds, self._longest.get(competitor, 0.0))

    def allows(self, competitor: str) -> bool:
        """Whether the competitor would end in time if it took as long as it ever did."""
        longest = max(self._longest.values(), default=0.0)  # for one without an earlier time
        return time.monotonic() + self._longest.get(competitor, longest) < self.end


class CaseRunner:
    """Measures the competitors of one case. Its processes and files end with the stack."""

    def __init__(self, case: Case, settings: Settings, clock: Clock, stack: ExitStack) -> None:
        self.case, self._settings, self._clock, self._open = case, settings, clock, stack
        self._ours: Worker | None = None
        self._logs = itertools.count()
        # a library may still be writing to its cache when the folder is removed
        folder = tempfile.TemporaryDirectory(prefix="gpumlp-bench-", ignore_cleanup_errors=True)
        self._folder = Path(stack.enter_context(folder))

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
                result = self._rounds(result, [worker])
                if not self._settings.profile:
                    return result
                return replace(result, notes=result.notes | {"profile": self._profile(result)})
            assert self._ours is not None
            with closing(worker):
                return self._rounds(result, [self._ours, worker])
        except NotTimed as reason:
            return replace(result, status=reason.status, reason=f"{culprit}{reason}")

    def _first_step(self, result: Result) -> dict[str, float]:
        """The first step with empty caches. The caches that it fills make the next start warm."""
        with closing(self._worker(result)) as worker:
            return worker.started()[0].first_step

    def _start(self, result: Result) -> tuple[Worker, Result]:
        """A worker that is checked and warm, and its result so far."""
        with ExitStack() as on_failure:
            worker = on_failure.enter_context(closing(self._worker(result)))
            result, changes = worker.started()
            if changes:
                products = result.notes.get("products", self.case.precision)
                case = replace(self.case, precision=products)
                result = replace(result, error=check(changes, self._exact, case))
            where = _where(result)
            worker.warm_up(WARM_SECONDS[where], BURST_SECONDS[where])
            self._open.push(on_failure.pop_all())
        return worker, result

    @cached_property
    def _exact(self) -> dict[str, Change]:
        """The exact change of θ: that of this library in float64, or float32 if that fails."""
        try:
            return self._changes("float64")
        except NotTimed as reason:
            if reason.status != "failed":  # a GPU may not have enough memory for float64
                raise
            return self._changes("float32")

    def _changes(self, precision: str) -> dict[str, Change]:
        case = replace(self.case, precision=precision)
        with closing(self._worker(Result(case, self._settings.backend, UNTUNED, TIMED))) as worker:
            return worker.started()[1]

    def _worker(self, result: Result) -> Worker:
        caches = self._folder / f"caches-{result.competitor.replace(':', '-')}"
        log = self._folder / f"{next(self._logs)}.log"
        return Worker(result, log, caches, self._clock.end)

    def _profile(self, result: Result) -> dict[str, Any]:
        """The profile of this library's step, in a process of its own, since θ is lost."""
        with closing(self._worker(result)) as worker:
            worker.started()
            return worker.profile()

    def _rounds(self, result: Result, workers: list[Worker]) -> Result:
        """Time all workers in every round. The order changes from one round to the next."""
        bursts: list[list[Burst]] = [[] for _ in workers]
        with load(cores() if self.case.busy else 0):
            for i in range(self._settings.rounds):
                order = range(len(workers)) if i % 2 == 0 else reversed(range(len(workers)))
                for j in order:
                    time.sleep(REST_SECONDS[_where(result)])
                    bursts[j].append(workers[j].burst())
        seconds = [[each for each, _ in of_one] for of_one in bursts]
        _, peak = bursts[-1][-1]
        return replace(
            result, seconds=seconds[-1], ours=seconds[0] if len(workers) > 1 else [],
            peak_bytes=result.peak_bytes if peak is None else peak,
        )  # fmt: skip


def _where(result: Result) -> str:
    """A key of the seconds above."""
    return "GPU" if result.backend == "cupy" else "host"
