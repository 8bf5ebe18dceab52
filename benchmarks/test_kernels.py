"""Kernels whose speed memory limits, compared with a copy of as many bytes: "share_of_copy".

Each kernel is checked on some rows before it is timed.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import gpumlp
from benchmarks.suite import COLS, MEGABYTES, backend, empty, normal, timed
from gpumlp.functions.stages import gate
from gpumlp.step.chunked import UNSCALED

TOLERANCE = {"float64": 1e-10, "float32": 1e-4, "tf32": 1e-4, "bfloat16": 0.05, "float16": 0.01}


def rows_of(item: int) -> int:
    """The number of rows for which the largest array has MEGABYTES."""
    return max(64, (MEGABYTES << 20) // (COLS * item))


def close(where: Any, got: Any, want: Any) -> None:
    """Check that entries differ only by rounding, relative to the largest entry."""
    atol = TOLERANCE[where.precision] * float(np.abs(want).max())
    np.testing.assert_allclose(where.to_host(got).astype(np.float64), want, rtol=0, atol=atol)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "mish"])
def test_activation_gradient_and_bias_sum(benchmark: Any, activation: str) -> None:
    """gz ← gh ⊙ f'(z), db ← column sums. The kernel reads gh and z or h, and writes gz."""
    where, f = backend(), gpumlp.ACTIVATIONS[activation]
    rows = rows_of(where.storage.itemsize)
    z, gh = normal(where, rows, COLS), normal(where, rows, COLS)
    h, gz, db = empty(where, *z.shape), empty(where, *z.shape), empty(where, COLS)
    where.activation(f, z, h)
    where.activation_gradient(f, z, h, gh, gz, db)
    some = [where.to_host(a[:32]).astype(np.float64) for a in (z, h, gh)]
    close(where, h[:32], f.f(some[0], **f.params))
    close(where, gz[:32], some[2] * f.df(some[0], some[1], **f.params))
    close(where, db, where.to_host(gz).sum(axis=0, dtype=np.float64))
    # gh, gz and what df reads: z, h or both
    passes = 2 + len(f.reads)
    timed(
        benchmark,
        where,
        lambda: where.activation_gradient(f, z, h, gh, gz, db),
        passes * rows * COLS * where.storage.itemsize,
    )


def test_softmax_cross_entropy(benchmark: Any) -> None:
    """J, gh and db from ŷ and labels. The work reads ŷ, writes gh, and reads gh for the sums."""
    where, loss = backend(), gpumlp.LOSSES["softmax_cross_entropy"].set(smoothing=0.0)
    rows, identity = rows_of(where.storage.itemsize), gpumlp.ACTIVATIONS["identity"]
    y_hat, gh = normal(where, rows, COLS), empty(where, rows, COLS)
    labels = np.random.default_rng(0).integers(0, COLS, rows)
    y, weights = where.asarray(labels, dtype=np.int32), where.full((rows,), 1 / rows)
    db, J = empty(where, COLS), where.full((1,), 0, "float64")
    scaling = where.asarray(UNSCALED, dtype=np.float64)

    def call() -> None:
        where.output_gradient(loss, identity, y_hat, y_hat, y, weights, scaling, gh, gh, db, J)

    call()
    e = np.exp(where.to_host(y_hat[:8]).astype(np.float64))
    want = (e / e.sum(axis=1, keepdims=True) - np.eye(COLS)[labels[:8]]) / rows
    close(where, gh[:8], want)
    timed(benchmark, where, call, 3 * rows * COLS * where.storage.itemsize)


@pytest.mark.parametrize("way", ["forward", "backward"])
@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_norm_of_rows(benchmark: Any, norm: str, way: str) -> None:
    """y, or gx and ∇φ. Forward, x is read and y written; backward, x and gy are read."""
    where, stage = backend(), gpumlp.NORMS[norm]
    rows = rows_of(where.storage.itemsize)
    x, gy = normal(where, rows, COLS), normal(where, 1, rows, COLS)[0]  # other numbers
    out = empty(where, rows, COLS)
    phi, dphi = normal(where, len(stage.initial), COLS), empty(where, len(stage.initial), COLS)
    few = [where.to_host(a[:8]).astype(np.float64) for a in (x, phi, gy)]
    if way == "forward":
        call = partial(where.stage, stage, x, phi, out)
        want = stage.forward(*few[:2], **stage.params)
    else:
        call = partial(where.stage_gradient, stage, x, phi, gy, None, out, dphi)
        want = stage.vjp(*few, **stage.params)[0]
    call()
    close(where, out[:8], want)
    passes = 2 if way == "forward" else 3
    timed(benchmark, where, call, passes * rows * COLS * where.storage.itemsize)


@pytest.mark.parametrize("way", ["forward", "backward"])
@pytest.mark.parametrize("rows", [1024, 1536])
def test_batch_norm(benchmark: Any, rows: int, way: str) -> None:
    """y, or gx and ∇φ. On a GPU, up to 1024 rows are read once each way, and more twice."""
    where, stage = backend(), gpumlp.NORMS["batch"]
    cols = rows_of(where.storage.itemsize) * COLS // rows // 64 * 64
    x, gy = normal(where, rows, cols), normal(where, 1, rows, cols)[0]
    out = empty(where, rows, cols)
    phi, dphi = normal(where, 2, cols), empty(where, 2, cols)
    s, t = (where.full((count, cols), 0) for count in (3, 2))
    few = [where.to_host(a[:, :8]).astype(np.float64) for a in (x, phi, gy)]
    means = np.stack([few[0].mean(axis=0), few[0].var(axis=0)])
    calls = [
        partial(where.column_moments, stage, x, s, None),
        partial(where.columns, stage, x, phi, s[:2], out),
    ]
    want = stage.forward(*few[:2], means, **stage.params)
    if way == "backward":
        calls[0]()
        calls = [
            partial(where.column_slopes, stage, x, phi, gy, s[:2], rows, t, dphi),
            partial(where.columns_gradient, stage, x, phi, gy, s[:2], t, None, out),
        ]
        slopes = np.stack(
            [each.mean(axis=0) for each in stage.sums(*few, means, **stage.params)[0]]
        )
        want = stage.vjp(*few, means, slopes, **stage.params)
    for call in calls:
        call()
    close(where, out[:, :8], want)
    passes = 2 if way == "forward" else 3
    timed(benchmark, where, calls, passes * rows * cols * where.storage.itemsize)


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_gate(benchmark: Any, way: str) -> None:
    """a ⊙ silu(b), or its gradient and ∇b: x and gy are read, gx is written, of x's size."""
    where, stage = backend(), gate(gpumlp.ACTIVATIONS["silu"])
    rows = rows_of(where.storage.itemsize)
    x, out = normal(where, rows, COLS), empty(where, rows, COLS)
    y, db = normal(where, rows, COLS // 2), empty(where, COLS)
    few = [where.to_host(a[:8]).astype(np.float64) for a in (x, y)]
    if way == "forward":
        call, got = partial(where.stage, stage, x, None, y), y
        want = stage.forward(few[0], None)
    else:
        call, got = partial(where.stage_gradient, stage, x, None, y, None, out, db), out
        want = stage.vjp(few[0], None, few[1])[0]
    call()
    close(where, got[:8], want)
    halves = 3 if way == "forward" else 5
    timed(benchmark, where, call, halves * rows * COLS // 2 * where.storage.itemsize)


@pytest.mark.parametrize("skip", [False, True])
def test_dropout(benchmark: Any, skip: bool) -> None:
    """x ⊙ mask / (1 − p), or that + skip. x and the skip are read, y is written."""
    where = backend()
    rows = rows_of(where.storage.itemsize)
    x, other, y = (normal(where, rows, COLS) for _ in range(3))
    seed, control = where.asarray([1], dtype=np.int64), where.asarray([1.0, 1.0], dtype=np.float64)

    def call() -> None:
        where.dropout(x, 0.5, 1, 0, seed, control, other if skip else None, y)

    call()
    few = [where.to_host(a[:8]).astype(np.float64) for a in (x, other, y)]
    kept = few[2] - skip * few[1]
    close(where, y[:8], np.where(np.abs(kept) > np.abs(few[0]), 2 * few[0], 0) + skip * few[1])
    assert 0.4 < np.count_nonzero(np.abs(kept) > np.abs(few[0])) / kept.size < 0.6
    timed(benchmark, where, call, (2 + skip) * rows * COLS * where.storage.itemsize)


def test_gather(benchmark: Any) -> None:
    """The rows of a minibatch in shuffled order. Each is read and written once."""
    where = backend()
    rows = rows_of(where.storage.itemsize)
    source, out = normal(where, rows, COLS), empty(where, rows, COLS)
    order = np.random.default_rng(0).permutation(rows)
    index = where.asarray(order, dtype=np.int64)
    where.gather(source, index, out)
    np.testing.assert_array_equal(where.to_host(out[:4]), where.to_host(source)[order[:4]])
    moved = 2 * rows * COLS * where.storage.itemsize
    timed(benchmark, where, lambda: where.gather(source, index, out), moved)


@pytest.mark.parametrize("optimizer", gpumlp.OPTIMIZERS)
def test_update(benchmark: Any, optimizer: str) -> None:
    """One pass over flat θ. It reads dθ, and reads and writes θ and each slot."""
    where, rule = backend(), gpumlp.OPTIMIZERS[optimizer]
    none = gpumlp.REGULARIZERS["none"]
    n = rows_of(where.dtype.itemsize) * COLS // (2 + len(rule.slots))
    n -= n % 64
    d = normal(where, n)
    theta, scaling = where.asarray(d), where.asarray(UNSCALED, dtype=np.float64)
    rounded = theta if where.storage == where.dtype else empty(where, n)
    slots = where.full((len(rule.slots), n), 0)
    numbers = rule.control(1e-3, 1)
    control = where.asarray(np.array((1.0, *numbers)), dtype=np.float64)
    want, g = (where.to_host(a[:999]).astype(np.float64) for a in (theta, d))
    fresh = {name: np.zeros(999) for name in rule.slots}
    rest = dict(zip(rule.scalar_names, numbers[1:-1], strict=True))
    rule.rule(want, g, numbers[0], **fresh, **rest, **rule.params)

    def call() -> None:
        where.update(rule, none, theta, rounded, d, slots, n, scaling, control)

    # an update may overwrite dθ; without a copy its numbers would shrink and become slow
    gradient = where.asarray(d, dtype=where.storage)
    call()
    close(where, theta[:999], want)
    copies = 1 if rounded is theta else 2  # dθ, and θ's copy
    moved = n * (2 * (1 + len(rule.slots)) * where.dtype.itemsize + copies * where.storage.itemsize)
    timed(benchmark, where, call, moved, before=lambda: where.asarray(gradient, out=d))
