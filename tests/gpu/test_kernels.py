"""The tests of kernels, launched on a GPU: see tests/support/harness/compiled.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.bars import KERNELS

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("part", KERNELS)
def test_kernels(part: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:benchmark", "-p", "no:xdist",
         TESTS / "kernels" / f"test_{part}.py"],
        env=dict(os.environ, GPUMLP_KERNELS="device"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
