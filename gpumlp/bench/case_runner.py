"""One case: this library's process, and beside it one competitor's after another."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from gpumlp.bench.cases import Case
from gpumlp.bench.correct import Change, Different, Unseen, check
from gpumlp.bench.peers import OURS
from gpumlp.bench.processes import Ended, Worker, scratch
from gpumlp.bench.results import TIMED, Result

if TYPE_CHECKING:
    from gpumlp.bench.run import Clock, Settings

WARM_SECONDS = {"numpy": 0.3, "cupy": 1.0}  # a GPU's clocks settle only under load
BURST_SECONDS = {"numpy": 0.1, "cupy": 0.05}  # a turn's, so that a clock's grain does not count
# before a turn: OpenBLAS's threads of the process before spin for 2²⁶ cycles, some 25 ms
REST_SECONDS = {"numpy": 0.05, "cupy": 0.0}


class CaseRunner:
    """One case's workers: this library's lives on, so that each peer's rounds alternate with it."""

    def __init__(self, case: Case, settings: Settings, clock: Clock) -> None:
        self.case, self._settings, self._clock = case, settings, clock
        self._open = ExitStack()
        self._ours: tuple[Worker, float] | None = None
        self._exact: dict[str, Change] | None = None

    def __enter__(self) -> Self:
        self._folder = Path(self._open.enter_context(scratch()))
        (self._folder / "workers").mkdir()
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def measure(self, competitor: str) -> Result:
        """Start it, check it, time it; whatever goes wrong is in the result."""
        backend = self._settings.backend
        result = Result(self.case, backend, competitor, TIMED)
        beside = ""
        try:
            if competitor != OURS and self._ours is None:
                beside = "gpumlp, which it is timed beside: "
                self._ours = self._ready(Result(self.case, backend, OURS, TIMED))[:2]
                beside = ""
            return self._measure(result)
        except Ended as end:
            return replace(result, status=end.status, reason=f"{beside}{end}")
        except Unseen as reason:
            return replace(result, status="left out", reason=f"{beside}{reason}")
        except Different as finding:
            return replace(result, status="refused", reason=f"{beside}{finding}")

    def _measure(self, result: Result) -> Result:
        cold = {}
        if self._settings.cold:  # the caches that it fills make the next start a warm one
            with self._worker(result.competitor) as worker:
                started = worker.started()
            if started["trains"]:
                cold["cold"] = float(started["first_step"])
        worker, each, result = self._ready(result)
        result = replace(result, first_step=cold | result.first_step)
        if result.competitor == OURS:
            self._ours = worker, each
            return self._turns(result, [(worker, each)])
        assert self._ours is not None
        with worker:
            return self._turns(result, [self._ours, (worker, each)])

    def _ready(self, result: Result) -> tuple[Worker, float, Result]:
        """A worker that is checked and warm, the seconds of its step, and what its start took."""
        with ExitStack() as failing:
            worker = failing.enter_context(self._worker(result.competitor))
            started = worker.started()
            known = ("peak_bytes", "peak_of", "machine", "notes")
            result = replace(result, **{name: started[name] for name in known})
            if started["trains"]:
                error = check(_load(worker.changes), self._reference(), self.case)
                start = "warm" if self._settings.cold else "cold"
                first_step = {start: float(started["first_step"])}
                result = replace(result, error=error, first_step=first_step)
            each = worker.warm(WARM_SECONDS[result.backend])
            self._open.push(failing.pop_all())
        return worker, each, result

    def _reference(self) -> dict[str, Change]:
        """The exact change of θ: this library's in float64; float32 where that does not fit."""
        if self._exact is None:
            try:
                self._exact = self._changes("float64")
            except Ended as end:
                if end.status != "failed":
                    raise
                self._exact = self._changes("float32")
        return self._exact

    def _changes(self, precision: str) -> dict[str, Change]:
        with self._worker(OURS, replace(self.case, precision=precision)) as worker:
            worker.started()
            return _load(worker.changes)

    def _worker(self, competitor: str, case: Case | None = None) -> Worker:
        caches = self._folder / f"caches-{competitor.replace(':', '-')}"
        caches.mkdir(exist_ok=True)
        return Worker(
            competitor, case or self.case, self._settings.backend, self._folder / "workers",
            caches, self._clock.end,
        )  # fmt: skip

    def _turns(self, result: Result, workers: Sequence[tuple[Worker, float]]) -> Result:
        """The rounds: every worker a turn, first and second in turns too."""
        enough = BURST_SECONDS[result.backend]
        plans = [(w, max(1, math.ceil(enough / each)), each < enough) for w, each in workers]
        rounds: list[list[dict[str, Any]]] = [[] for _ in workers]
        for i in range(self._settings.rounds):
            order = range(len(plans)) if i % 2 == 0 else reversed(range(len(plans)))
            for j in order:
                worker, burst, lead = plans[j]
                time.sleep(REST_SECONDS[result.backend])
                rounds[j].append(worker.turn(burst, lead))
        seconds = [[turn["seconds"] for turn in turns] for turns in rounds]
        peak = rounds[-1][-1]["peak_bytes"]
        return replace(
            result, seconds=seconds[-1], ours=seconds[0] if len(workers) > 1 else [],
            peak_bytes=result.peak_bytes if peak is None else peak,
        )  # fmt: skip


def _load(path: Path) -> dict[str, Change]:
    with np.load(path, allow_pickle=False) as arrays:
        names = {name.rpartition("/")[0] for name in arrays.files}
        return {
            name: (arrays[f"{name}/0"], float(arrays[f"{name}/1"]), float(arrays[f"{name}/2"]))
            for name in sorted(names)
        }
