"""Where measured figures are kept: benchmarks/results/NAME.json, with the machine's description."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpumlp.bench.timing import Timing, interleaved, machine

__all__ = ["Timing", "interleaved", "machine", "write"]

RESULTS = Path(__file__).parent / "results"


def write(name: str, results: Mapping[str, Any]) -> Path:
    """Write results with the machine's description to benchmarks/results/NAME.json."""
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **results}, indent=1) + "\n")
    return path
