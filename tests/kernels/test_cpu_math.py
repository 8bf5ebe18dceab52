"""kernels/cpu/math.hpp, compiled by g++ for each instruction set, against 80-bit results."""

from __future__ import annotations

import ctypes
import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.harness.host_module import cached, compiled

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

HEADER = Path(__file__).parents[2] / "kernels" / "cpu" / "math.hpp"
FLAGS = (
    "-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fPIC",
    "-Wall", "-Werror", f"-I{HEADER.parent}",
)  # fmt: skip
# for each instruction set the flags, what the processor must have, and the bytes of a vector
INSTRUCTIONS = {
    "sse2": (("-msse2",), ("sse2",), 16),
    "avx2": (("-mavx2", "-mfma"), ("avx2", "fma"), 32),
    "avx512": (
        ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma",
         "-mprefer-vector-width=512"),
        ("avx512f", "avx512dq", "avx512vl", "avx512bw"), 64,
    ),
}  # fmt: skip
if platform.machine() not in ("x86_64", "AMD64"):
    INSTRUCTIONS = {"baseline": ((), (), 16)}
DTYPES = {"float": np.dtype(np.float32), "double": np.dtype(np.float64)}
# ulp in float and double, a little more than the header states: at most 4 and 2 are promised
LIMITS = {
    "exp": (1.3, 1.2), "expm1": (1.9, 1.8), "log": (1.5, 1.2),
    "log1p": (2.0, 1.8), "tanh": (3.0, 1.7), "erf": (1.6, 1.7),
}  # fmt: skip
INF, NAN = np.inf, np.nan

each_instruction_set = pytest.mark.parametrize("instructions", INSTRUCTIONS)

# a line has one loop, so that its number names the loop
LOOP = (
    'extern "C" void {name}_{real}(const {real}* __restrict x, {real}* __restrict y, long n) '
    "{{ for (long i = 0; i < n; ++i) y[i] = {expression}; }}\n"
)
# what an entry of a user may contain: mixed types, and functions that the header only passes on
EXPRESSIONS = {
    "mixed": "fmax(x[i], 0) + exp(1) * min(x[i], 0.5) + log(2) * pow(x[i], 2) + rsqrt(4)",
    "others": "sin(x[i]) * cos(x[i]) + atan(x[i]) + floor(x[i]) + abs(x[i]) + cbrt(x[i])",
    "fmax": "fmax(x[i], x[n - 1 - i])",
    "fmin": "fmin(x[i], x[n - 1 - i])",
    "root": "sqrt(x[i])",
}


def loops() -> str:
    bodies = {name: f"{name}(x[i])" for name in LIMITS} | EXPRESSIONS
    lines = "".join(
        LOOP.format(name=name, real=real, expression=body)
        for name, body in bodies.items()
        for real in DTYPES
    )
    return f'#include "math.hpp"\nnamespace gpumlp {{\n{lines}}}\n'


@cache
def library(instructions: str) -> ctypes.CDLL:
    flags, needed, _ = INSTRUCTIONS[instructions]
    supported = reference_library()
    if not all(getattr(supported, f"has_{name}")() for name in needed):
        pytest.skip(f"the processor has no {instructions}")
    source = cached(loops(), ".cpp", loops)
    arguments = [*FLAGS, *flags, "-shared", str(source)]
    return ctypes.CDLL(str(compiled([HEADER, source], arguments, ".so")))


@cache
def reference_library() -> ctypes.CDLL:
    """The functions of libm for long double, and whether the processor has an instruction set."""
    text = "#include <cmath>\n"
    for name in LIMITS:
        text += f'extern "C" void {name}_reference(const double* x, long double* y, long n) '
        text += f"{{ for (long i = 0; i < n; ++i) y[i] = std::{name}((long double)x[i]); }}\n"
    for name in sorted({name for _, needed, _ in INSTRUCTIONS.values() for name in needed}):
        text += f'extern "C" int has_{name}() {{ return __builtin_cpu_supports("{name}") != 0; }}\n'
    source = cached(text, ".cpp", lambda: text)
    arguments = ["-O1", "-fPIC", "-shared", str(source)]
    return ctypes.CDLL(str(compiled([source], arguments, ".so")))


def call(function: Any, x: Any, result: Any) -> Any:
    x, y = np.ascontiguousarray(x), np.empty(x.shape, result)
    function(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), ctypes.c_long(x.size))
    return y


def compute(instructions: str, name: str, x: Any) -> Any:
    real = "float" if x.dtype == np.float32 else "double"
    return call(getattr(library(instructions), f"{name}_{real}"), x, x.dtype)


def reference(name: str, x: Any) -> Any:
    return call(
        getattr(reference_library(), f"{name}_reference"), x.astype(np.float64), np.longdouble
    )


def samples(dtype: Any, rng: np.random.Generator) -> Any:
    """All exponents, the range where the functions bend, and neighbours of special points."""
    bits = np.dtype(f"u{dtype.itemsize}")
    everywhere = rng.integers(0, np.iinfo(bits).max, 30_000, bits, endpoint=True).view(dtype)
    bend = np.concatenate([rng.uniform(-s, s, 5_000) for s in (0.4, 1.2, 3, 20, 110, 760)])
    info = np.finfo(dtype)
    points = np.log([info.max, info.tiny, info.smallest_subnormal]).astype(np.float64)
    points = np.r_[0, points, info.max, info.tiny, 2.0**-60, 1e-17, 0.55, 0.707107, 1, 1.414214, 2]
    points = np.r_[points, 6, 9.01, 10, 18, 20, 40, np.log(2) * np.arange(-20, 20.5, 0.5)]
    near = np.concatenate([points, -points]).astype(dtype)
    around = [near]
    with np.errstate(over="ignore"):
        for _ in range(4):
            near = np.nextafter(near, dtype.type(INF))
            around += [near, -near]
    return np.concatenate([everywhere, bend.astype(dtype), *around])


def error(got: Any, want: Any) -> Any:
    """The error in ulp of got's type; in smallest subnormals if want is subnormal; inf if the
    sign of a 0, an infinity or NaN is wrong.
    """
    info = np.finfo(got.dtype)
    lowest = info.minexp - info.nmant  # the smallest subnormal is 2^lowest
    exponent = np.maximum(np.frexp(want)[1] - info.nmant - 1, lowest)
    rounded = want.astype(got.dtype)
    ulp = np.abs(np.ldexp(got - want, -exponent)).astype(np.float64)
    finite = np.isfinite(rounded) & np.isfinite(got)
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    ulp = np.where(finite, ulp, np.where(same, 0, INF))
    return np.where((want == 0) & (np.signbit(got) != np.signbit(want)), INF, ulp)


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="no reference beyond float64")
@each_instruction_set
def test_errors_in_ulp(instructions, rng):
    wrong = {}
    for column, (real, dtype) in enumerate(DTYPES.items()):
        x = samples(dtype, rng)
        for name, limits in LIMITS.items():
            with np.errstate(all="ignore"):
                ulp = error(compute(instructions, name, x), reference(name, x))
            if ulp.max() > limits[column]:
                wrong[name, real] = x[ulp.argmax()], ulp.max()
    assert not wrong


@each_instruction_set
def test_special_values(instructions):
    x = [0.0, -0.0, INF, -INF, NAN, -1.0, -2.0]
    expected = {
        "exp": [1, 1, INF, 0, NAN, None, None],
        "expm1": [0.0, -0.0, INF, -1, NAN, None, None],
        "log": [-INF, -INF, INF, NAN, NAN, NAN, NAN],
        "log1p": [0.0, -0.0, INF, NAN, NAN, -INF, NAN],
        "tanh": [0.0, -0.0, 1, -1, NAN, None, None],
        "erf": [0.0, -0.0, 1, -1, NAN, None, None],
    }
    for dtype in DTYPES.values():
        bits = np.dtype(f"i{dtype.itemsize}")  # NaN with all bits set, and with the last alone
        odd_nan = np.array([-1, np.array(INF, dtype).view(bits) + 1], bits).view(dtype)
        for name, values in expected.items():
            got = compute(instructions, name, np.array(x * 5, dtype))  # in a vector and behind it
            for i, value in enumerate(values * 5):
                if value is not None:
                    np.testing.assert_equal(got[i], dtype.type(value), f"{name}({x[i % len(x)]})")
            assert np.isnan(compute(instructions, name, np.tile(odd_nan, 20))).all()


@each_instruction_set
def test_bits_do_not_depend_on_the_place_in_the_array(instructions, rng):
    for dtype in DTYPES.values():
        x = rng.normal(0, 3, 203).astype(dtype)
        for name in LIMITS:
            whole = compute(instructions, name, x)
            parts = [compute(instructions, name, x[i : i + 7]) for i in range(0, x.size, 7)]
            np.testing.assert_array_equal(np.concatenate(parts), whole, name)


@each_instruction_set
def test_bounded_functions_stay_within_1(instructions):
    for dtype in DTYPES.values():
        x = np.linspace(2, 25, 20_001, dtype=dtype)
        for name in "tanh", "erf":
            y = compute(instructions, name, x)
            assert y.max() == 1
            np.testing.assert_array_equal(compute(instructions, name, -x), -y)


@each_instruction_set
def test_loops_are_vectorised(instructions):
    flags, _, width = INSTRUCTIONS[instructions]
    source = cached(loops(), ".cpp", loops)
    version = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True)
    if "Free Software Foundation" not in version.stdout:
        pytest.skip("only GCC reports the loops in these words")
    command = ["g++", *FLAGS, *flags, "-fopt-info-vec-optimized", "-c", source, "-o", "/dev/null"]

    def report() -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr

    key = f"{command}{HEADER.read_text()}"
    found = re.findall(
        r"\.cpp:(\d+):.*loop vectorized using (\d+) byte", cached(key, ".vec", report).read_text()
    )
    lines = loops().splitlines()
    vectorised = {lines[int(n) - 1] for n, size in found if int(size) == width}
    missed = [
        f"{name}_{real}"
        for name in (*LIMITS, "fmax", "fmin", "root")
        for real in DTYPES
        if not any(f" {name}_{real}(" in line for line in vectorised)
    ]
    assert not missed


@each_instruction_set
def test_expressions_of_users(instructions):
    for dtype in DTYPES.values():
        x = np.array([-2.5, -0.25, 0.25, 1.5, 4, NAN, 3], dtype)
        z = x.astype(np.float64)
        expected = {
            "mixed": np.maximum(z, 0) + np.e * np.fmin(z, 0.5) + np.log(2) * z**2 + 0.5,
            "others": np.sin(z) * np.cos(z) + np.arctan(z) + np.floor(z) + np.abs(z) + np.cbrt(z),
            "fmax": np.fmax(z, z[::-1]),
            "fmin": np.fmin(z, z[::-1]),
            "root": np.sqrt(np.where(z < 0, NAN, z)),
        }
        for name, value in expected.items():
            got = compute(instructions, name, x)
            np.testing.assert_allclose(got, value, rtol=8 * np.finfo(dtype).eps, err_msg=name)
