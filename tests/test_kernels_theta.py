"""update.cu and penalty.cu, executed on the CPU, against the entries' NumPy rules in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness.catalogue import CATALOGUE, DTYPES, PULL, penalty_source, update_source
from harness.comparing import NUMPY_TYPE, assert_close, real_of, same_in_every_order
from harness.compiled import REPRESENTATIVES, SANITIZE, kernel
from harness.memory import aligned, aligned_empty

from gpumlp.functions import OPTIMIZERS, REGULARIZERS

i32, i64 = np.int32, np.int64
NAMES = [n for n in OPTIMIZERS if not SANITIZE or f"update by {n}" in REPRESENTATIVES]
PENALTIES = [n for n in REGULARIZERS if not SANITIZE or f"penalty {n}" in REPRESENTATIVES]
# (entries, the first bias, blocks): no biases, all biases, one block for all, more than needed
SIZES = [(64, 64, 1), (320, 0, 2), (4160, 4096, 2), (1024, 768, 9)]
if SANITIZE == "thread":
    SIZES = [(1024, 768, 2)]
LR = {"lion": 0.05}


def theta_and_gradient(n: int, dtype: str) -> tuple[Any, Any]:
    """θ and dθ, the last 16 entries padding."""
    rng = np.random.default_rng(0)
    theta, dtheta = rng.normal(size=(2, n))
    theta[-16:] = dtheta[-16:] = 0
    return aligned(theta, NUMPY_TYPE[dtype]), aligned(dtheta, NUMPY_TYPE[dtype])


def regularized(theta: Any, dtheta: Any, split: int, entry: Any) -> Any:
    """dθ + λ∇Ω(θ) in float64."""
    strength = np.where(np.arange(len(theta)) < split, *entry.strengths())
    pull = strength * entry.gradient(theta.astype(np.float64), **entry.arguments())
    return dtheta.astype(np.float64) + pull


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "split", "blocks"), SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_update(name: str, n: int, split: int, blocks: int, dtype: str) -> None:
    optimizer, scale = OPTIMIZERS[name], 0.75
    theta, dtheta = theta_and_gradient(n, dtype)
    slots = np.random.default_rng(1).uniform(0.1, 1, (len(optimizer.slots), n))
    slots[:, -16:] = 0
    slots = aligned(slots, theta.dtype)
    control = aligned([scale, *optimizer.control(LR.get(name, 0.1), 3)])
    strength = real_of(dtype)(PULL.params["biases"])

    def call(order: int) -> Any:
        x, state = aligned(theta), aligned(slots)
        arguments = (x, dtheta, state if len(state) else x, control)
        kernel("update", update_source(name, dtype))(
            (blocks, 1), (256, 1), (*arguments, i64(n), i64(split), strength), order=order
        )
        return x, state

    got, state = same_in_every_order(call)
    x, want = theta.astype(np.float64), slots.astype(np.float64)
    g = scale * regularized(theta, dtheta, split, PULL)
    lr, *scalars = control[1:].tolist()
    optimizer.rule(
        x, g, lr, **dict(zip(optimizer.slots, want, strict=True)),
        **dict(zip(optimizer.scalar_names, scalars, strict=True)), **optimizer.params,
    )  # fmt: skip
    assert_close(got, x, dtype)
    assert_close(state, want, dtype)
    assert not got[-16:].any()
    assert not state[:, -16:].any()


@pytest.mark.parametrize("name", NAMES)
def test_update_of_nan(name: str) -> None:
    """A gradient of NaN spoils its own θ and no other."""
    n, optimizer = 64, OPTIMIZERS[name]
    theta, dtheta = theta_and_gradient(n, "float64")
    dtheta[5] = np.nan
    slots = aligned(np.zeros((max(1, len(optimizer.slots)), n)))
    control = aligned([1.0, *optimizer.control(0.1, 1)])
    kernel("update", update_source(name, "float64"))(
        (1, 1), (256, 1),
        (theta, dtheta, slots, control, i64(n), i64(n), np.float64(1)),
    )  # fmt: skip
    assert np.isnan(theta).tolist() == [i == 5 for i in range(n)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "split", "blocks"), SIZES)
@pytest.mark.parametrize("name", PENALTIES)
def test_penalty(name: str, n: int, split: int, blocks: int, dtype: str) -> None:
    entry, real = REGULARIZERS[name], real_of(dtype)
    theta, dtheta = theta_and_gradient(n, dtype)
    strength = 0.5
    sizes = (i64(n), i64(split), real(strength))

    def call(order: int) -> Any:
        added, kept = aligned(dtheta), aligned(dtheta)
        partial, alone = aligned_empty((blocks,), real), aligned_empty((blocks,), real)
        launch = kernel("penalty", penalty_source(name, dtype))
        launch((blocks, 1), (256, 1), (theta, added, partial, *sizes, i32(1)), order=order)
        launch((blocks, 1), (256, 1), (theta, kept, alone, *sizes, i32(0)), order=order)
        assert alone.tobytes() == partial.tobytes()
        assert kept.tobytes() == dtheta.tobytes()
        return added, partial

    added, partial = same_in_every_order(call)
    strengths = np.where(np.arange(n) < split, 1, strength)
    theta64, arguments = theta.astype(np.float64), entry.arguments()
    omega = strengths * entry.omega(theta64, **arguments)
    want = dtheta.astype(np.float64) + strengths * entry.gradient(theta64, **arguments)
    assert_close(added, want, dtype)
    real_name = np.dtype(real).name
    assert_close(partial.sum(dtype=np.float64), omega.sum(), real_name, omega.sum())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "split", "blocks"), SIZES)
@pytest.mark.parametrize("name", PENALTIES)
def test_squared_norm(name: str, n: int, split: int, blocks: int, dtype: str) -> None:
    entry, real = REGULARIZERS[name], real_of(dtype)
    theta, dtheta = theta_and_gradient(n, dtype)

    def call(order: int) -> Any:
        partial = aligned_empty((blocks,), real)
        kernel("squared_norm", penalty_source(name, dtype))(
            (blocks, 1), (256, 1),
            (theta, dtheta, partial, i64(n), i64(split), real(entry.strengths()[1])), order=order,
        )  # fmt: skip
        return (partial,)

    (partial,) = same_in_every_order(call)
    want = np.square(regularized(theta, dtheta, split, entry)).sum()
    assert_close(partial.sum(dtype=np.float64), want, np.dtype(real).name, want)


@pytest.mark.parametrize("count", [1, 7, 300])
@pytest.mark.parametrize(
    ("square", "scale"),
    [(0.0, 1.0), (0.25, 1.0), (1.0, 1.0), (16.0, 0.25), (np.inf, np.nan), (np.nan, np.nan)],
)
def test_clip(square: float, scale: float, count: int) -> None:
    """control[0] ← min(1, max_norm / norm), NaN for a norm that is not finite."""
    partial, control = aligned(np.zeros(count), np.float32), aligned([np.nan, 7.0])
    partial[count // 2] = square
    clip = kernel("clip", CATALOGUE["float32"]["penalty elastic_net"])
    clip((1, 1), (256, 1), (partial, control, i64(count), np.float64(1.0)))
    np.testing.assert_array_equal(control, [scale, 7.0])
