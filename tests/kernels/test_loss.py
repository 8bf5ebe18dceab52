"""loss.cu and cross_entropy.cu, executed on the CPU, against the entries in float64."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np
import pytest

from gpumlp.backends.cuda.source import KernelSource
from gpumlp.functions import LOSSES, Loss
from tests.support.harness.catalogue import DTYPES, loss_source
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
KINDS = ("values", "labels")
CASES = [
    (name, kind)
    for name in LOSSES
    for kind in KINDS
    if not SANITIZE or f"{name} of {kind}" in REPRESENTATIVES
]
ROWS, WIDTHS = (1, 2, 257), (1, 3, 7, 31, 32, 513, 1000)
# a block has up to 256 narrow rows, but 8 wide ones
SHAPES = [(m if n <= 32 else min(m, 37), n) for m in ROWS for n in WIDTHS]
if SANITIZE == "thread":
    SHAPES = [(9, 33)]
elif SANITIZE:  # rows and columns have loops of their own: many of one are enough to see addresses
    SHAPES = [(m, n) for m, n in SHAPES if min(m, n) <= 32]


def over_shapes(cases: list[tuple[str, str]]) -> list[tuple[str, str, int, int]]:
    """Every shape with one of the cases; under a sanitizer, which has few cases, with all."""
    if SANITIZE:
        return [(*case, *shape) for case in cases for shape in SHAPES]
    return [(*case, *shape) for case, shape in zip(cycle(cases), SHAPES, strict=False)]


ELEMENTWISE = over_shapes([case for case in CASES if not LOSSES[case[0]].rowwise])
ROWWISE = over_shapes([case for case in CASES if LOSSES[case[0]].rowwise])


def outputs(loss: Loss, rows: int, cols: int, dtype: str) -> Any:
    """Values that ŷ can have."""
    y_hat = np.random.default_rng(0).normal(0, 2, (rows, cols))
    if loss.name == "negative_log_likelihood":
        y_hat = np.exp(y_hat) / np.exp(y_hat).sum(axis=1, keepdims=True)
    return aligned(y_hat, NUMPY_TYPE[dtype])


def targets(loss: Loss, rows: int, cols: int, dtype: str, kind: str) -> tuple[Any, Any]:
    """y as the kernel reads it, and as rows in float64."""
    rng = np.random.default_rng(1)
    if kind == "labels":
        labels = aligned(rng.integers(0, cols, rows), np.int32)
        return labels, np.eye(cols)[labels]
    y = {
        "real": lambda: rng.normal(size=(rows, cols)),
        "binary": lambda: rng.integers(0, 5, (rows, cols)) / 4,
        "count": lambda: rng.poisson(3.0, (rows, cols)),
        "class": lambda: rng.dirichlet(np.ones(cols), rows),
    }[loss.target]()
    values = aligned(y, real_of(dtype))
    return values, values.astype(np.float64)


def lanes_of(cols: int, dtype: str, packed: bool) -> int:
    """The threads that can share a row of a row-wise loss; 0 if it is too wide for that."""
    narrow, held = (8, 8) if dtype == "float64" else (8, 16)
    lanes = [n for n in (1, 2, 4, 8, 16, 32) if n * narrow >= cols]
    lanes += [n for n in (32, 64) if n * held >= cols] if packed else []
    return lanes[0] if lanes else 0


def launch(
    loss: Loss, source: KernelSource, y_hat: Any, y: Any, weights: Any, high: int,
    order: int = 0, packed: bool = False, change: Any = aligned, S: float = 1.0,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """gh, J with the loss added to 0.5, and db; S: the loss scale.

    The step ends with the launch: the cost of step 1 of 3 becomes J.
    """
    real, (rows, cols) = real_of(source.dtype), y_hat.shape
    if loss.rowwise:
        lanes = lanes_of(cols, source.dtype, packed)
        grid, block, last = (1, high), (32, 8), i32(lanes)
    else:
        lanes, across = 1, min(32, cols)
        x = 1 << (across - 1).bit_length()
        block, last = (x, 256 // x), real(loss.output_scale(cols))
        grid = -(-cols // (x * (PACK[source.dtype] if packed else 1))), high
    sizes = (i64(rows), i64(cols), i32(packed), last)
    gh, db = change(np.zeros_like(y_hat)), aligned_empty((cols,), y_hat.dtype)
    blocks = grid[0] * grid[1]
    partial, alone = aligned_empty((blocks + high * cols,), real), aligned_empty((blocks,), real)
    arrived = aligned(np.zeros(1 + 3 * blocks), np.uint32)
    J, J_alone, position, costs = (
        aligned([0.5]),
        aligned([0.5]),
        aligned([1], i64),
        aligned([0.0] * 3),
    )
    kernel("loss_gradient", source)(
        grid, block,
        (y_hat, y, weights, aligned([S]), gh, partial, db, arrived, J, position, costs, i64(3),
         *sizes[:2], i64(0), *sizes[2:]), order=order,
    )  # fmt: skip
    arguments = (y_hat, y, weights, alone, arrived, J_alone, *sizes)
    kernel("loss", source)(grid, block, arguments, order=order)
    assert J_alone.tobytes() == J.tobytes()
    assert not arrived.any()
    assert (position[0], *costs[[0, 2]]) == (2, 0, 0)
    assert costs[1:2].tobytes() == J.tobytes()
    return gh, J, db if lanes else None


def check(loss: Loss, dtype: str, kind: str, rows: int, cols: int, high: int) -> None:
    """Loss and gradient against NumPy, with the same bits in every order, packed and not packed."""
    for packed in {False, cols % PACK[dtype] == 0}:
        check_access(loss, dtype, kind, rows, cols, high, packed)


def check_access(
    loss: Loss, dtype: str, kind: str, rows: int, cols: int, high: int, packed: bool,
    change: Any = aligned,
) -> None:  # fmt: skip
    """For one kind of access; `change` copies the arrays to aligned or unaligned memory."""
    source = KernelSource(loss.cuda_file, dtype, loss.cuda(), kind == "labels")
    y_hat = outputs(loss, rows, cols, dtype)
    y, y64 = targets(loss, rows, cols, dtype, kind)
    weights = aligned(np.random.default_rng(2).uniform(0.5, 1.5, rows), real_of(dtype))
    inputs = [change(a) for a in (y_hat, y, weights)]
    results = []

    def call(order: int) -> Any:
        results.append(launch(loss, source, *inputs, high, order, packed, change))
        return [a for a in results[-1] if a is not None]

    gh, J, *db = same_in_every_order(call)
    y_hat64, w64 = y_hat.astype(np.float64), weights.astype(np.float64)
    share = w64[:, None] * loss.output_scale(cols)
    size = share * (1 + np.abs(y64) + (0 if loss.rowwise else np.abs(y_hat64)))
    assert_close(gh, share * loss.gradient(y_hat64, y64, **loss.params), dtype, size)
    examples = loss.examples(y_hat64, y64)
    terms = np.sum(w64 * (1 + np.abs(examples) + np.abs(y_hat64).max(axis=1)))
    real = np.dtype(real_of(dtype)).name
    assert_close(J - 0.5, np.array([np.dot(w64, examples)]), real, terms)
    for sums in db:
        gh64 = gh.astype(np.float64)
        assert_close(sums, gh64.sum(axis=0), dtype, np.abs(gh64).sum(axis=0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize(("rows", "cols"), [(19, 31), (3, 1), (19, 40)])
def test_every_loss(name: str, kind: str, dtype: str, rows: int, cols: int) -> None:
    check(LOSSES[name], dtype, kind, rows, cols, high=2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "kind", "rows", "cols"), ELEMENTWISE + ROWWISE)
def test_shapes(name: str, kind: str, dtype: str, rows: int, cols: int) -> None:
    """Odd shapes, and grids both smaller and larger than the data."""
    most = 9 if cols <= 32 else 3  # blocks for each 8 of the rows, and 32 of the columns
    check(LOSSES[name], dtype, kind, rows, cols, high=(1, 2, most)[(rows + cols) % 3])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["huber", "softmax_cross_entropy"])
@pytest.mark.parametrize("kind", KINDS)
def test_unaligned_pointers(name: str, kind: str, dtype: str) -> None:
    check_access(LOSSES[name], dtype, kind, 9, 32, 2, packed=False, change=unaligned)


@pytest.mark.parametrize("kind", KINDS)
def test_label_smoothing(kind: str) -> None:
    check(LOSSES["softmax_cross_entropy"].set(smoothing=0.1), "float64", kind, 19, 7, high=2)


@pytest.mark.parametrize("kind", KINDS)
def test_large_logits(kind: str) -> None:
    """Exponentials that would overflow, or of which all but one vanish."""
    loss, dtype = LOSSES["softmax_cross_entropy"], "float32"
    y_hat = aligned([[1000.0, -1000.0, 0.0], [-5e4, -6e4, -7e4], [1e38, -1e38, 0]], np.float32)
    y, y64 = targets(loss, 3, 3, dtype, kind)
    y64[2], weights = (1, 0, 0), aligned(np.ones(3), np.float32)
    y[2] = 0 if kind == "labels" else (1, 0, 0)
    source = loss_source("softmax_cross_entropy", dtype, kind == "labels")
    gh, J, _ = launch(loss, source, y_hat, y, weights, 1)
    assert_close(gh, loss.gradient(y_hat.astype(np.float64), y64, smoothing=0.0), dtype)
    want = loss.examples(y_hat.astype(np.float64), y64).sum()
    assert_close(J - 0.5, np.array([want]), dtype, 1)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_nan_shows_in_the_loss(name: str, kind: str, dtype: str) -> None:
    """One NaN anywhere in ŷ makes J NaN, as it does in the NumPy backend."""
    loss = LOSSES[name]
    y_hat, (y, _) = outputs(loss, 9, 5, dtype), targets(loss, 9, 5, dtype, kind)
    y_hat[8, 4] = np.nan
    source = loss_source(name, dtype, kind == "labels")
    _, J, _ = launch(loss, source, y_hat, y, aligned(np.ones(9), real_of(dtype)), 2)
    assert np.isnan(J[0])


@pytest.mark.parametrize("name", ["huber", "softmax_cross_entropy"])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_scale(name: str, kind: str) -> None:
    """It multiplies the gradient before the rounding to 16 bits, and it does not multiply J."""
    loss, dtype = LOSSES[name], "float16"
    y_hat, (y, _) = outputs(loss, 9, 5, dtype), targets(loss, 9, 5, dtype, kind)
    source, tiny = loss_source(name, dtype, kind == "labels"), aligned(np.full(9, 1e-8), np.float32)
    gh, J, _ = launch(loss, source, y_hat, y, tiny, 2, S=2.0**16)
    gradient, alone, _ = launch(loss, source, y_hat, y, aligned(np.ones(9), np.float32), 2)
    assert_close(gh, 2.0**16 * 1e-8 * gradient.astype(np.float64), dtype, 1e-3)
    assert abs(J[0] - 0.5 - 1e-8 * (alone[0] - 0.5)) < 1e-13
    vanished, *_ = launch(loss, source, y_hat, y, tiny, 2)
    assert np.count_nonzero(vanished) < np.count_nonzero(gh)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES if not SANITIZE else [])
@pytest.mark.parametrize("cols", [10, 256, 257, 320, 512, 1024, 1032, 2056])
def test_rows_of_classes(cols: int, dtype: str, kind: str) -> None:
    """Rows of a few lanes, of one warp or two, and rows that are read twice."""
    check(LOSSES["softmax_cross_entropy"], dtype, kind, 35, cols, high=3)


@pytest.mark.parametrize("name", ["huber", "softmax_cross_entropy"])
@pytest.mark.parametrize("high", [16, 17, 40])
def test_column_sums_of_many_blocks(name: str, high: int) -> None:
    """16 blocks add their sums first; the last group may be of fewer."""
    check(LOSSES[name], "float16", "values", 700, 12, high)


def test_a_launch_that_does_not_end_the_step() -> None:
    loss, dtype = LOSSES["softmax_cross_entropy"], "float32"
    y_hat, (y, _) = outputs(loss, 5, 3, dtype), targets(loss, 5, 3, dtype, "labels")
    J, position, costs = aligned([0.5]), aligned([1], i64), aligned([7.0, 7.0])
    kernel("loss_gradient", loss_source(loss.name, dtype, True))(
        (1, 1), (32, 8),
        (y_hat, y, aligned(np.ones(5), np.float32), aligned([1.0]), aligned(y_hat),
         aligned_empty((9,), np.float32), aligned_empty((3,), np.float32),
         aligned([0, 0, 0], np.uint32), J, position, costs, i64(0), i64(5), i64(3), i64(0), i32(0),
         i32(1)),
    )  # fmt: skip
    assert J[0] > 0.5
    assert (position.tolist(), costs.tolist()) == ([1], [7, 7])


def test_custom_loss() -> None:
    """An entry that is not in a table."""
    cube = replace(
        LOSSES["squared_error"], name="cube",
        value=lambda y_hat, y: np.abs(y_hat - y) ** 3,
        gradient=lambda y_hat, y: 3 * (y_hat - y) * np.abs(y_hat - y),
        cuda_value="fabs(y_hat - y) * (y_hat - y) * (y_hat - y)",
        cuda_gradient="real(3) * (y_hat - y) * fabs(y_hat - y)",
    )  # fmt: skip
    check(cube, "float64", "values", 5, 3, high=1)
