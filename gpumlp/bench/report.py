"""What a benchmark found: one table for people, and one JSON file of everything."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from gpumlp.bench.peers import FLOOR, OURS
from gpumlp.bench.results import TIMED, Result
from gpumlp.storage import atomic_write

HEADER = (
    "", "median ms", "quartiles ms", "gpumlp takes", "TFLOP/s", "of floor", "peak MB",
    "first step s", "error",
)  # fmt: skip
LEGEND = """\
gpumlp takes: the time of gpumlp over the time of this competitor, round by round.
of floor: the time of the floor over the time of this competitor. The floor is the bare products of
  the step, and its other bytes at the speed of a copy.
peak MB: {peak}.
first step s: seconds after the import, cold (nothing compiled) / warm.
error: relative error of the first change of the parameters, compared with float64."""


def table(results: Sequence[Result]) -> Iterator[str]:
    """The lines of one table: each case, its competitors, and who was left out and why."""
    timed = [r for r in results if r.status == TIMED]
    rows = {id(r): row(r, share_of_floor(r, timed)) for r in timed}
    columns = zip(HEADER, *rows.values(), strict=True) if rows else ((name,) for name in HEADER)
    widths = [max(map(len, column)) for column in columns]
    for case, group in groupby(results, key=_place):
        yield case
        yield _line(HEADER, widths)
        of_case = list(group)
        yield from (_line(rows[id(r)], widths) for r in of_case if r.status == TIMED)
        yield from (
            f"  {r.competitor}: {r.status}: {r.reason}" for r in of_case if r.status != TIMED
        )
        yield ""
    if timed:
        yield LEGEND.format(peak=" or ".join(sorted({r.peak_of for r in timed})))


def row(result: Result, share: float | None) -> tuple[str, ...]:
    """The cells of a result."""
    low, high = result.timing.quartiles
    start = result.first_step
    return (
        result.competitor,
        f"{1e3 * result.timing.median:.3f}",
        f"{1e3 * low:.3f} {1e3 * high:.3f}",
        "" if result.competitor == OURS else f"{result.ours_over_this:.2f}x",
        f"{result.tflops:.3g}",
        "" if share is None else f"{share:.0%}",
        "" if result.peak_bytes is None else f"{result.peak_bytes / 1e6:.0f}",
        " / ".join(f"{start[name]:.2f}" for name in ("cold", "warm") if name in start),
        "" if result.error is None else f"{result.error:.1e}",
    )


def share_of_floor(result: Result, timed: Iterable[Result]) -> float | None:
    """The time of the floor over that of the result, or None without a floor.

    Both are compared with the rounds of this library that alternate with theirs.
    """
    wanted = (FLOOR, result.case, result.backend)
    for floor in timed:
        if (floor.competitor, floor.case, floor.backend) == wanted:
            return result.ours_over_this / floor.ours_over_this
    return None


def content(results: Sequence[Result]) -> dict[str, Any]:
    """All measurements, each with its machine, versions and case, as JSON can hold them."""
    return {"results": [result.to_json() for result in results]}


def write_json(path: Path, results: Sequence[Result]) -> None:
    """Write `content` to a file."""
    atomic_write(path, (json.dumps(content(results), indent=1) + "\n").encode())


def _place(result: Result) -> str:
    """The case, and where it ran."""
    name = result.machine.get("gpu", {}).get("name") or result.machine.get("processor", "")
    return f"{result.case}, on the {'GPU' if result.backend == 'cupy' else 'CPU'} ({name})"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (
        cell.ljust(width) if i == 0 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return f"  {first}  {'  '.join(rest)}".rstrip()
