"""activation.cu and softmax.cu, executed on the CPU, against the entries' NumPy expressions."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
import pytest

from gpumlp.functions import ACTIVATIONS
from tests.support.harness.catalogue import DTYPES, activation_source
from tests.support.harness.comparing import (
    NUMPY_TYPE,
    PACK,
    TOLERANCE,
    assert_close,
    real_of,
    same_in_every_order,
)  # fmt: skip
from tests.support.harness.compiled import REPRESENTATIVES, SANITIZE, kernel
from tests.support.harness.memory import aligned, aligned_empty, unaligned

i32, i64, u32 = np.int32, np.int64, np.uint32
NAMES = [n for n in ACTIVATIONS if not SANITIZE or n in REPRESENTATIVES]
ELEMENTWISE = [n for n in NAMES if ACTIVATIONS[n].elementwise]
ROWS, WIDTHS = (1, 2, 257), (1, 3, 7, 31, 32, 513, 1000)
# a block has up to 256 narrow rows, but 8 wide ones
SHAPES = [(m if n <= 32 else min(m, 37), n) for m in ROWS for n in WIDTHS]
if SANITIZE == "thread":
    SHAPES = [(9, 8)]
elif SANITIZE:  # rows and columns have loops of their own: many of one are enough to see addresses
    SHAPES = [(m, n) for m, n in SHAPES if min(m, n) <= 32]
NAMED_SHAPES = [(name, *shape) for name, shape in zip(cycle(ELEMENTWISE), SHAPES, strict=False)]
BLOCKS = [(32, 8), (64, 4), (256, 1)]


def data(shape: tuple[int, ...], dtype: str, seed: int, spread: float = 2.0) -> Any:
    return aligned(np.random.default_rng(seed).normal(0, spread, shape), NUMPY_TYPE[dtype])


def as_float64(*arrays: Any) -> list[Any]:
    return [np.asarray(a).astype(np.float64) for a in arrays]


class Elementwise:
    """The launches of one elementwise activation on matrices of one shape."""

    def __init__(self, name: str, dtype: str, packed: bool, block: tuple[int, int], high: int):
        self.f, self.dtype, self.packed = ACTIVATIONS[name], dtype, packed
        self.source = activation_source(name, dtype)
        self.block, self.high = block, high

    def forward(self, z: Any, b: Any, h: Any, order: int = 0) -> None:
        launch = kernel("bias_activation", self.source)
        launch(self.grid(z), self.block, (z, b, h, *self.sizes(z, i64(0))), order=order)

    def recompute(self, z: Any, h: Any, order: int = 0) -> None:
        launch = kernel("activation", self.source)
        launch(self.grid(z), self.block, (z, h, *self.sizes(z)), order=order)

    def gradient(self, gh: Any, z: Any, h: Any, gz: Any, order: int = 0) -> Any:
        """The column sums, in the storage type."""
        grid, cols = self.grid(gz), gz.shape[1]
        partial = aligned_empty((grid[1], cols), real_of(self.dtype))
        db, arrived = (
            aligned_empty((cols,), gz.dtype),
            aligned(np.zeros(3 * grid[0] * grid[1]), u32),
        )
        launch = kernel("activation_gradient", self.source)
        arguments = (gh, z, h, gz, partial, db, arrived, *self.sizes(gz, i64(0)))
        launch(grid, self.block, arguments, order=order)
        assert not arrived.any()
        return db

    def grid(self, a: Any) -> tuple[int, int]:
        columns = self.block[0] * (PACK[self.dtype] if self.packed else 1)
        return -(-a.shape[1] // columns), self.high

    def sizes(self, a: Any, *apart: Any) -> tuple[Any, ...]:
        return i64(a.shape[0]), i64(a.shape[1]), *apart, i32(self.packed)


def check_forward(run: Elementwise, rows: int, cols: int, change: Any = aligned) -> None:
    """Forward against NumPy: in every order, z kept and not kept, h computed from z again."""
    source, b = data((rows, cols), run.dtype, 0), change(data((cols,), run.dtype, 1))

    def call(order: int) -> Any:
        z, h = change(source), change(np.zeros_like(source))
        run.forward(z, b, h, order)
        alone = change(source)
        run.forward(alone, b, alone, order)
        assert alone.tobytes() == h.tobytes()
        again = change(np.full_like(source, np.nan))
        run.recompute(z, again, order)
        assert again.tobytes() == h.tobytes()
        return z, h

    z, h = same_in_every_order(call)
    z_in, bias, z64 = as_float64(source, b, z)
    assert_close(z, z_in + bias, run.dtype)
    assert_close(h, run.f.f(z64, **run.f.params), run.dtype)


def check_gradient(run: Elementwise, rows: int, cols: int, change: Any = aligned) -> None:
    """gz and its column sums against NumPy: in every order, gh kept and not kept."""
    z, gh = data((rows, cols), run.dtype, 2), change(data((rows, cols), run.dtype, 3))
    h = change(run.f.f(np.asarray(z, np.float64), **run.f.params).astype(z.dtype))
    z = change(z)
    # arrays that f' does not read are NaN
    unread = change(np.full_like(z, np.nan))
    inputs = [a if letter in run.f.reads else unread for letter, a in (("z", z), ("h", h))]

    def call(order: int) -> Any:
        gz = change(np.zeros_like(gh))
        db = run.gradient(gh, *inputs, gz, order)
        alone = change(gh)
        run.gradient(alone, *inputs, alone, order)
        assert alone.tobytes() == gz.tobytes()
        return gz, db

    gz, db = same_in_every_order(call)
    gh64, z64, h64 = as_float64(gh, z, h)
    assert_close(gz, gh64 * run.f.df(z64, h64, **run.f.params), run.dtype, np.abs(gh64))
    (gz64,) = as_float64(gz)
    assert_close(db, gz64.sum(axis=0), run.dtype, np.abs(gz64).sum(axis=0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize(("rows", "cols", "packed"), [(19, 31, False), (19, 40, True)])
def test_every_activation(name: str, dtype: str, rows: int, cols: int, packed: bool) -> None:
    run = Elementwise(name, dtype, packed, (32, 8), high=2)
    check_forward(run, rows, cols)
    check_gradient(run, rows, cols)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "rows", "cols"), NAMED_SHAPES)
def test_shapes(name: str, dtype: str, rows: int, cols: int) -> None:
    """Odd widths and heights, blocks of all shapes, grids lower and higher than the rows."""
    case = SHAPES.index((rows, cols))
    block = BLOCKS[case % 3] if cols > 7 else (1, 256)
    high = (1, 2, 5)[case % 3]
    for packed in {False, cols % PACK[dtype] == 0}:
        run = Elementwise(name, dtype, packed, block, high)
        check_forward(run, rows, cols)
        check_gradient(run, rows, cols)


@pytest.mark.parametrize("dtype", DTYPES)
def test_unaligned_pointers(dtype: str) -> None:
    run = Elementwise("silu", dtype, False, (32, 8), 2)
    check_forward(run, 9, 32, unaligned)
    check_gradient(run, 9, 32, unaligned)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("high", [1, 15, 16, 17, 40])
@pytest.mark.parametrize("cols", [1, 33, 256])
def test_column_sums_of_many_blocks(dtype: str, high: int, cols: int) -> None:
    """16 blocks add their sums first; the last group may be of fewer."""
    for packed in {False, cols % PACK[dtype] == 0}:
        block = (32, 8) if cols > 1 else (1, 256)
        check_gradient(Elementwise("tanh", dtype, packed, block, high), 333, cols)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_infinities_and_nan(name: str, dtype: str) -> None:
    """NaN stays NaN, and infinities give the same result as in the NumPy backend."""
    run = Elementwise(name, dtype, False, (32, 8), 1)
    real = real_of(dtype)
    z = aligned([[np.nan, np.inf, -np.inf, 0.0, -0.0, 80.0, -80.0]], real)
    b, h, gz = aligned(np.zeros(7), real), aligned(np.zeros((1, 7)), real), aligned(z)
    run.forward(z, b, h)
    with np.errstate(all="ignore"):
        assert_close(h, run.f.f(z, **run.f.params), dtype)
        want = run.f.df(z, h, **run.f.params)
    assert np.isnan(h[0, 0])
    run.gradient(aligned(np.ones((1, 7)), real), z, h, gz)
    assert_close(gz, want, dtype)


# ---- softmax -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_softmax(dtype: str, rows: int, cols: int) -> None:
    for packed in {False, cols % PACK[dtype] == 0}:
        check_softmax(dtype, rows, cols, packed)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_of_unaligned_pointers(dtype: str) -> None:
    check_softmax(dtype, 9, 32, False, unaligned)


def check_softmax(dtype: str, rows: int, cols: int, packed: bool, change: Any = aligned) -> None:
    """h and gz against NumPy: in every order, z and gh kept and not kept."""
    f, source = ACTIVATIONS["softmax"], activation_source("softmax", dtype)
    z_in, b = data((rows, cols), dtype, 5), change(data((cols,), dtype, 6))
    z_in[rows // 2] *= 40  # a row whose exponentials would overflow
    gh = change(data((rows, cols), dtype, 7))
    high = 1 + rows // 20

    def call(order: int) -> Any:
        sizes = (i64(rows), i64(cols), i32(packed))
        with_bias = (*sizes[:2], i64(0), sizes[2])
        z, h, alone = change(z_in), change(np.zeros_like(z_in)), change(z_in)
        forward, vjp = kernel("forward", source), kernel("vjp", source)
        forward((1, high), (32, 8), (z, b, h, *with_bias), order=order)
        forward((1, high), (32, 8), (alone, b, alone, *with_bias), order=order)
        assert alone.tobytes() == h.tobytes()
        gz, in_place = change(np.zeros_like(gh)), change(gh)
        vjp((1, high), (32, 8), (gh, h, gz, *sizes), order=order)
        vjp((1, high), (32, 8), (in_place, h, in_place, *sizes), order=order)
        assert in_place.tobytes() == gz.tobytes()
        return z, h, gz

    z, h, gz = same_in_every_order(call)
    z64, h64, gh64, sum64 = as_float64(z, h, gh, z_in)
    assert_close(z, sum64 + b.astype(np.float64), dtype, np.abs(sum64) + 1)
    assert_close(h, f.f(z64), dtype, 1e-3 if dtype == "float16" else 0.1)
    largest = np.abs(gh64).max(axis=1, keepdims=True)
    assert f.vjp is not None
    assert_close(gz, f.vjp(z64, h64, gh64), dtype, largest * h64.max(axis=1, keepdims=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_of_masked_entries(dtype: str) -> None:
    """z = −inf gives 0, and no gradient; a row of nothing else is NaN, as is one with +inf."""
    f, source = ACTIVATIONS["softmax"], activation_source("softmax", dtype)
    z = data((5, 40), dtype, 5)
    z[:, 33:] = -np.inf
    z[2], z[3, 1], z[4, :39] = -np.inf, np.inf, -np.inf
    b, gh = aligned(np.zeros(40), NUMPY_TYPE[dtype]), data((5, 40), dtype, 7)
    sizes = (i64(5), i64(40), i32(0))
    z64, h, gz = z.astype(np.float64), aligned(np.zeros_like(z)), aligned(np.zeros_like(z))
    z64[4, 39] = z[4, 39] = 1
    kernel("forward", source)((1, 1), (32, 8), (z, b, h, *sizes[:2], i64(0), sizes[2]))
    kernel("vjp", source)((1, 1), (32, 8), (gh, h, gz, *sizes))
    with np.errstate(all="raise"):  # no warning of −inf − (−inf)
        want = f.f(z64)
    kept = [0, 1, 4]
    assert_close(h[kept], want[kept], dtype, 1e-3 if dtype == "float16" else 0.1)
    assert not h[:2, 33:].any()
    assert not gz[:2, 33:].any()
    assert h[4].tolist() == [0] * 39 + [1]
    assert np.isnan(want[2:4]).any(axis=1).all()
    assert np.isnan(h[2:4].astype(float)).any(axis=1).all()


def test_tolerances_are_tight() -> None:
    """A result with an error of two roundings of its storage type, or NaN, does not pass."""
    for dtype, tolerance in TOLERANCE.items():
        assert_close(np.ones(1), np.ones(1), dtype, 0)
        for wrong in (1 + 2 * tolerance, np.nan, np.inf):
            with pytest.raises(AssertionError):
                assert_close(np.array([wrong]), np.ones(1), dtype, 0)
