"""Are products measured better with an L2 cache that other work has overwritten, or as it is?

    python -m benchmarks.cold_cache [width] [layers] [minibatch] [precision]

`gpumlp tune` overwrites the L2 cache before each trial, as the other work of a large network does.
All of a small network stays in the cache. This measures a small step after tuning in both ways, in
the same process, and says which products were chosen differently. It prints JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from gpumlp.backends.cuda import open_device
from gpumlp.backends.cuda.cache import TuningCache
from gpumlp.bench.cases import Case
from gpumlp.bench.peers import Problem
from gpumlp.bench.peers.gpumlp_peer import GpumlpStep
from gpumlp.bench.worker import time_burst, warm_up

ROUNDS, BURST = 15, 400


def main() -> None:
    """Tune a step in both ways, and time both steps in alternating rounds."""
    width, layers, m, precision = sys.argv[1:] + ["512", "4", "256", "float32"][len(sys.argv) - 1 :]
    case = Case("cache", (int(width),) * (int(layers) + 1), int(m), "relu", "adamw", precision)
    device = open_device()
    cold, tuner = device._time, device.tuner
    steps: dict[str, Any] = {}
    choices: dict[str, Any] = {}
    for name, quick in (("cold", False), ("warm", True)):
        tuner._time = lambda work, _, quick=quick: cold(work, quick)
        tuner.cache = TuningCache(tuner.cache._device, Path(tempfile.mkdtemp()))
        device._blas._plans.clear()
        tuner.choices.clear()
        steps[name] = GpumlpStep(Problem(case, "cupy"))
        choices[name] = {str(g): choice.to_json() for g, choice in tuner.choices.items()}
        warm_up(steps[name], 0.5)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            seconds[name].append(time_burst(step, BURST, lead=True)[0])
    other = [
        name for name, choice in choices["cold"].items()
        if choice["algorithm"] != choices["warm"].get(name, {}).get("algorithm")
    ]  # fmt: skip
    median = {name: 1e6 * statistics.median(each) for name, each in seconds.items()}
    content = {
        "case": str(case), "microseconds": median, "chosen_differently": other,
        "products": len(choices["cold"]),
    }  # fmt: skip
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
