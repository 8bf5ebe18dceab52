"""The harness finds every bug in harness/planted_bugs.cu, each with the expected tool."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.harness.host_module import HERE, HostModule, KernelError, sanitizer_environment
from tests.support.harness.memory import aligned, aligned_empty

f32, i32, i64 = np.float32, np.int32, np.int64


class PlantedBugs:
    """The file as a source."""

    headers = ()

    def text(self) -> str:
        return '#line 1 "planted_bugs.cu"\n' + (HERE / "planted_bugs.cu").read_text()


BUGS = PlantedBugs()


def numbers() -> Any:
    return aligned(np.arange(64), f32)


def zeros(n: int = 64) -> Any:
    return aligned(np.zeros(n), f32)


# kernel: (blocks, threads, arguments, bytes of dynamic shared memory); else (1, 64, y, 0)
CALLS: dict[str, tuple[int, int, Callable[[], tuple[Any, ...]], int]] = {
    "write_past_end": (2, 64, lambda: (zeros(100), i64(100)), 0),
    "shared_past_end": (1, 33, lambda: (zeros(),), 0),
    "dynamic_past_end": (1, 33, lambda: (zeros(),), 128),
    "int_overflow": (1, 32, lambda: (zeros(), i32(70000), i32(70000)), 0),
    "missing_barrier": (1, 64, lambda: (numbers(), zeros()), 0),
    "missing_second_barrier": (1, 64, lambda: (numbers(), zeros()), 0),
    "missing_barrier_between_reductions": (1, 64, lambda: (numbers(), zeros()), 0),
    "race_between_blocks": (8, 256, lambda: (numbers(), zeros(1)), 0),
    "order_of_atomics": (8, 32, lambda: (aligned(1 / (1 + np.arange(8.0)), f32), zeros(1)), 0),
    "right": (2, 64, lambda: (aligned(np.arange(128), f32), zeros(128)), 256),
}


MAKE = """
import sys, time
from pathlib import Path
from tests.support.harness.host_module import cached

def make():
    with Path(sys.argv[2]).open("a") as made:
        made.write("once ")
    time.sleep(0.2)
    return "text"

print(cached(sys.argv[1], ".txt", make).read_text())
"""


def test_one_process_makes_a_file_of_the_cache(tmp_path: Path) -> None:
    """The others wait for it, as the workers of pytest do."""
    environment = os.environ | {"GPUMLP_HARNESS_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", MAKE, "key", str(tmp_path / "made")]
    several = [
        subprocess.Popen(command, cwd=HERE.parents[2], env=environment, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    assert [each.communicate()[0] for each in several] == 3 * [b"text\n"]
    assert (tmp_path / "made").read_text() == "once "


@cache
def module(sanitize: str = "") -> HostModule:
    return HostModule([BUGS], sanitize)


def call(name: str, sanitize: str = "", order: int = 0) -> Any:
    """The last array argument, after the launch."""
    grid, block, make, dynamic = CALLS.get(name, (1, 64, lambda: (zeros(),), 0))
    arguments = make()
    launch = module(sanitize).get_kernel(name, BUGS)
    launch((grid,), (block,), arguments, shared_mem=dynamic, order=order)
    return [a for a in arguments if isinstance(a, np.ndarray)][-1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("divergent_barrier", r"divergent barrier: .*planted_bugs.cu:\d+, but .*planted_bugs.cu:"),
        ("deadlock", r"deadlock: .* __syncthreads .*; .* __syncwarp "),
        ("shuffle_from_missing_lane", "lane 16, which takes no part"),
        ("shuffle_wrong_mask", "not in the operation's own mask"),
        ("endless", r"endless loop\? .*planted_bugs.cu:\d+"),
    ],
)
def test_scheduler_finds_bug(name: str, message: str) -> None:
    with pytest.raises(KernelError, match=message):
        call(name)


@pytest.mark.parametrize(
    "name",
    [
        "missing_barrier", "missing_second_barrier", "missing_barrier_between_reductions",
        "order_of_atomics",
    ],
)  # fmt: skip
def test_other_order_finds_bug(name: str) -> None:
    assert len({call(name, order=order).tobytes() for order in (0, 1, 2, 3)}) > 1


def test_nan_fill_finds_bug() -> None:
    assert np.isnan(call("uninitialised_shared")).all()


def test_correct_kernel_passes() -> None:
    sums = np.arange(128.0).reshape(2, 64).sum(axis=1)
    for order in (0, 1, 2, 3):
        np.testing.assert_array_equal(call("right", order=order), np.repeat(sums, 64))


ADDRESS = "address,undefined"
SANITIZED = [
    (ADDRESS, "write_past_end", "heap-buffer-overflow"),
    (ADDRESS, "misaligned", "misaligned address"),
    (ADDRESS, "shared_past_end", "out of bounds|global-buffer-overflow"),
    (ADDRESS, "dynamic_past_end", "heap-buffer-overflow"),
    (ADDRESS, "int_overflow", "signed integer overflow"),
    ("thread", "missing_barrier", "data race"),
    ("thread", "missing_second_barrier", "data race"),
    ("thread", "missing_barrier_between_reductions", "data race"),
    ("thread", "race_between_blocks", "data race"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("sanitize", "name", "message"), SANITIZED)
def test_sanitizer_finds_bug(sanitize: str, name: str, message: str) -> None:
    done = under_sanitizer(sanitize, name)
    assert done.returncode
    assert re.search(message, done.stderr), done.stderr[-3000:]
    assert "planted_bugs.cu:" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("sanitize", [ADDRESS, "thread"])
def test_correct_kernel_passes_sanitizer(sanitize: str) -> None:
    done = under_sanitizer(sanitize, "right")
    assert done.returncode == 0, done.stderr[-3000:]


def under_sanitizer(sanitize: str, name: str) -> subprocess.CompletedProcess[str]:
    """call(name) in a new interpreter with the sanitizer loaded."""
    code = f"from tests.kernels import test_planted_bugs as t; t.call({name!r}, {sanitize!r})"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True,
        env=sanitizer_environment(sanitize), check=False,
    )  # fmt: skip


# ---- calls that a device does not check ----------------------------------------------------------

VALID = (zeros(100), i64(64))
INVALID = {
    "too few": ((zeros(100),), "has 2 parameters, got 1"),
    "too many": ((*VALID, i64(1)), "has 2 parameters, got 3"),
    "another type of array": ((aligned(np.zeros(9)), i64(9)), "argument 0 is f8, .* needs f4"),
    "a Python number": ((zeros(), 64), "argument 1 is int, .* NumPy scalar i8"),
    "another type of number": ((zeros(), i32(64)), "argument 1 is int32, .* NumPy scalar i8"),
    "a float": ((zeros(), f32(64)), "argument 1 is float32"),
    "a number for an array": ((f32(1), i64(1)), "argument 0 must be an array"),
    "an array for a number": ((zeros(), zeros()), "argument 1 is ndarray"),
    "not contiguous": ((zeros(64)[::2], i64(32)), "argument 0 is not contiguous"),
    "transposed": ((zeros(64).reshape(8, 8).T, i64(64)), "argument 0 is not contiguous"),
}


@pytest.mark.parametrize("case", INVALID)
def test_wrong_arguments(case: str) -> None:
    arguments, message = INVALID[case]
    with pytest.raises(KernelError, match=message):
        module().get_kernel("write_past_end", BUGS)((1,), (64,), arguments)


def test_read_only_argument() -> None:
    x = zeros(100)
    x.setflags(write=False)
    with pytest.raises(KernelError, match="argument 0 is read-only"):
        module().get_kernel("write_past_end", BUGS)((1,), (64,), (x, i64(64)))
    # a const parameter accepts it
    module().get_kernel("right", BUGS)((1,), (64,), (x, zeros()), shared_mem=256)


@pytest.mark.parametrize(
    ("grid", "block", "message"),
    [
        ((1, 1), (512, 1), "512 threads a block, but its launch bound is 256"),
        ((1, 1), (0, 1), "invalid launch configuration"),
        ((0, 1), (64, 1), "invalid launch configuration"),
        ((1, 65536), (64, 1), "invalid launch configuration"),
    ],
)
def test_wrong_launch(grid: tuple[int, int], block: tuple[int, int], message: str) -> None:
    with pytest.raises(KernelError, match=message):
        module().get_kernel("write_past_end", BUGS)(grid, block, VALID)


def test_compile_error() -> None:
    class Broken(PlantedBugs):
        def text(self) -> str:
            return '#line 7 "broken.cu"\nGPUMLP_KERNEL(broken, 256)(float* x) { x = y; }\n'

    with pytest.raises(KernelError, match="broken.cu:7"):
        HostModule([Broken()])


def test_memory_is_nan_and_exactly_sized() -> None:
    for dtype in (np.float16, f32, np.float64):
        a = aligned_empty((3, 5), dtype)
        assert np.isnan(a).all()
        assert a.ctypes.data % 256 == 0
    assert aligned_empty((0, 5), f32).shape == (0, 5)
