"""Products of the CPU backend: all layouts, sizes beside the tiles', any number of threads."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from gpumlp.backends.cpu import calls
from tests.support.compiled import multiplied_on_cpu, needs_library

pytestmark = needs_library
RNG = np.random.default_rng(3)
SIZES = [  # m, n, k
    (1, 1, 1), (1, 7, 3), (7, 1, 513), (3, 2, 1), (6, 16, 256), (13, 17, 257), (64, 10, 128),
    (5, 513, 31), (100, 39, 300), (150, 300, 20), (2, 600, 9), (37, 520, 520), (200, 33, 70),
    (25, 140, 1030), (37, 264, 1024),  # of float32, rows of 1,024 are whole pages apart
    (200, 180, 130), (230, 170, 600),  # in float32 on matrix tiles, where there are any
    (3, 6, 130), (11, 7, 900), (31, 70, 1000), (48, 5, 1500),  # few rows with a transpose
    (9, 1900, 1700), (1900, 1700, 9),  # one matrix does not stay in the third cache
]  # fmt: skip


def operand(rows: int, columns: int, transposed: bool, dtype: Any) -> Any:
    shape = (columns, rows) if transposed else (rows, columns)
    made = RNG.normal(size=shape).astype(dtype)
    return made.T if transposed else made


def multiplied(a: Any, b: Any, out: Any, *settings: Any) -> Any:
    return multiplied_on_cpu(str(out.dtype), a, b, out, *settings)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layouts", list(product([False, True], repeat=2)), ids=str)
@pytest.mark.parametrize("flops", [0, 1 << 60], ids=["blas", "tiles"])
def test_product_of_any_layout(
    dtype: str, layouts: tuple[bool, bool], flops: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in float64, within the rounding of k sums; `out` is not read unless it is added."""
    monkeypatch.setattr(calls, "BLAS_FLOPS", flops)
    for m, n, k in SIZES:
        a, b = operand(m, k, layouts[0], dtype), operand(k, n, layouts[1], dtype)
        want = a.astype("float64") @ b.astype("float64")
        bound = 2 * np.finfo(dtype).eps * np.sqrt(k) * (abs(a) @ abs(b) + 1)
        unread = np.full((m, n), np.nan, dtype)
        assert (abs(multiplied(a, b, unread) - want) <= bound).all(), (m, n, k)
        out = RNG.normal(size=(m, n)).astype(dtype)
        added = multiplied(a, b, out, np.array([-0.5, 2.0], dtype))
        assert (abs(added - (2.0 * out - 0.5 * want)) <= 3 * bound + 4e-7).all(), (m, n, k)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_bits_however_a_product_is_cut(dtype: str) -> None:
    limits = pytest.importorskip("threadpoolctl").threadpool_limits
    for (m, n, k), layouts in product(SIZES, product([False, True], repeat=2)):
        a, b = operand(m, k, layouts[0], dtype), operand(k, n, layouts[1], dtype)
        out = RNG.normal(size=(m, n)).astype(dtype)
        factors = np.array([0.3, 0.7], dtype)
        found = set()
        for threads in (1, 2, 3, 7):
            with limits(threads, "blas"):
                found.add(multiplied(a, b, out, factors, threads).tobytes())
        assert len(found) == 1, (m, n, k)


def test_nan_and_infinity_stay_in_their_rows_and_columns() -> None:
    a, b = operand(20, 40, False, "float32"), operand(40, 50, True, "float32")
    a[3, 5], b[7, 49] = np.nan, np.inf
    found = multiplied(a, b, np.empty((20, 50), "float32"))
    assert np.isnan(found[3]).all()
    rest = np.delete(found, 3, 0)
    assert np.isinf(rest[:, 49]).all()
    assert np.isfinite(rest[:, :49]).all()
