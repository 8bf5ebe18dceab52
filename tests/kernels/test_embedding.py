"""embedding.cu, executed on the CPU, against sums in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.harness.catalogue import CATALOGUE, DTYPES, EMBEDDINGS
from tests.support.harness.comparing import (
    NUMPY_TYPE,
    PACK,
    assert_close,
    real_of,
    same_in_every_order,
)
from tests.support.harness.compiled import SANITIZE, kernel
from tests.support.harness.memory import aligned, aligned_empty

i32, i64 = np.int32, np.int64
PLAIN, ADDED, WIDTH = 2, 43, 45
ENTRIES = EMBEDDINGS.starts[-1] + 8
# a sanitizer needs 15 times as long, and sees addresses and orders alone
ROWS = {"": (1, 2, 37, 100, 257), "thread": (9,)}.get(SANITIZE, (1, 257))


def data(rows: int, dtype: str, kinds: int = 70_000) -> Any:
    """x with codes, of which about half are equal, and E."""
    rng = np.random.default_rng(rows)
    x = rng.normal(size=(rows, 5))
    for one in EMBEDDINGS.each:
        codes = rng.integers(0, min(one.c, kinds), rows)
        x[:, one.column] = np.where(rng.random(rows) < 0.5, codes, one.c - 1)
    E = rng.integers(-99, 99, ENTRIES) / 8
    return aligned(x, real_of(dtype)), aligned(E, NUMPY_TYPE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", ROWS)
def test_embed(rows: int, dtype: str) -> None:
    x, E = data(rows, dtype)

    def call(order: int) -> Any:
        h = aligned_empty((rows, WIDTH), NUMPY_TYPE[dtype])
        launch = kernel("embed", CATALOGUE[dtype]["embedding"])
        launch((2, 1 + rows % 3, 1), (16, 16), (x, E, h, i64(rows), i64(0)), order=order)
        return (h,)

    (h,) = same_in_every_order(call)
    want = [x[:, EMBEDDINGS.plain].astype(h.dtype)]
    for one, start in zip(EMBEDDINGS.each, EMBEDDINGS.starts, strict=True):
        table = E[start : start + one.c * one.d].reshape(one.c, one.d)
        want.append(table[x[:, one.column].astype(int)])
    assert np.array_equal(h.astype(float), np.hstack(want).astype(float))


def gradient(
    x: Any, g: Any, dtype: str, size: int, each: int, blocks: int, order: int, packed: bool,
    factors: Any = None,
) -> tuple[Any, Any]:  # fmt: skip
    """dE and the order of the codes, by all launches; dE begins with 9."""
    rows, width = g.shape
    of = {
        name: kernel(name, CATALOGUE[dtype]["embedding"])
        for name in ("embed_sort", "embed_merge", "embed_sum", "embed_join")
    }
    now, later = (aligned(np.full((3, rows), -1), i64) for _ in range(2))
    dE = aligned(np.full(ENTRIES, 9), NUMPY_TYPE[dtype])
    sums = aligned_empty((-(-rows // each), 2, ADDED), real_of(dtype))
    shape, one = (blocks, 1, 1), (256, 1)
    adds, n = i32(factors is not None), ENTRIES if factors is None else 0
    factors = aligned([1, 1] if factors is None else factors, real_of(dtype))
    numbers = i64(rows), i64(n), i64(0), i64(0), i32(size), i32(packed)
    of["embed_sort"](shape, one, (x, now, dE, *numbers), order=order)
    run = size
    while run < rows:
        of["embed_merge"](shape, one, (now, later, i64(rows), i64(0), i64(run)), order=order)
        now, later, run = later, now, 2 * run
    tall, last = (blocks, 3, 1), (i64(0), i64(0), i64(each), adds)
    arguments = now, g, dE, sums, factors, i64(rows), i64(width), *last
    of["embed_sum"](tall, one, arguments, order=order)
    of["embed_join"](tall, one, (now, dE, sums, factors, i64(rows), *last), order=order)
    return dE, now


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("size", "each", "blocks"), [(4, 4, 2), (16, 32, 1), (1024, 8, 3)], ids=str
)
@pytest.mark.parametrize("rows", ROWS)
def test_embed_gradient(rows: int, size: int, each: int, blocks: int, dtype: str) -> None:
    """Codes within a part, on its border, and over many parts; g alone, and with columns before."""
    x, _ = data(rows, dtype, 5 if size == 4 else 70_000)
    width = ADDED + rows % 2 * PLAIN
    g = aligned(np.random.default_rng(1).normal(size=(rows, width)), NUMPY_TYPE[dtype])
    dE, keys = same_in_every_order(
        lambda order: gradient(x, g, dtype, size, each, blocks, order, rows % 2 == 0)
    )
    want, terms = np.zeros(ENTRIES), np.zeros(ENTRIES)
    g64 = g.astype(float)[:, width - ADDED :]
    for t, (one, start) in enumerate(zip(EMBEDDINGS.each, EMBEDDINGS.starts, strict=True)):
        codes = x[:, one.column].astype(int)
        by_code = np.argsort(codes, kind="stable")
        assert np.array_equal(keys[t], codes[by_code] << 32 | by_code)
        place = slice(EMBEDDINGS.places[t] - PLAIN, EMBEDDINGS.places[t + 1] - PLAIN)
        for out, rows_of in ((want, g64), (terms, np.abs(g64))):
            table = out[start : start + one.c * one.d].reshape(one.c, one.d)
            np.add.at(table, codes, rows_of[:, place])
    assert_close(dE, want, dtype, terms)
    assert (dE.astype(float)[terms == 0] == 0).all()
    if dtype in ("float64", "float32"):  # E itself, which begins with 9
        own, _ = gradient(x, g, dtype, size, each, blocks, 0, False, [-0.5, 1])
        assert_close(own, 9 - 0.5 * want, dtype, 9 + terms)
        assert (own[terms == 0] == 9).all()


def test_packed_zeros_need_whole_packs() -> None:
    assert ENTRIES % PACK["float16"] == 0
