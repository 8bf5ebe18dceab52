"""kernels/cpu/amx.hpp, on any processor with AVX-512: its tiles are emulated, or AMX's own."""

from __future__ import annotations

import ctypes
import shutil
from functools import cache
from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gpumlp.backends.cpu import flags, source
from gpumlp.backends.cpu.flags import FLAGS, X86
from tests.support.compiled import EMULATED_TILES
from tests.support.harness.host_module import cached, compiled

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
    pytest.mark.skipif(not X86["avx512"].usable(), reason="needs a processor with AVX-512"),
]
RNG = np.random.default_rng(11)
HALF = np.dtype(ml_dtypes.bfloat16)
TILES = [
    "emulated",
    pytest.param("processor", marks=pytest.mark.skipif(not X86["amx"].usable(), reason="no AMX")),
]
LAYOUTS = list(product([False, True], repeat=2))
SIZES = [  # m, n, k: beside the tiles' sides, several blocks, and more rows than a block has
    (160, 160, 64), (161, 175, 95), (97, 333, 130), (400, 120, 70), (170, 180, 2100),
    (700, 90, 520),
]  # fmt: skip
FUNCTION = """
#include "products.hpp"
using namespace gpumlp;
GPUMLP_EXPORT void multiply_{name}(const int64* sizes, const {T}* a, const {T}* b, float* out,
                       const float* factors, const int64* part) {{
    const Product<{T}, float> p = {{sizes[0], sizes[1], sizes[2], {{a, sizes[3], sizes[4]}},
                                    {{b, sizes[5], sizes[6]}}, out, factors, nullptr, {{}}}};
    multiply_part(p, {{part[0], part[1], part[2], part[3]}}, false);
}}
GPUMLP_EXPORT int takes_tiles_{name}(int64 m, int64 n, int64 k) {{
    return amx::repays<{T}>(m, n, k);
}}
"""


@cache
def library(tiles: str) -> ctypes.CDLL:
    text = "".join(
        FUNCTION.format(name=name, T=T)
        for name, T in (("float32", "float"), ("bfloat16", "bfloat16"))
    )
    path = cached(text, ".cpp", lambda: text)
    headers = sorted(source.headers().glob("*.hpp"))
    arguments = [*FLAGS, *X86["amx"].flags, f"-I{source.headers()}", "-shared", str(path)]
    if tiles == "emulated":  # AVX512_BF16's instruction is not used by what is called here
        arguments = ["-include", str(EMULATED_TILES), *arguments]
    return ctypes.CDLL(str(compiled([path, EMULATED_TILES, *headers], arguments, ".so")))


def multiplied(
    tiles: str, a: Any, b: Any, out: Any, factors: Any = None, part: tuple[int, ...] | None = None
) -> Any:
    """A copy of `out`, in which the part (i, j, rows, columns) of a product is computed."""
    (m, k), n, out = a.shape, b.shape[1], np.array(out, np.float32, order="C")
    strides = [each // x.itemsize for x in (a, b) for each in x.strides]
    pointers = [
        None if x is None else ctypes.c_void_p(x.ctypes.data)
        for x in (
            np.array([m, n, k, *strides], np.int64), a, b, out,
            None if factors is None else np.array(factors, np.float32),
            np.array(part or (0, 0, m, n), np.int64),
        )
    ]  # fmt: skip
    getattr(library(tiles), f"multiply_{a.dtype.name}")(*pointers)
    return out


def operand(rows: int, columns: int, transposed: bool, dtype: Any = np.float32) -> Any:
    """Beyond it lies NaN, which must not be read."""
    whole = np.full((columns + 1, rows + 40) if transposed else (rows + 1, columns + 40), np.nan)
    whole = whole.astype(dtype)
    made = whole[:-1, :-40]
    made[:] = RNG.normal(size=made.shape).astype(dtype)
    return made.T if transposed else made


@pytest.mark.parametrize("tiles", TILES)
@pytest.mark.parametrize("layouts", LAYOUTS, ids=str)
def test_float_products_have_smaller_errors_than_numpys(
    tiles: str, layouts: tuple[bool, bool]
) -> None:
    for m, n, k in SIZES:
        a, b = operand(m, k, layouts[0]), operand(k, n, layouts[1])
        want = a.astype("f8") @ b.astype("f8")
        found = multiplied(tiles, a, b, np.full((m, n), np.nan))
        errors = [np.sqrt(np.mean((each - want) ** 2)) for each in (found, a @ b)]
        assert errors[0] <= 1.1 * errors[1] + 1e-12, (m, n, k)
        x, w = abs(a), abs(b)  # of numbers of one sign, sums grow and so do the errors of additions
        sums, want_sums = multiplied(tiles, x, w, np.zeros((m, n))), x.astype("f8") @ w.astype("f8")
        errors = [np.sqrt(np.mean((each - want_sums) ** 2)) for each in (sums, x @ w)]
        assert errors[0] <= 1.1 * errors[1], (m, n, k)
        out = RNG.normal(size=(m, n)).astype("f4")
        for alpha, beta in ((-0.5, 2.0), (1.0, 1.0)):
            added = multiplied(tiles, a, b, out, (alpha, beta))
            bound = 1e-6 * (abs(a) @ abs(b) + abs(out))
            assert (abs(added - (beta * out + alpha * want)) <= bound).all(), (m, n, k)


def test_float_products_by_tiles_are_tested() -> None:
    assert [library("emulated").takes_tiles_float32(*(ctypes.c_int64(x) for x in each))
            for each in SIZES] == [1, 1, 0, 1, 1, 0]  # fmt: skip


@pytest.mark.parametrize("tiles", TILES)
def test_digits_of_floats(tiles: str) -> None:
    """All 24 digits, for exponents of 10⁻³⁰ to 10¹⁹, whose products neither vanish nor overflow."""
    exponents = RNG.uniform(-30, 19, (170, 1))
    a = (10**exponents * RNG.uniform(1, 2, (170, 64))).astype("f4")
    b = np.zeros((64, 200), "f4")
    b[RNG.integers(0, 64, 200), range(200)] = 1
    np.testing.assert_array_equal(multiplied(tiles, a, b, np.zeros((170, 200))), a @ b)
    b *= RNG.uniform(1, 2, b.shape).astype("f4")
    np.testing.assert_allclose(multiplied(tiles, a, b, np.zeros((170, 200))), a @ b, rtol=2.0**-22)


@pytest.mark.parametrize("tiles", TILES)
@pytest.mark.parametrize("dtype", [np.float32, HALF], ids=str)
def test_bits_do_not_depend_on_the_part(tiles: str, dtype: Any) -> None:
    for (m, n, k), layouts, factors in product(
        [(161, 175, 95), (170, 180, 2100)], LAYOUTS, [None, (1, 1), (0.3, 0.7)]
    ):
        a, b = operand(m, k, layouts[0], dtype), operand(k, n, layouts[1], dtype)
        out = RNG.normal(size=(m, n)).astype("f4")
        whole = multiplied(tiles, a, b, out, factors)
        for _ in range(6):
            i, j = RNG.integers(0, m), RNG.integers(0, n)
            part = int(i), int(j), int(RNG.integers(1, m - i + 1)), int(RNG.integers(1, n - j + 1))
            want = out.copy()
            there = np.s_[part[0] : part[0] + part[2], part[1] : part[1] + part[3]]
            want[there] = whole[there]
            np.testing.assert_array_equal(multiplied(tiles, a, b, out, factors, part), want)


@pytest.mark.parametrize("tiles", TILES)
@pytest.mark.parametrize("layouts", LAYOUTS, ids=str)
def test_halves_are_added_up_as_the_manual_says(tiles: str, layouts: tuple[bool, bool]) -> None:
    for m, n, k in [*SIZES, (3, 5, 7), (40, 33, 2100)]:
        a, b = operand(m, k, layouts[0], HALF), operand(k, n, layouts[1], HALF)
        found = multiplied(tiles, a, b, np.full((m, n), np.nan))
        np.testing.assert_array_equal(found, multiplied("emulated", a, b, np.zeros((m, n))))
        want = a.astype("f8") @ b.astype("f8")
        assert (abs(found - want) <= 1e-6 * (abs(a.astype("f4")) @ abs(b.astype("f4")) + 1)).all()


@pytest.mark.parametrize("tiles", TILES)
@pytest.mark.parametrize("factors", [None, (0.5, 2)])
def test_far_entries_and_nan_stay_in_their_rows_and_columns(tiles: str, factors: Any) -> None:
    """Infinite sums keep their sign, and the other sums their bits."""
    a, b = operand(300, 300, False), operand(300, 280, True)
    out = np.ones((300, 280), "f4")
    whole = multiplied(tiles, a, b, out, factors)
    a[3, 5], a[4, 6], a[90, 299] = np.nan, np.inf, -np.inf
    a[20, :], a[20, 7] = 0, np.finfo("f4").max
    b[:, 17], b[7, 17] = 0, np.inf
    b[7, :9] = 2.0 ** -np.arange(9)  # of the largest number the products are finite
    with np.errstate(invalid="ignore", over="ignore"):
        want = a @ b * (factors or (1, 0))[0]
    found = multiplied(tiles, a, b, out, factors)
    near = np.isfinite(a).all(1)[:, None] & np.isfinite(b).all(0)
    np.testing.assert_array_equal(found[~near], want[~near])
    np.testing.assert_allclose(found[20, :9], want[20, :9], rtol=1e-6)
    kept = near & (np.arange(280) > 9) & (np.arange(300) != 20)[:, None]
    np.testing.assert_array_equal(found[kept], whole[kept])
    everywhere = multiplied(tiles, np.full_like(a, np.nan), b, out, factors)
    assert np.isnan(everywhere).all()


def test_tiles_need_the_permission_of_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flags, "cpuinfo", lambda: {"flags": "avx512_bf16 amx_bf16"})
    monkeypatch.setattr(flags, "_may_use_tiles", lambda: True)
    assert X86["amx"].usable()
    monkeypatch.setattr(flags, "_may_use_tiles", lambda: False)
    assert not X86["amx"].usable()
    assert X86["avx512_bf16"].usable()
