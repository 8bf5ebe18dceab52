"""The kernel tests once more, on fewer shapes, with the kernels under sanitizers.

A sanitizer must be loaded before the interpreter, so the tests run in one of their own.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness.host_module import sanitizer_environment
from harness.library import SANITIZE

HERE = Path(__file__).parent
FILES = [f"test_kernels_{part}.py" for part in ("activation", "loss", "theta", "gather")]
FILES += [  # the room's launches, on memory that ends where it should
    "test_gpu_room.py::test_twenty_steps_of_adamw",
    "test_gpu_room.py::test_widths_and_minibatches",
]
# ThreadSanitizer takes 0.6 ms a CUDA thread: one storage type and the kernels with barriers
ONLY = {
    "address,undefined": "",
    "thread": "float32 and (every or update or penalty or norm or mean_weights or test_softmax)",
}
LEAST = {"address,undefined": 100, "thread": 10}  # tests that must have run


@pytest.mark.skipif(bool(SANITIZE), reason="runs itself")
@pytest.mark.parametrize("sanitize", ONLY)
def test_under_sanitizer(sanitize: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", ONLY[sanitize]]
    done = subprocess.run(
        [*command, *FILES], cwd=HERE, capture_output=True, text=True, check=False,
        env=sanitizer_environment(sanitize) | {"GPUMLP_SANITIZE": sanitize},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= LEAST[sanitize]
