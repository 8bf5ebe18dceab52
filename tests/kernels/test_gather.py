"""gather.cu, executed on the CPU, against NumPy's indexing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.harness.catalogue import CATALOGUE, DTYPES
from tests.support.harness.comparing import NUMPY_TYPE, assert_close, real_of, same_in_every_order
from tests.support.harness.compiled import kernel
from tests.support.harness.memory import aligned, aligned_empty

i32, i64 = np.int32, np.int64
SHAPES = [(m, n) for m in (1, 2, 257) for n in (1, 3, 7, 31, 32, 513, 1000)]


@pytest.mark.parametrize("dtype", [*DTYPES, "int32"])
@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_gather(dtype: str, rows: int, cols: int) -> None:
    rng, numpy_type = np.random.default_rng(0), NUMPY_TYPE.get(dtype, np.dtype(dtype))
    source = aligned(rng.normal(0, 100, (50, cols)), numpy_type)
    index = aligned(rng.integers(0, 50, rows), i64)
    index[-1] = 49
    pack, high = 16 // numpy_type.itemsize, (1, 2, 5)[cols % 3]

    def call(order: int, packed: bool, shift: int) -> Any:
        out = aligned_empty((rows * cols + shift,), numpy_type)[shift:].reshape(rows, cols)
        tall = cols == 1
        block = (1, 256) if tall else (32, 8)
        across = -(-cols // (block[0] * (pack if packed else 1)))
        arguments = (source, index, out, i64(rows), i64(cols), i32(packed))
        kernel("gather", CATALOGUE[dtype]["gather"])((across, high), block, arguments, order=order)
        return (out,)

    for packed in {False, cols % pack == 0}:
        (out,) = same_in_every_order(lambda order, packed=packed: call(order, packed, 0))
        assert out.tobytes() == source[index].tobytes()
    (unaligned,) = call(0, False, 1)
    assert unaligned.tobytes() == source[index].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 7, 257, 1000])
def test_mean_weights(dtype: str, n: int) -> None:
    rng = np.random.default_rng(1)
    real = np.dtype(real_of(dtype))
    weights = aligned(rng.uniform(0, 2, 300), real)
    index = aligned(rng.integers(0, 300, n), i64)

    def call(order: int) -> Any:
        out = aligned_empty((n,), weights.dtype)
        kernel("mean_weights", CATALOGUE[dtype]["gather"])(
            (1, 1), (256, 1), (weights, index, out, i64(n)), order=order
        )
        return (out,)

    (out,) = same_in_every_order(call)
    chosen = weights.astype(np.float64)[index]
    assert_close(out, chosen / chosen.sum(), real.name, 1 / n)
    assert_close(out.sum(), np.float64(1), real.name)


def test_zero_sum_of_weights() -> None:
    """Then all shares are 0, not NaN.  A single weight above 0 gets the whole mean."""
    weights, index = aligned(np.zeros(9), np.float32), aligned(np.arange(9), i64)
    for last, share in ((0.0, 0.0), (2.0, 1.0)):
        weights[8] = last
        out = aligned_empty((9,), np.float32)
        mean_weights = kernel("mean_weights", CATALOGUE["float32"]["gather"])
        mean_weights((1, 1), (256, 1), (weights, index, out, i64(9)))
        assert out.tolist() == [0.0] * 8 + [share]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "x_cols", "y_cols", "weighted"),
    [(5, 40, 0, True), (37, 3, 16, True), (300, 1, 5, False)],
)
def test_begin_minibatch(rows: int, x_cols: int, y_cols: int, weighted: bool, dtype: str) -> None:
    """It does `begin`, gathers rows of x and of y, labels if y_cols is 0, and makes shares."""
    rng, real = np.random.default_rng(2), real_of(dtype)
    all_x = aligned(rng.normal(size=(700, x_cols)), NUMPY_TYPE[dtype])
    labels = y_cols == 0
    y_shape = (700,) if labels else (700, y_cols)
    all_y = aligned(rng.integers(0, 99, y_shape), i32 if labels else real)
    all_weights = aligned(rng.uniform(0, 2, 700), real)
    order, controls = aligned(rng.permutation(700), i64), aligned(rng.normal(size=(3, 6)))
    packs = [16 // all_x.itemsize, 16 // all_y.itemsize]
    columns = (x_cols, max(1, y_cols))
    packed = [n % pack == 0 for n, pack in zip(columns, packs, strict=True)]
    threads = [n // pack if p else n for n, pack, p in zip(columns, packs, packed, strict=True)]
    lanes = [min(32, 1 << (n - 1).bit_length()) for n in threads]
    tiles = [-(-n // each) for n, each in zip(threads, lanes, strict=True)]

    def call(order_of_blocks: int) -> Any:
        index, control, J = aligned_empty((rows,), i64), aligned_empty((4,), float), aligned([5.0])
        factors, x = aligned_empty((2,), real), aligned_empty((rows, x_cols), all_x.dtype)
        y, weights = aligned_empty((rows, *y_shape[1:]), all_y.dtype), aligned_empty((rows,), real)
        kernel("begin_minibatch", CATALOGUE[dtype]["step with labels" if labels else "step"])(
            (sum(tiles) + 1, 2), (256, 1),
            (aligned([1], i64), order, controls, index, control, factors, J, all_x, x, all_y, y,
             all_weights, weights, *map(i64, (320, rows, 4, 1, *columns)),
             *map(i32, (*packed, tiles[0], *lanes, weighted))), order=order_of_blocks,
        )  # fmt: skip
        return index, control, factors, J, x, y, weights

    index, control, factors, J, x, y, weights = same_in_every_order(call)
    own = order[320 : 320 + rows]
    assert index.tolist() == own.tolist()
    assert (*control, J[0]) == (*controls[1, :4], 0)
    assert factors.tolist() == controls[1, 4:].astype(real).tolist()
    assert (x.tobytes(), y.tobytes()) == (all_x[own].tobytes(), all_y[own].tobytes())
    if weighted:
        chosen = all_weights[own].astype(np.float64)
        assert_close(weights, chosen / chosen.sum(), np.dtype(real).name, 1 / rows)
    else:
        assert np.isnan(weights).all()
