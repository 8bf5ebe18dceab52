"""One competitor in a process of its own: ``python -m gpumlp.bench.worker SPECIFICATION``.

The specification is JSON: competitor, case, backend, and the file for the changes of θ.  Answers
are lines of JSON on stdout, which libraries that print cannot reach; orders are lines on stdin:

    {"warm": seconds}             run for so long; answers the seconds of a step
    {"burst": n, "lead": bool}    one turn: n steps, and one before them if lead; seconds a step

First comes, unasked, what the start took.  An answer with "status" is the last one.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from gpumlp.bench.cases import Case
from gpumlp.bench.correct import changes
from gpumlp.bench.peers import Problem, Step, Unsupported, builder
from gpumlp.bench.timing import machine

SKIPPED = 20  # steps that loss scaling may leave out at first, halving its scale each time


def main() -> None:
    """Build the competitor, take its first step, then follow orders until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes to the log

    def answer(**fields: Any) -> None:
        answers.write(json.dumps(fields) + "\n")
        answers.flush()

    specification = json.loads(sys.argv[1])
    try:
        step, started = start(specification)
        answer(**started)
        serve(step, sys.stdin, answer)
    except Unsupported as reason:
        answer(status="left out", reason=str(reason))
    except ImportError as error:
        missing = f"{error.name} is not installed" if error.name else str(error)
        answer(status="missing", reason=missing)
    except Exception as error:  # whatever a peer does wrong is told, and the others go on
        traceback.print_exc()
        line = (str(error).strip().splitlines() or [""])[0]
        answer(status="failed", reason=f"{type(error).__name__}: {line}".rstrip(": "))


def start(specification: dict[str, Any]) -> tuple[Step, dict[str, Any]]:
    """The competitor after its first step, and what that took.

    first_step: seconds from the import of the library to the end of the first step, but for
    drawing θ and the data.
    """
    case = Case.from_json(specification["case"])
    problem = Problem(case, specification["backend"])
    begun = time.perf_counter()
    step = builder(specification["competitor"])(problem)
    step.run()
    step.synchronize()
    seconds = time.perf_counter() - begun - problem.drawing
    if step.trains:
        found = changes(problem, step)
        for _ in range(SKIPPED if case.precision == "float16" else 0):
            if any(norm for _, norm, _ in found.values()):
                break
            step.run()  # loss scaling skips steps until its scale has fallen far enough
            found = changes(problem, step)
        arrays: dict[str, Any] = {
            f"{name}/{i}": part for name, c in found.items() for i, part in enumerate(c)
        }
        np.savez(Path(specification["changes"]), **arrays)
    device_bytes = step.peak_bytes()
    of_device = device_bytes is not None
    return step, {
        "first_step": seconds,
        "trains": step.trains,
        "peak_bytes": device_bytes if of_device else peak_resident(),
        "peak_of": "device memory, by the library's own count" if of_device else "resident memory",
        "notes": step.notes,
        "machine": machine(),
    }


def peak_resident() -> int | None:
    """The most bytes of this process that were resident at once; Linux alone tells."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def serve(step: Step, orders: TextIO, answer: Any) -> None:
    """Follow orders until there are no more."""
    for line in orders:
        order = json.loads(line)
        if "warm" in order:
            answer(seconds=warm(step, order["warm"]))
        else:
            answer(seconds=turn(step, order["burst"], order["lead"]), peak_bytes=step.peak_bytes())


def warm(step: Step, seconds: float) -> float:
    """Run for so long, in bursts that double; the seconds of a step in the last."""
    until, burst = time.perf_counter() + seconds, 1
    while True:
        each = turn(step, burst, lead=False) - step.extra_seconds
        if time.perf_counter() >= until:
            return each
        if 2 * burst * each < seconds:
            burst *= 2


def turn(step: Step, burst: int, lead: bool) -> float:
    """Seconds of a step, the mean of `burst` in a row.

    lead: take one before, untimed, because another process has had the machine meanwhile.
    """
    if lead:
        step.run()
    step.synchronize()
    begun = time.perf_counter()
    for _ in range(burst):
        step.run()
    step.synchronize()
    return (time.perf_counter() - begun) / burst + step.extra_seconds


if __name__ == "__main__":
    main()
