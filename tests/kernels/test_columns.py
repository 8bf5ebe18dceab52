"""columns.cu and whole_columns.cu, executed on the CPU, against the entry in float64."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from tests.support.harness import nvrtc
from tests.support.harness.catalogue import CATALOGUE, COLUMNS, DTYPES
from tests.support.harness.comparing import (
    NUMPY_TYPE,
    PACK,
    assert_close,
    real_of,
    same_in_every_order,
    strip,
)
from tests.support.harness.compiled import SANITIZE, kernel
from tests.support.harness.memory import aligned, aligned_empty, unaligned

i32, i64 = np.int32, np.int64
NORM = COLUMNS["batch norm"]
SHAPES = [(m, n) for m in (1, 2, 37) for n in (1, 3, 7, 31, 32, 513, 1000)]
WHOLE = [(2, 8), (37, 40), (300, 24), (1024, 8)]
SHAPES, WHOLE = (SHAPES, WHOLE) if SANITIZE != "thread" else ([(9, 72)], [(2, 8)])
EPS, MOMENTUM = NORM.params["eps"], NORM.params["momentum"]


def data(shape: tuple[int, ...], dtype: str, seed: int, at: float = 0.0) -> Any:
    return aligned(np.random.default_rng(seed).normal(at, 2, shape), NUMPY_TYPE[dtype])


def as_float64(*arrays: Any) -> list[Any]:
    return [np.asarray(a).astype(np.float64) for a in arrays]


def accesses(cols: int, dtype: str) -> list[bool]:
    """Whether accesses are of 16 bytes: both kinds, if rows of this width allow it."""
    return [False, True] if cols % PACK[dtype] == 0 else [False]


def check(
    dtype: str, rows: int, cols: int, high: int, packed: bool = False, change: Any = aligned,
    at: float = 0.0, slopes: bool = True, added: bool = False, whole: bool = False,
) -> None:  # fmt: skip
    """Forward and backward pass against NumPy, with the same bits in every order.

    whole: by whole_columns.cu.
    """
    source = CATALOGUE[dtype]["whole batch norm" if whole else "batch norm"]
    real, wide = real_of(dtype), cols + 24
    x, gy = change(data((rows, cols), dtype, 5, at)), change(data((rows, cols), dtype, 7))
    phi, skip = change(data((2, cols), dtype, 6, 1.0)), change(data((rows, cols), dtype, 8))
    each = PACK[dtype] if packed else 1
    across = 1 << max(0, min(5, (-(-cols // each) - 1).bit_length()))
    grid, block = (-(-cols // (each * across)), high), (across, 256 // across)
    if whole:
        block, width = strip(dtype), 32 // NUMPY_TYPE[dtype].itemsize
        grid = -(-cols // width), 1
    shape, share, last = (i64(rows), i64(cols), i64(wide)), real(1 / rows), i32(packed)

    def call(order: int) -> Any:
        def launch(name: str, *arguments: Any, grid: Any = grid, block: Any = block) -> None:
            kernel(name, source)(grid, block, arguments, order=order)

        s, t = (change(np.full((rows, wide), np.nan, real)) for rows in (3, 2))
        running = change(np.array([[0.5] * cols, [2.0] * cols], real))
        y, gx, dphi = (change(np.zeros_like(a)) for a in (x, x, phi))
        own_running = running.copy()
        partial = aligned_empty((4 * high * cols,), real)
        arrived = aligned(np.zeros(4 * grid[0] * (high // 16 + 2)), np.uint32)
        averaged = i32(rows > 1)
        if whole:
            launch("whole_columns", x, phi, s, own_running, y, *shape, averaged)
            launch("whole_columns_gradient", x, phi, gy, s, dphi, skip, gx, *shape, i32(added))
            assert np.isnan(s[:, cols:]).all()
            return s, own_running, own_running, y, gx, dphi
        launch("column_moments", x, s, own_running, partial, arrived, *shape, averaged, last)
        launch("columns", x, phi, s, y, *shape, last)
        sizes = i64(cols), i64(wide), i64(max(rows, 2))
        launch("running_mean", s, running, *sizes, grid=(2, 1), block=(256, 1))
        launch(
            "column_slopes", x, phi, gy, s, t, dphi, partial, arrived, *shape, share, i32(slopes),
            last,
        )  # fmt: skip
        flags = i32(slopes), i32(added), last
        launch("columns_gradient", x, phi, gy, s, t, skip, gx, *shape, *flags)
        assert not arrived.any()
        assert np.isnan(s[:, cols:]).all()
        assert np.isnan(t[:, cols:]).all()
        return s, running, own_running, y, gx, dphi

    s, running, own_running, y, gx, dphi = same_in_every_order(call)
    x64, phi64, gy64 = as_float64(x, phi, gy)
    s64 = np.stack([x64.mean(0), x64.var(0)])
    assert (s[2, :cols] == rows).all()
    s = s[:2, :cols]
    kind = "float64" if real == np.float64 else "float32"
    assert_close(s[0], s64[0], kind, np.abs(x64).max(0))
    assert_close(s[1], s64[1], kind, np.square(x64 - x64[0]).max(0))
    if rows > 1:
        assert own_running.tobytes() == running.tobytes()
    biased = max(rows, 2) / (max(rows, 2) - 1)
    want = 0.9 * np.array([[0.5], [2.0]]) + MOMENTUM * s.astype(float) * [[1], [biased]]
    assert_close(running, want, kind, 1 + np.abs(want))
    normal = (x64 - s64[0]) / np.sqrt(s64[1] + EPS)
    spread = np.sqrt(s64[1] + EPS)
    # the means of large numbers have errors of their own
    off = (1 + np.abs(x64).max(0)) / spread
    assert_close(y, normal * phi64[0] + phi64[1], dtype, 1 + np.abs(normal) + off)
    g = gy64 * phi64[0]
    wanted = g
    if slopes:
        wanted = g - normal * (g * normal).mean(0) - g.mean(0)
    largest = np.abs(g).max(0) * (1 + np.abs(normal).max(0)) ** 2 * (1 + off)
    more = as_float64(skip)[0] if added else 0.0
    assert_close(gx, wanted / spread + more, dtype, largest / spread + np.abs(more))
    terms = [np.abs(gy64 * (1 + np.abs(normal) + off)).sum(0), np.abs(gy64).sum(0)]
    assert_close(dphi, np.stack([(gy64 * normal).sum(0), gy64.sum(0)]), dtype, np.stack(terms))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_batch_norm(rows: int, cols: int, dtype: str) -> None:
    """Odd shapes, and grids both smaller and larger than the data."""
    for packed in accesses(cols, dtype):
        check(dtype, rows, cols, (1, 2, 5)[(rows + cols) % 3], packed)


@pytest.mark.parametrize("dtype", DTYPES)
def test_unaligned_arrays(dtype: str) -> None:
    check(dtype, 9, 32, 2, change=unaligned)


@pytest.mark.parametrize("dtype", DTYPES)
def test_running_statistics_have_no_slopes(dtype: str) -> None:
    check(dtype, 9, 32, 2, packed=True, slopes=False)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_skip_is_added(dtype: str) -> None:
    for packed in (False, True):
        check(dtype, 37, 64, 2, packed, added=True)


@pytest.mark.parametrize("at", [2e3, 1e4, 1e6])
@pytest.mark.parametrize("packed", [False, True])
def test_large_means(packed: bool, at: float) -> None:
    """Squares of differences are added: those of large numbers would cancel all digits."""
    check("float32", 64, 40, 2, packed, at=at)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 37])
def test_a_mean(rows: int, dtype: str) -> None:
    """Of a user's stage, without moments: the mean of x², of 40 rows."""
    source, real, cols, high = CATALOGUE[dtype]["column rms"], real_of(dtype), 32, 3
    x = data((rows, cols), dtype, 5)
    for packed in (False, True):
        across = 32 // PACK[dtype] if packed else 32

        def call(order: int, packed: bool = packed, across: int = across) -> Any:
            mean, arrived = aligned_empty((cols,), real), aligned(np.zeros(3), np.uint32)
            partial = aligned_empty((high * cols,), real)
            arguments = (
                x, mean, mean, partial, arrived, i64(rows), i64(cols), i64(cols), real(1 / 40),
                i32(0), i32(packed),
            )  # fmt: skip
            kernel("column_mean", source)(
                (1, high), (across, 256 // across), arguments, order=order
            )
            return (mean,)

        (mean,) = same_in_every_order(call)
        want = np.square(as_float64(x)[0]).sum(0) / 40
        assert_close(mean, want, "float64" if real == np.float64 else "float32", want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "cols"), WHOLE)
def test_batch_norm_of_a_whole_minibatch(rows: int, cols: int, dtype: str) -> None:
    check(dtype, rows, cols, 1, packed=True, at=100.0, added=cols == 24, whole=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_whole_minibatch_is_read_once(dtype: str) -> None:
    """Counts accesses to entries of 16 bytes in θ's type, of 1024 rows: all are unrolled.

    Beside x, gy and skip, a block reads φ; forward the first row of x, and backward s.
    """
    held = 1024 // strip(dtype)[1]
    size = NUMPY_TYPE[dtype].itemsize * 16 // np.dtype(real_of(dtype)).itemsize
    ptx = nvrtc.ptx(CATALOGUE[dtype]["whole batch norm"], 90)
    for name, loads, others in (("whole_columns", 1, 3), ("whole_columns_gradient", 3, 1)):
        body = ptx.split(f".entry {name}(")[1].split(".entry")[0]
        found = re.findall(r"(ld|st)\.global\.v(\d)\.[a-z](\d+)", body)
        counts = Counter(what for what, n, bits in found if int(n) * int(bits) == 8 * size)
        of_s = 2 if size == 16 and loads == 3 else 0
        assert counts == {"ld": loads * held + others + of_s, "st": held}


@pytest.mark.parametrize("high", [16, 17, 40])
def test_sums_of_many_blocks(high: int) -> None:
    """16 blocks add their sums first; the last group may be of fewer."""
    check("float16", 700, 40, high, packed=True)
