"""Tables of timings, and the files of results: benchmarks/results/NAME.json."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gpumlp.bench.timing import Timing, gpu, machine
from gpumlp.cli.output import print_table

RESULTS = Path(__file__).parent / "results"


def compare(
    title: str, timings: Mapping[str, Timing], ratio: str, ratio_of: Callable[[Timing], float]
) -> dict[str, dict[str, Any]]:
    """Print a table of the competitors; returns it as JSON can hold it.

    Args:
        title: head of the first column.
        timings: seconds of each competitor.
        ratio: name of the last column.
        ratio_of: the number in the last column.
    """
    table: dict[str, dict[str, Any]] = {}
    rows = []
    for name, timing in timings.items():
        median, low, high = (1e3 * t for t in (timing.median, *timing.quartiles))
        value = ratio_of(timing)
        rows.append((name, f"{median:.2f}", f"{low:.2f} {high:.2f}", f"{value:.3f}x"))
        table[name] = {"median_ms": median, "quartiles_ms": [low, high], ratio: value}
    print_table([title, "median ms", "quartiles ms", ratio.replace("_", " ")], rows)
    return table


def compare_with_gpumlp(title: str, timings: Mapping[str, Timing]) -> dict[str, dict[str, Any]]:
    """`compare`; the ratio is the time of "gpumlp" over that of the competitor."""
    return compare(title, timings, "gpumlp_over_this", timings["gpumlp"].ratio)


def note() -> None:
    """Print what to know of torch on this machine, if anything."""
    if "note" in machine():
        print(machine()["note"])


def write(name: str, results: Mapping[str, Any], path: Path | None = None) -> None:
    """Write results and a description of the machine to benchmarks/results/NAME.json, or to `path`.

    Does nothing without --write on the command line and without a path.
    """
    if path is not None or "--write" in sys.argv[1:]:
        path = path or RESULTS / f"{name}.json"
        device = {"gpu": found} if (found := gpu()) else {}
        about = {"machine": machine(), **device}
        path.write_text(json.dumps({**about, **results}, indent=1) + "\n")
        print(f"written: {path}")
