"""Arrays of more than 2³¹ elements: reserved address space, of which only few pages are used.

Grids are as large as in real launches, or they are chosen so that the last iteration of the last
block reaches the end of the arrays.  Only the last blocks run.
"""

from __future__ import annotations

import mmap
from math import prod
from typing import Any

import numpy as np
import pytest

from gpumlp.backends.cuda.source import KernelSource
from gpumlp.functions import ACTIVATIONS, OPTIMIZERS
from tests.support.embeddings import with_places
from tests.support.harness.catalogue import (
    CATALOGUE,
    STAGES,
    activation_source,
    loss_source,
    stage_source,
    update_source,
)
from tests.support.harness.compiled import kernel

i32, i64, f32 = np.int32, np.int64, np.float32
MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Python 3.11 lacks the name
ROWS, COLS = (1 << 22) + 5, 1024  # 2³² elements and more
TALL = 65535  # the highest grid
N = 1 << 32
BLOCKS = 1 << 13
LAST = range(BLOCKS - 1, BLOCKS)


def sparse(*shape: int, dtype: Any = np.float16) -> Any:
    """An array of zeros that uses memory only for the pages that are accessed."""
    size = prod(shape) * np.dtype(dtype).itemsize
    try:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        memory = mmap.mmap(-1, size, flags=flags)
    except OSError:
        pytest.skip(f"this system cannot reserve {size >> 30} GiB of address space")
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype).reshape(shape)


def tile(packed: int) -> tuple[tuple[int, int], range]:
    """The grid over (ROWS, COLS) with blocks of (32, 8), and the blocks that reach the end."""
    across = COLS // (32 * (8 if packed else 1))
    # the block row that has the last row in its last iteration
    high = (ROWS - 1) // 8 % TALL
    return (across, TALL), range((high + 1) * across - 1, (high + 1) * across)


@pytest.mark.parametrize("packed", [0, 1])
def test_activation(packed: int) -> None:
    grid, last = tile(packed)
    source, sizes = activation_source("silu", "float16"), (i64(ROWS), i64(COLS), i32(packed))
    z, b = sparse(ROWS, COLS), np.zeros(COLS, np.float16)
    z[-1, -1], b[-2] = 3, 2
    h = ACTIVATIONS["silu"].f(np.array([2.0, 3.0]))
    df = ACTIVATIONS["silu"].df
    assert df is not None
    with_bias = (*sizes[:2], i64(0), sizes[2])
    kernel("bias_activation", source)(grid, (32, 8), (z, b, z, *with_bias), blocks=last)
    np.testing.assert_allclose(z[-1, -3:].astype(float), [0, *h], rtol=1e-3)
    z, partial = sparse(ROWS, COLS), sparse(TALL, COLS, dtype=f32)
    z[-1, -2:] = 2, 3
    db, arrived = np.zeros(COLS, np.float16), sparse(grid[0] * TALL, dtype=np.uint32)
    arguments = (z, z, z, z, partial, db, arrived, *with_bias)
    kernel("activation_gradient", source)(grid, (32, 8), arguments, blocks=last)
    gz = np.array([2.0, 3.0]) * df(np.array([2.0, 3.0]), h)
    np.testing.assert_allclose(z[-1, -3:].astype(float), [0, *gz], rtol=1e-3)
    np.testing.assert_allclose(partial[last.start // grid[0], -3:], [0, *gz], rtol=1e-3)


@pytest.mark.parametrize("packed", [0, 1])
def test_gather(packed: int) -> None:
    grid, last = tile(packed)
    a, index, out = sparse(ROWS, COLS), sparse(ROWS, dtype=i64), sparse(ROWS, COLS)
    a[-2, -1], index[-1] = 7, ROWS - 2
    arguments = (a, index, out, i64(ROWS), i64(COLS), i32(packed))
    kernel("gather", CATALOGUE["float16"]["gather"])(grid, (32, 8), arguments, blocks=last)
    assert out[-1, -1] == 7


@pytest.mark.parametrize("packed", [0, 1])
def test_cast(packed: int) -> None:
    """The last iteration of the last block ends at N.  The first block casts the last three."""
    n = N + 3
    source, out = sparse(n, dtype=np.int8), sparse(n)
    source[-4:] = -3, 4, -5, 6
    cast = kernel("cast", CATALOGUE["float16"]["cast from int8"])
    for blocks in (range(1), LAST):
        cast((BLOCKS, 1), (256, 1), (source, out, i64(n), i32(packed)), blocks=blocks)
    assert out[-4:].tolist() == [-3, 4, -5, 6]


@pytest.mark.parametrize("packed", [0, 1])
def test_softmax(packed: int) -> None:
    source, sizes = activation_source("softmax", "float16"), (i64(ROWS), i64(COLS), i32(packed))
    last = range((ROWS - 1) // 8 % TALL, (ROWS - 1) // 8 % TALL + 1)
    z, b, gh = sparse(ROWS, COLS), np.zeros(COLS, np.float16), sparse(ROWS, COLS)
    b[-1], gh[-1, -1] = 20, 1
    with_bias = (*sizes[:2], i64(0), sizes[2])
    kernel("forward", source)((1, TALL), (32, 8), (z, b, z, *with_bias), blocks=last)
    assert z[-1, -1] == 1
    z[-1, -1] = 0.5
    kernel("vjp", source)((1, TALL), (32, 8), (gh, z, gh, *sizes), blocks=last)
    assert gh[-1, -1] == 0.25


@pytest.mark.parametrize("packed", [0, 1])
@pytest.mark.parametrize("name", ["squared_error", "softmax_cross_entropy"])
def test_loss(name: str, packed: int) -> None:
    """2(ŷ − y) and p − y, with a row whose first element is beyond 2³²."""
    y_hat, gh = sparse(ROWS, COLS), sparse(ROWS, COLS)
    y, weights, S = sparse(ROWS, COLS, dtype=f32), np.ones(ROWS, f32), np.ones(4)
    y_hat[-1, -1], y[-1, -1] = 20, 1
    source, sizes = loss_source(name, "float16", False), (i64(ROWS), i64(COLS), i32(packed))
    if name == "squared_error":
        (grid, last), want = tile(packed), 38
        sizes += (f32(1),)
    else:
        high = (ROWS - 1) // 8 % TALL
        grid, last, want = (1, TALL), range(high, high + 1), 0
        sizes += (i32(0),)
    blocks = grid[0] * grid[1]
    partial, arrived = sparse(blocks + TALL * COLS, dtype=f32), sparse(3 * blocks, dtype=np.uint32)
    db, J, position = np.zeros(COLS, np.float16), np.zeros(1), np.zeros(1, i64)
    with_db = (*sizes[:2], i64(0), *sizes[2:])
    arguments = (y_hat, y, weights, S, gh, partial, db, arrived, J, position, J, i64(0), *with_db)
    kernel("loss_gradient", source)(grid, (32, 8), arguments, blocks=last)
    assert abs(gh[-1, -1] - want) < 1e-5
    assert abs(partial[last.start] - (19**2 if want else 0)) < 1e-5


def test_update() -> None:
    """Entries beyond 2³², and a second slot beyond 2³³."""
    optimizer, source = OPTIMIZERS["adamw"], update_source("adamw", "float16")
    theta, slots = sparse(N, dtype=f32), sparse(2, N, dtype=f32)
    rounded, dtheta = sparse(N), sparse(N)
    dtheta[-1] = 1
    control = np.array([1.0, *optimizer.control(0.5, 1)])
    kernel("update", source)(
        (BLOCKS, 1), (256, 1),
        (theta, rounded, dtheta, slots, control, np.ones(4), control, i64(N), i64(N - 64), f32(1),
         i64(0), i64(N), i64(0)), blocks=LAST,
    )  # fmt: skip
    assert theta[-1] == rounded[-1] == -0.5
    np.testing.assert_allclose(slots[:, -1].astype(float), [0.1, 0.001], rtol=1e-3)


def test_penalty_and_norm() -> None:
    source = CATALOGUE["float16"]["penalty l2"]
    theta, dtheta, partial = sparse(N, dtype=f32), sparse(N), np.zeros(BLOCKS, f32)
    theta[-1], dtheta[-1] = 100, 7
    arrived, J = np.zeros(1, np.uint32), np.zeros(1)
    sizes = (i64(N), i64(N - 64), f32(0.5))
    kernel("penalty", source)(
        (BLOCKS, 1), (256, 1), (theta, dtheta, partial, arrived, J, *sizes, i32(0)), blocks=LAST
    )
    np.testing.assert_allclose(partial[-1], 0.5 * 0.5e-4 * 100**2, rtol=1e-5)
    kernel("clip", source)(
        (BLOCKS, 1), (256, 1),
        (theta, theta, dtheta, np.ones(4), J, partial, arrived, *sizes, np.float64(1), i64(0),
         i64(1)), blocks=LAST,
    )  # fmt: skip
    np.testing.assert_allclose(partial[-1], (7 + 0.5e-4 * 100) ** 2, rtol=1e-5)


@pytest.mark.parametrize(("packed", "lanes"), [(0, 128), (1, 64), (1, 0)])
def test_norm(packed: int, lanes: int) -> None:
    """Row ROWS − 1 is in the last iteration of its block."""
    source, together = stage_source("layer norm", "float16"), 256 // (lanes or 256)
    x, gy, phi = sparse(ROWS, COLS), sparse(ROWS, COLS), np.zeros((2, COLS), np.float16)
    x[-1, -1], gy[-1, -2:], phi[0] = 32, 1, 2
    own = (ROWS - 1) // together % TALL
    last, grid, sizes = range(own, own + 1), (1, TALL), (i64(ROWS), i64(COLS), i64(0))
    forms = i32(packed), i32(lanes)
    partial, arrived = sparse(TALL, 2, COLS, dtype=f32), sparse(TALL, dtype=np.uint32)
    x64, gy64 = (a[-1:].astype(float) for a in (x, gy))
    norm = STAGES["layer norm"]
    want, _ = norm.vjp(x64, phi.astype(float), gy64, **norm.params)
    dphi, gx = np.zeros((2, COLS), np.float16), sparse(ROWS, COLS)
    gx[-1, -1] = 5  # the skip
    want[0, -1] += 5
    arguments = x, phi, gy, gx, gx, partial, dphi, arrived, *sizes, i64(0), i32(1), *forms
    kernel("stage_gradient", source)(grid, (256, 1), arguments, blocks=last)
    np.testing.assert_allclose(gx[-1, -4:].astype(float), want[0, -4:], rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(partial[own, 1, -3:], [0, 1, 1])
    kernel("stage", source)(grid, (256, 1), (x, phi, x, *sizes, *forms), blocks=last)
    y = norm.forward(x64, phi.astype(float), **norm.params)
    np.testing.assert_allclose(x[-1, -3:].astype(float), y[0, -3:], rtol=1e-2)


@pytest.mark.parametrize("packed", [0, 1])
def test_gate(packed: int) -> None:
    grid, last = tile(packed)
    source, sizes = stage_source("gate of silu", "float16"), (i64(ROWS), i64(COLS))
    x, y, gx = sparse(ROWS, 2 * COLS), sparse(ROWS, COLS), sparse(ROWS, 2 * COLS)
    x[-1, COLS - 1], x[-1, -1] = 3, 2
    kernel("stage", source)(grid, (32, 8), (x, y, *sizes, i32(packed)), blocks=last)
    h = ACTIVATIONS["silu"].f(np.array([2.0]))
    np.testing.assert_allclose(y[-1, -2:].astype(float), [0, 3 * h[0]], rtol=1e-3)
    db, arrived = np.zeros(2 * COLS, np.float16), sparse(2 * grid[0] * grid[1], dtype=np.uint32)
    partial = sparse(2, grid[1], COLS, dtype=f32)
    arguments = x, y, gx, partial, db, arrived, *sizes, i64(0), i32(packed)
    kernel("stage_gradient", source)(grid, (32, 8), arguments, blocks=last)
    np.testing.assert_allclose(gx[-1, COLS - 1].astype(float), 3 * h[0] ** 2, rtol=1e-3)
    np.testing.assert_allclose(partial[0, :, -1].sum(), 3 * h[0] ** 2, rtol=1e-3)


@pytest.mark.parametrize("packed", [0, 1])
def test_dropout_and_join(packed: int) -> None:
    source, x = CATALOGUE["float16"]["dropout"], sparse(N)
    x[-16:] = 1
    of = np.random.Philox(counter=[N // 16 - 1, 3, 0, 0], key=[5, 2])
    kept = of.random_raw(4).astype("<u8").view("<u2") >= 32768
    numbers = np.array([5]), np.array([3.0])
    sizes = i64(N), i64(0), i64(2), i64(1), i32(32768), f32(2), i32(1), i32(packed)
    arguments = x, x, *numbers, x, *sizes
    kernel("dropout", source)((BLOCKS, 1), (256, 1), arguments, blocks=LAST)
    np.testing.assert_array_equal(x[-16:], 1 + 2 * kept)
    arguments = x, x, x, i64(N), i32(packed)
    kernel("join", source)((BLOCKS, 1), (256, 1), arguments, blocks=LAST)
    assert x[-1] == 2 + 4 * kept[-1]


def test_embedding() -> None:
    """The last row of a table, and of its gradient."""
    c, d = 1 << 24, 200
    source = KernelSource("embedding.cu", "float16", with_places(1, {0: (c, d)}).cuda())
    x, E, h = np.full((2, 1), c - 1, f32), sparse(c, d), np.zeros((2, d), np.float16)
    E[-1], E[-1, -1] = 2, 3
    kernel("embed", source)((7, 1), (32, 8), (x, E, h, i64(2), i64(0)))
    assert np.array_equal(h, E[[-1, -1]])
    order, sums, g = np.zeros((2, 2), i64), np.zeros((1, 2, d), f32), np.ones((2, d), np.float16)
    numbers = i64(2), i64(0), i64(0), i64(0), i32(2), i32(1)
    kernel("embed_sort", source)((1, 1), (256, 1), (x, order, E, *numbers))
    numbers = i64(0), i64(E.size), i64(0), i64(0), i32(2), i32(1)
    kernel("embed_sort", source)((BLOCKS, 1), (256, 1), (x, order, E, *numbers), blocks=LAST)
    assert not E[-1, -8:].any()
    numbers = i64(2), i64(d), i64(0), i64(0), i64(32), i32(0)
    kernel("embed_sum", source)((1, 1), (256, 1), (order[0], g, E, sums, np.ones(2, f32), *numbers))
    assert (E[-1] == 2).all()
