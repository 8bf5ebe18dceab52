"""The kernel tests once more, with the kernels under sanitizers.

A sanitizer must be loaded before the interpreter, so the tests run in one of their own.
AddressSanitizer and UndefinedBehaviorSanitizer watch every shape, storage type and kernel, with
one or a few functions of each table (see harness/compiled.py); ThreadSanitizer a small part.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.harness.compiled import SANITIZE
from tests.support.harness.host_module import sanitizer_environment

ROOT = Path(__file__).parents[2]
FILES = [
    f"tests/kernels/test_{part}.py"
    for part in ("activation", "loss", "theta", "gather", "cast", "empty")
]
FILES += [  # the backend's launches, on memory that ends where it should
    "tests/backends/cuda/test_networks.py::test_twenty_steps_of_adamw",
    "tests/backends/cuda/test_networks.py::test_widths_and_minibatches",
]
# ThreadSanitizer takes 0.6 ms a CUDA thread: one storage type and the kernels with barriers
ONLY = {
    "address,undefined": "",
    "thread": "float32 and (every or update or penalty or norm or mean_weights or test_softmax)",
}
# All tests of each file that pass, exactly: none may be skipped, left out or lost unseen.
# After a change to those files, what the failing comparison shows, if it is meant.
PASSED = {
    "address,undefined": {
        "test_activation": 223, "test_loss": 422, "test_theta": 203,
        "test_gather": 122, "test_cast": 192, "test_empty": 357,
        "test_networks": 13,
    },
    "thread": {
        "test_activation": 4, "test_loss": 12, "test_theta": 10,
        "test_gather": 4, "test_empty": 12,
    },
}  # fmt: skip


@pytest.mark.skipif(bool(SANITIZE), reason="runs itself")
@pytest.mark.parametrize("sanitize", ONLY)
def test_under_sanitizer(sanitize: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rp"]
    done = subprocess.run(
        [*command, "-k", ONLY[sanitize], *FILES],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=sanitizer_environment(sanitize) | {"GPUMLP_SANITIZE": sanitize},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    passed = Counter(re.findall(r"^PASSED (?:.*/)?(\w+)\.py::", done.stdout, re.MULTILINE))
    assert dict(passed) == PASSED[sanitize]
