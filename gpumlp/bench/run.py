"""All competitors on all cases, one after another. Each pair is a part with its own result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gpumlp.bench.case_runner import CaseRunner, Clock, Settings
from gpumlp.bench.cases import Case
from gpumlp.bench.peers import OURS
from gpumlp.bench.results import FINAL, TIMED, Result, Results
from gpumlp.bench.timing import gpu, machine

Report = Callable[[str], None]


def run(cases: Sequence[Case], settings: Settings, results: Results, report: Report) -> bool:
    """Measure every part that has no result yet; True if all parts have one at the end.

    Each result is in `results` and in its folder as soon as it exists, so KeyboardInterrupt loses
    no result. `report` gets lines about the progress.

    Raises:
        ValueError: earlier results come from another machine.
    """
    clock = Clock(settings.minutes, results if settings.resume else None)
    here = {"processor": machine()["processor"]}
    if settings.backend == "cupy":
        here["gpu"] = gpu()
    for case in cases:
        with CaseRunner(case, settings, clock) as runner:
            for competitor in (OURS, *(peer for peer in settings.peers if peer != OURS)):
                result = results.of(case, settings.backend, competitor)
                if settings.resume and result is not None and result.status in FINAL:
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


def _check_machine(result: Result, here: dict[str, Any]) -> None:
    """Raise if an earlier result was measured on another machine."""
    for part in ("processor", "gpu"):
        if result.machine.get(part) != here.get(part):
            raise ValueError(
                f"--out holds results of another machine ({part} {result.machine.get(part)}; this "
                f"machine has {here.get(part)}); choose another folder"
            )
