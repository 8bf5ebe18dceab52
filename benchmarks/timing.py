"""Interleaved timing: competitors take turns in one process, so that noise meets them alike."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from gpumlp.backends.threads import blas_name

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Timing:
    """Seconds of each round of one competitor, in the rounds' order."""

    seconds: list[float]

    @property
    def median(self) -> float:
        """The median, in seconds."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and third quartile, in seconds."""
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return low, high

    def ratio(self, other: Timing) -> float:
        """The median of this one's rounds over the other's, round by round."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))


def interleaved(
    competitors: Mapping[str, Callable[[], Any]], rounds: int, warmup: int = 3, burst: int = 1
) -> dict[str, Timing]:
    """Time each competitor once a round, in turn, after some rounds of warm-up.

    burst: calls in a row that a timing is the mean of.  Threads that wait for work by spinning, as
    those of OpenBLAS and OpenMP do for some milliseconds, hamper whoever comes next: with bursts
    each library is timed mostly as it runs by itself.
    """
    seconds: dict[str, list[float]] = {name: [] for name in competitors}
    for i in range(-warmup, rounds):
        for name, run in competitors.items():
            start = time.perf_counter()
            for _ in range(burst):
                run()
            if i >= 0:
                seconds[name].append((time.perf_counter() - start) / burst)
    return {name: Timing(values) for name, values in seconds.items()}


def machine() -> dict[str, Any]:
    """Processor, cores, and the versions of what was timed."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":")[1].strip() if lines else model
    names = ("gpumlp", "numpy", "torch", "scikit-learn", "cupy-cuda13x", "nvmath-python")
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in names if _version(name)},
        "blas": blas_name(),
    }


def write(name: str, results: Mapping[str, Any]) -> Path:
    """Write results with the machine's description to benchmarks/results/NAME.json."""
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **results}, indent=1) + "\n")
    return path


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
