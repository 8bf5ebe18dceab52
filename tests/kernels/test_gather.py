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
