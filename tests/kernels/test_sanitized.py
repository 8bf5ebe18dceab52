"""The kernel tests again, with the kernels under sanitizers.

A sanitizer must be loaded before the interpreter, so the tests run in an interpreter of their own.
AddressSanitizer and UndefinedBehaviorSanitizer check every shape, kernel and width of storage, with
a few functions of each table (see tests/support/harness/compiled.py).  ThreadSanitizer checks a
small part.
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

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
FILES = [
    f"tests/kernels/test_{part}.py"
    for part in (
        "activation",
        "loss",
        "theta",
        "split_theta",
        "gather",
        "cast",
        "stages",
        "columns",
        "empty",
        "embedding",
    )
]
FILES += [  # launches of the backend, on memory without spare bytes at its end
    "tests/backends/cuda/test_networks.py::test_twenty_steps_of_adamw",
    "tests/backends/cuda/test_networks.py::test_widths_and_minibatches",
    "tests/backends/cuda/test_blocks.py::test_twenty_steps_of_adamw",
    "tests/backends/cuda/test_embeddings.py::test_twenty_steps_of_adamw",
]
# A sanitizer sees addresses and orders: not the mathematics.  It sees float32 as float64, which is
# also the type of arithmetic, and bfloat16 as float16, but for θ in two parts, which only bfloat16
# has.
# ThreadSanitizer needs 0.6 ms for each CUDA thread: one storage type and shape, all kernels with
# barriers, and the update of a whole θ
ONLY = {
    "address,undefined": "(test_cast or not (bfloat16] or [bfloat16 or float32] or [float32)) "
    "and not stochastic and not add_up and not smoothing and not custom and not large "
    "and not in_its_row and not zero_sum and not share and not does_not_end and not read_once "
    "and not (twenty_steps and 0])",
    "thread": "float32 and (every or update or penalty or clip or norm or mean_weights "
    "or test_softmax or masks_of_several or test_embed) "
    "and not 40 and not 3-1- and not 257 and not groups and not part and not the_bits "
    "and not 1024-8-3 and not 16-32-1 and not (read_repeatedly and rms) "
    "and not unaligned and not 48] and (not empty or normalize)",
}
# The exact number of passing tests in each file, so that no test is skipped or lost unnoticed.
# After a change of those files, copy the numbers that the failing comparison shows.
PASSED = {
    "address,undefined": {
        "test_activation": 118, "test_loss": 198, "test_theta": 105,
        "test_split_theta": 8, "test_gather": 77, "test_cast": 192, "test_empty": 341,
        "test_networks": 13, "test_stages": 162, "test_columns": 63, "test_blocks": 11,
        "test_embedding": 17, "test_embeddings": 4,
    },
    "thread": {
        "test_activation": 3, "test_loss": 4, "test_theta": 6,
        "test_gather": 3, "test_stages": 4, "test_columns": 2, "test_empty": 1,
        "test_embedding": 2,
    },
}  # fmt: skip


@pytest.mark.skipif(bool(SANITIZE), reason="would run itself")
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
