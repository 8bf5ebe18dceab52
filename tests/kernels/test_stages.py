"""stage.cu, gate.cu and dropout.cu, executed on the CPU, against the entries in float64."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
import pytest

from tests.support.harness.catalogue import CATALOGUE, DTYPES, STAGES, stage_source
from tests.support.harness.comparing import (
    NUMPY_TYPE,
    PACK,
    assert_close,
    real_of,
    same_in_every_order,
)
from tests.support.harness.compiled import REPRESENTATIVES, SANITIZE, kernel
from tests.support.harness.memory import aligned, aligned_empty, unaligned

i32, i64 = np.int32, np.int64
NORMS = [name for name in STAGES if name.endswith("norm")]
GATES = [n for n in STAGES if n.startswith("gate") and (not SANITIZE or n in REPRESENTATIVES)]
ROWS, WIDTHS = (1, 2, 37), (1, 3, 7, 31, 32, 513, 1000)
SHAPES = [(m, n) for m in ROWS for n in WIDTHS] if SANITIZE != "thread" else [(9, 72)]
NAMED_SHAPES = [(name, *shape) for name, shape in zip(cycle(GATES), SHAPES, strict=False)]


def data(shape: tuple[int, ...], dtype: str, seed: int, at: float = 0.0) -> Any:
    return aligned(np.random.default_rng(seed).normal(at, 2, shape), NUMPY_TYPE[dtype])


def as_float64(*arrays: Any) -> list[Any]:
    return [np.asarray(a).astype(np.float64) for a in arrays]


def accesses(cols: int, dtype: str) -> list[bool]:
    """Whether accesses are of 16 bytes: both kinds, if rows of this width allow it."""
    return [False, True] if cols % PACK[dtype] == 0 else [False]


# ---- norms -------------------------------------------------------------------------------------


def lanes_of(cols: int, dtype: str, packed: bool) -> int:
    """The threads that share a row; 0 if it is too wide for a block."""
    held = 16 if packed and dtype != "float64" else 8
    return next((n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256) if n * held >= cols), 0)


def check_norm(
    name: str, dtype: str, rows: int, cols: int, high: int, packed: bool = False,
    change: Any = aligned, at: float = 0.0, lanes: int | None = None,
) -> None:  # fmt: skip
    """Forward and backward pass against NumPy, in place too, with the same bits in every order."""
    stage, source, p = STAGES[name], stage_source(name, dtype), len(STAGES[name].initial)
    lanes = lanes_of(cols, dtype, packed) if lanes is None else lanes
    x, gy = change(data((rows, cols), dtype, 5, at)), change(data((rows, cols), dtype, 7))
    phi, skip = change(data((p, cols), dtype, 6, 1.0)), change(data((rows, cols), dtype, 8))
    shape, last = (i64(rows), i64(cols)), (i32(packed), i32(lanes))

    def call(order: int) -> Any:
        y, gx = change(np.zeros_like(x)), change(np.zeros_like(x))
        dphi, in_place = change(np.zeros_like(phi)), change(x)
        partial = aligned_empty((high * p * cols,), real_of(dtype))
        arrived = aligned(np.zeros(high // 16 + 2), np.uint32)
        launch, gradient = kernel("stage", source), kernel("stage_gradient", source)
        launch((1, high), (256, 1), (x, phi, y, *shape, i64(0), *last), order=order)
        launch((1, high), (256, 1), (in_place, phi, in_place, *shape, i64(0), *last), order=order)
        assert in_place.tobytes() == y.tobytes()
        shapes = *shape, i64(0), i64(0)
        arguments = x, phi, gy, x, gx, partial, dphi, arrived, *shapes, i32(0), *last
        gradient((1, high), (256, 1), arguments, order=order)
        assert not arrived.any()
        again, joined = change(np.zeros_like(phi)), change(skip)
        arguments = x, phi, gy, joined, joined, partial, again, arrived, *shapes, i32(1), *last
        gradient((1, high), (256, 1), arguments, order=order)
        assert again.tobytes() == dphi.tobytes()
        return y, gx, dphi, joined

    y, gx, dphi, joined = same_in_every_order(call)
    x64, phi64, gy64 = as_float64(x, phi, gy)
    assert_close(y, stage.forward(x64, phi64, **stage.params), dtype, 1 + abs(at) / 8)
    want, sums = stage.vjp(x64, phi64, gy64, **stage.params)
    centred = x64 - (x64.mean(-1, keepdims=True) if p == 2 else 0)
    spread = np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5)
    normal, largest = 1 + np.abs(centred / spread), np.abs(gy64 * phi64[0]).max(-1, keepdims=True)
    size = largest * normal.max(-1, keepdims=True) / spread * (1 + abs(at))
    assert_close(gx, want, dtype, size)
    (skip64,) = as_float64(skip)
    assert_close(joined, want + skip64, dtype, size + np.abs(skip64))
    terms = [np.abs(gy64 * normal).sum(0), np.abs(gy64).sum(0)][:p]
    assert_close(dphi, sums, dtype, np.stack(terms) * (1 + abs(at)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "cols"), SHAPES)
@pytest.mark.parametrize("name", NORMS)
def test_norms(name: str, rows: int, cols: int, dtype: str) -> None:
    """Odd shapes, and grids both smaller and larger than the data."""
    for packed in accesses(cols, dtype):
        check_norm(name, dtype, rows, cols, (1, 2, 5)[(rows + cols) % 3], packed)


@pytest.mark.parametrize("dtype", DTYPES if not SANITIZE else [])
@pytest.mark.parametrize("cols", [2048, 2049, 4096, 4104])
@pytest.mark.parametrize("name", NORMS)
def test_wide_norms(name: str, cols: int, dtype: str) -> None:
    """Rows that a block just holds, and rows that it reads repeatedly."""
    for packed in accesses(cols, dtype):
        check_norm(name, dtype, 3, cols, 2, packed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NORMS)
def test_norms_of_rows_read_repeatedly(name: str, dtype: str) -> None:
    for cols in (7, 40):
        for packed in accesses(cols, dtype):
            check_norm(name, dtype, 9, cols, 2, packed, lanes=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NORMS)
def test_norms_of_unaligned_arrays(name: str, dtype: str) -> None:
    check_norm(name, dtype, 9, 32, 2, change=unaligned)


@pytest.mark.parametrize("lanes", [None, 0])
@pytest.mark.parametrize("name", NORMS)
def test_norm_of_a_large_mean(name: str, lanes: int | None) -> None:
    """The mean is subtracted before squares are added, which would cancel all digits."""
    check_norm(name, "float32", 9, 40, 2, packed=True, at=2000.0, lanes=lanes)


@pytest.mark.parametrize("high", [16, 17, 40])
def test_sums_of_many_blocks(high: int) -> None:
    """16 blocks add their sums first; the last group may be of fewer."""
    check_norm("layer norm", "float16", 700, 40, high, packed=True)


def test_nan_shows_in_its_row() -> None:
    x, phi = data((9, 40), "float32", 5), data((2, 40), "float32", 6)
    x[4, 39] = np.nan
    y = aligned_empty(x.shape, x.dtype)
    arguments = x, phi, y, i64(9), i64(40), i64(0), i32(1), i32(4)
    kernel("stage", stage_source("layer norm", "float32"))((1, 1), (256, 1), arguments)
    assert np.isnan(y).any(axis=1).tolist() == [i == 4 for i in range(9)]


# ---- gates -------------------------------------------------------------------------------------


def check_gate(
    name: str, dtype: str, rows: int, cols: int, packed: bool, change: Any = aligned,
    high: int = 0,
) -> None:  # fmt: skip
    """Forward and backward pass against NumPy, with the same bits in every order and in place."""
    stage, source = STAGES[name], stage_source(name, dtype)
    x, gy = change(data((rows, 2 * cols), dtype, 5)), change(data((rows, cols), dtype, 7))
    if stage.cuda_f and stage.cuda_f.name == "exponential":
        x /= 4
    block, shape = (32, 8), (i64(rows), i64(cols))
    grid = -(-cols // (32 * (PACK[dtype] if packed else 1))), high or 1 + rows // 20

    def call(order: int) -> Any:
        y, gx, in_place = change(np.zeros_like(gy)), change(np.zeros_like(x)), change(x)
        kernel("stage", source)(grid, block, (x, y, *shape, i32(packed)), order=order)
        sums = []
        for own, to in ((x, gx), (in_place, in_place)):
            db = change(np.ones(2 * cols, x.dtype))
            partial = aligned_empty((2 * grid[1] * cols,), real_of(dtype))
            arrived = aligned(np.zeros(2 * grid[0] * (grid[1] // 16 + 2)), np.uint32)
            arguments = own, gy, to, partial, db, arrived, *shape, i64(0), i32(packed)
            kernel("stage_gradient", source)(grid, block, arguments, order=order)
            assert not arrived.any()
            sums.append(db)
        assert in_place.tobytes() == gx.tobytes()
        assert sums[0].tobytes() == sums[1].tobytes()
        return y, gx, sums[0]

    y, gx, db = same_in_every_order(call)
    x64, gy64 = as_float64(x, gy)
    a, b = np.split(x64, 2, axis=1)
    assert_close(y, stage.forward(x64, None), dtype, np.abs(a) * (1 + np.abs(b)))
    want, sums = stage.vjp(x64, None, gy64)
    size = np.abs(np.concatenate([gy64 * (1 + np.abs(b)), gy64 * a * (1 + np.abs(b))], axis=1))
    assert_close(gx, want, dtype, size)
    assert_close(db, sums, dtype, size.sum(0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", GATES)
def test_every_gate(name: str, dtype: str) -> None:
    check_gate(name, dtype, 19, 40, packed=True)
    check_gate(name, dtype, 19, 31, packed=False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "rows", "cols"), NAMED_SHAPES)
def test_gates_of_shapes(name: str, rows: int, cols: int, dtype: str) -> None:
    for packed in accesses(cols, dtype):
        check_gate(name, dtype, rows, cols, packed)


@pytest.mark.parametrize("high", [16, 17, 40])
def test_column_sums_of_a_gate_by_many_blocks(high: int) -> None:
    check_gate("gate of silu", "float16", 700, 40, packed=True, high=high)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gates_of_unaligned_arrays(dtype: str) -> None:
    check_gate("gate of silu", dtype, 9, 32, packed=False, change=unaligned)


# ---- dropout and skips -------------------------------------------------------------------------


def kept(seed: int, layer: int, step: int, origin: int, n: int, threshold: int) -> Any:
    """Whether each of n entries from entry `origin` of the minibatch on is kept."""
    first, bits, key = origin // 16, [], np.array([seed % 2**64, layer], np.uint64)
    for output in range(first, (origin + n) // 16 + 1):  # NumPy's first output is of the next one
        of = np.random.Philox(counter=[output, step, 0, 0], key=key)
        bits.append(of.random_raw(4).astype("<u8").view("<u2"))
    return np.concatenate(bits)[origin - 16 * first :][:n] >= threshold


def dropped(
    x: Any, y: Any, dtype: str, origin: int, packed: bool, seed: int = -3, layer: int = 2,
    threshold: int = 20000, blocks: int = 2, order: int = 0, networks: int = 1, skip: Any = None,
) -> Any:  # fmt: skip
    scale = real_of(dtype)(65536 / (65536 - threshold))
    control = aligned([0.5, 0.25, 7.0] * networks)  # of step 7
    seeds = aligned([seed + i for i in range(networks)], i64)
    kernel("dropout", CATALOGUE[dtype]["dropout"])(
        (blocks, 1, networks), (256, 1),
        (x, x if skip is None else skip, seeds, control, y, i64(x.size // networks), i64(origin),
         i64(layer), i64(3), i32(threshold), scale, i32(skip is not None), i32(packed)),
        order=order,
    )  # fmt: skip
    return scale


def check_dropout(dtype: str, n: int, origin: int, packed: bool, change: Any = aligned) -> None:
    x = change(data((n,), dtype, 5))
    x[:: max(1, n // 9)] = np.inf
    x[1 :: max(1, n // 7)] = np.nan

    def call(order: int) -> Any:
        y, in_place = change(np.ones_like(x)), change(x)
        dropped(x, y, dtype, origin, packed, order=order)
        dropped(in_place, in_place, dtype, origin, packed, order=order)
        assert in_place.tobytes() == y.tobytes()
        return [y]

    (y,) = same_in_every_order(call)
    scale = real_of(dtype)(65536 / (65536 - 20000))
    with np.errstate(invalid="ignore"):
        scaled = (x.astype(real_of(dtype)) * scale).astype(x.dtype)
    want = np.where(kept(-3, 2, 7, origin, n, 20000), scaled, np.zeros_like(x))
    np.testing.assert_array_equal(y.astype(np.float64), want.astype(np.float64))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 7, 16, 513, 4096, 9001] if not SANITIZE else [7, 513])
def test_masks_are_those_of_numpy(n: int, dtype: str) -> None:
    """To the bit, for every first entry: rows of odd widths begin anywhere in an output."""
    for origin in (0, 1, 3, 8, 21, 4096, (1 << 40) + 24):
        for packed in {False, origin % PACK[dtype] == 0}:
            check_dropout(dtype, n, origin, packed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 7, 16, 513] if not SANITIZE else [513])
def test_dropout_adds_a_skip(n: int, dtype: str) -> None:
    """Also to what is dropped; y may be the skip."""
    x, skip = data((n,), dtype, 5), data((n,), dtype, 7)
    for origin in (0, 3, 8):
        for packed in {False, origin % PACK[dtype] == 0}:
            y, in_place = aligned_empty((n,), x.dtype), aligned(skip)
            scale = dropped(x, y, dtype, origin, packed, skip=skip)
            dropped(x, in_place, dtype, origin, packed, skip=in_place)
            assert in_place.tobytes() == y.tobytes()
            x64, skip64 = as_float64(x, skip)
            own = np.where(kept(-3, 2, 7, origin, n, 20000), x64 * float(scale), 0)
            assert_close(y, own + skip64, dtype, np.abs(own) + np.abs(skip64))


@pytest.mark.parametrize("dtype", DTYPES)
def test_masks_of_unaligned_arrays(dtype: str) -> None:
    check_dropout(dtype, 99, 8, packed=False, change=unaligned)


@pytest.mark.parametrize("dtype", DTYPES)
def test_masks_of_several_networks(dtype: str) -> None:
    x = data((3, 80), dtype, 5)
    y = aligned_empty(x.shape, x.dtype)
    dropped(x, y, dtype, 16, packed=True, networks=3)
    for i in range(3):
        own = aligned_empty((80,), x.dtype)
        dropped(aligned(x[i]), own, dtype, 16, packed=True, seed=i - 3)
        assert own.tobytes() == y[i].tobytes()


@pytest.mark.parametrize("rate", [0, 1, 32768, 65535])
def test_the_share_that_is_dropped(rate: int) -> None:
    """0 keeps all; the extremes of 2⁻¹⁶ and 1 − 2⁻¹⁶ scale what they keep."""
    x, n = aligned(np.ones(20000), np.float32), 20000
    y = aligned_empty((n,), np.float32)
    scale = dropped(x, y, "float32", 0, packed=True, threshold=rate)
    p = rate / 65536
    assert abs((y == 0).mean() - p) <= 4 * np.sqrt(p * (1 - p) / n)
    assert set(np.unique(y)) <= {0, scale}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 7, 32, 1001])
def test_join(n: int, dtype: str) -> None:
    x, skip = data((n,), dtype, 5), data((n,), dtype, 7)
    want = (x.astype(real_of(dtype)) + skip.astype(real_of(dtype))).astype(x.dtype)
    for packed in (False, True):
        for to in (aligned_empty((n,), x.dtype), aligned(x)):
            first = to if np.array_equal(to, x) else x
            arguments = first, skip, to, i64(n), i32(packed)
            kernel("join", CATALOGUE[dtype]["dropout"])((2, 1), (256, 1), arguments)
            assert to.tobytes() == want.tobytes()
    if n > 1:
        x, skip, to = unaligned(x), unaligned(skip), unaligned(np.zeros_like(x))
        arguments = x, skip, to, i64(n), i32(0)
        kernel("join", CATALOGUE[dtype]["dropout"])((2, 1), (256, 1), arguments)
        assert to.tobytes() == want.tobytes()
