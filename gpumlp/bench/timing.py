"""Interleaved timing: other work on the machine slows all competitors alike."""

from __future__ import annotations

import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from gpumlp.backends.cpu.flags import cpuinfo
from gpumlp.io.threads import blas_name, cores

VERSIONS = (
    "gpumlp", "numpy", "torch", "triton", "jax", "jaxlib", "optax", "scikit-learn", "cupy-cuda12x",
    "cupy-cuda13x", "nvmath-python", "nvidia-cublas", "nvidia-cublas-cu12", "nvidia-cuda-nvrtc",
    "nvidia-cuda-nvrtc-cu12",
)  # fmt: skip


@dataclass(frozen=True)
class Timing:
    """The seconds of one competitor, one number for each round."""

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
        """The median over the rounds of this time divided by the other time."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))


def interleaved(
    competitors: Mapping[str, Callable[[], Any]], rounds: int, warmup: int = 3, burst: int = 1
) -> dict[str, Timing]:
    """Time each competitor once in every round, after some rounds of warm-up.

    burst: number of calls in a row; their mean is the time. While the threads of a BLAS wait, they
    spin for some milliseconds. With bursts, they slow only the first call of the next competitor.
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
    """The processor, its cores, and the versions of the libraries; and a note on torch, if any."""
    about = cpuinfo()
    model = about.get("model name", platform.processor())
    flags = about.get("flags", "").split()
    here: dict[str, Any] = {
        "processor": model,
        "avx512": "avx512f" in flags,
        "amx": "amx_bf16" in flags,
        "cores": cores(),
        "python": platform.python_version(),
        "versions": {name: found for name in VERSIONS if (found := version(name))},
        "blas": blas_name(),
    }
    if "AMD" in model and "torch" in here["versions"]:
        has = "has AVX-512" if here["avx512"] else "has no AVX-512"
        here["note"] = f"torch's MKL does not use AVX-512 on processors of AMD; this one {has}"
    return here


def gpu() -> dict[str, str]:
    """Name, driver, memory and clocks of the first GPU, from nvidia-smi; empty without a GPU."""
    fields = ("name", "driver_version", "memory.total", "clocks.max.sm", "power.limit")
    if not shutil.which("nvidia-smi"):
        return {}
    done = subprocess.run(
        ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return {}
    return dict(zip(fields, lines[0].split(", "), strict=False))


def version(distribution: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
