"""Interleaved timing: competitors take turns, so that the machine's noise meets them alike."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from gpumlp.io.threads import blas_name

VERSIONS = (
    "gpumlp", "numpy", "torch", "triton", "jax", "jaxlib", "optax", "scikit-learn", "cupy-cuda12x",
    "cupy-cuda13x", "nvmath-python", "nvidia-cublas", "nvidia-cublas-cu12",
)  # fmt: skip


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
        if len(self.seconds) < 2:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
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
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in VERSIONS if _version(name)},
        "blas": blas_name(),
    }


def gpu() -> dict[str, str]:
    """What nvidia-smi says of the first GPU: name, driver, memory, clocks; nothing without one."""
    fields = ("name", "driver_version", "memory.total", "clocks.max.sm", "power.limit")
    if not shutil.which("nvidia-smi"):
        return {}
    told = subprocess.run(
        ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    lines = told.stdout.splitlines()
    if told.returncode or not lines:
        return {}
    return dict(zip(fields, lines[0].split(", "), strict=False))


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
