"""update.cu and penalty.cu, executed on the CPU, against the entries' NumPy rules in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpumlp.functions import OPTIMIZERS, REGULARIZERS
from tests.support.harness.catalogue import CATALOGUE, DTYPES, PULL, penalty_source, update_source
from tests.support.harness.comparing import NUMPY_TYPE, assert_close, real_of, same_in_every_order
from tests.support.harness.compiled import REPRESENTATIVES, SANITIZE, kernel
from tests.support.harness.memory import aligned, aligned_empty

i32, i64 = np.int32, np.int64
NAMES = [n for n in OPTIMIZERS if not SANITIZE or f"update by {n}" in REPRESENTATIVES]
PENALTIES = [n for n in REGULARIZERS if not SANITIZE or f"penalty {n}" in REPRESENTATIVES]
# (entries, first bias, blocks): no biases, all biases, one block for all, more blocks than needed
SIZES = [(64, 64, 1), (320, 0, 2), (4160, 4096, 2), (1024, 768, 9)]
if SANITIZE == "thread":
    SIZES = [(1024, 768, 2)]
LENGTHS = [(1, 1), (257, 1), (4999, 3), (5000, 30)] if SANITIZE != "thread" else [(257, 2)]
LR = {"lion": 0.05}


def theta_and_gradient(n: int, dtype: str) -> tuple[Any, Any]:
    """θ in the type of arithmetic and dθ in `dtype`; the last 16 entries are padding."""
    rng = np.random.default_rng(0)
    theta, dtheta = rng.normal(size=(2, n))
    theta[-16:] = dtheta[-16:] = 0
    return aligned(theta, real_of(dtype)), aligned(dtheta, NUMPY_TYPE[dtype])


def regularized(theta: Any, dtheta: Any, split: int, entry: Any, S: float = 1) -> Any:
    """dθ/S + λ∇Ω(θ) in float64."""
    strength = np.where(np.arange(len(theta)) < split, *entry.strengths())
    pull = strength * entry.gradient(theta.astype(np.float64), **entry.arguments())
    return dtheta.astype(np.float64) / S + pull


def slots_of(optimizer: Any, n: int, dtype: Any) -> Any:
    """Slots with random values, and zeros in the padding."""
    slots = np.random.default_rng(1).uniform(0.1, 1, (len(optimizer.slots), n))
    slots[:, -16:] = 0
    return aligned(slots, dtype)


def by_numpy(optimizer: Any, theta: Any, g: Any, slots: Any, control: Any) -> tuple[Any, Any]:
    """θ and the slots after the entry's rule in float64."""
    x, state = theta.astype(np.float64), slots.astype(np.float64)
    lr, *scalars, _ = control[1:].tolist()
    optimizer.rule(
        x, control[0] * g, lr, **dict(zip(optimizer.slots, state, strict=True)),
        **dict(zip(optimizer.scalar_names, scalars, strict=True)), **optimizer.params,
    )  # fmt: skip
    return x, state


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "split", "blocks"), SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_update(name: str, n: int, split: int, blocks: int, dtype: str) -> None:
    optimizer, S = OPTIMIZERS[name], 4.0
    theta, dtheta = theta_and_gradient(n, dtype)
    slots = slots_of(optimizer, n, theta.dtype)
    control = aligned([0.75, *optimizer.control(LR.get(name, 0.1), 3)])
    strength = real_of(dtype)(PULL.params["biases"])

    def call(order: int) -> Any:
        x, rounded, state = aligned(theta), aligned(dtheta), aligned(slots)
        arguments = (x, rounded, dtheta, state if len(state) else x, control)
        kernel("update", update_source(name, dtype))(
            (blocks, 1), (256, 1),
            (*arguments, aligned([7.0, 1 / S]), control, i64(n), i64(split), strength, i64(0),
             i64(n), i64(0)),
            order=order,
        )  # fmt: skip
        return x, rounded, state

    got, rounded, state = same_in_every_order(call)
    g = regularized(theta, dtheta, split, PULL, S)
    x, want = by_numpy(optimizer, theta, g, slots, control)
    real = np.dtype(real_of(dtype)).name
    assert_close(got, x, real)
    assert_close(state, want, real)
    assert not got[-16:].any()
    assert not state[:, -16:].any()
    # products read θ rounded to 16 bits; if θ has no copy, the copy is not written
    untouched = NUMPY_TYPE[dtype] == theta.dtype
    assert rounded.tobytes() == (dtheta if untouched else got.astype(rounded.dtype)).tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_update_of_nan(name: str) -> None:
    """NaN in the gradient changes only its own entry of θ to NaN."""
    n, optimizer = 64, OPTIMIZERS[name]
    theta, dtheta = theta_and_gradient(n, "float64")
    dtheta[5] = np.nan
    slots = aligned(np.zeros((max(1, len(optimizer.slots)), n)))
    control = aligned([1.0, *optimizer.control(0.1, 1)])
    kernel("update", update_source(name, "float64"))(
        (1, 1), (256, 1),
        (theta, theta, dtheta, slots, control, aligned([1.0, 1.0]), control, i64(n), i64(n),
         np.float64(1), i64(0), i64(n), i64(0)),
    )  # fmt: skip
    assert np.isnan(theta).tolist() == [i == 5 for i in range(n)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_update_skips_a_step(dtype: str) -> None:
    """control[0] = 0: θ, its copy and the slots do not change, whatever the gradient is."""
    theta, dtheta = theta_and_gradient(64, dtype)
    dtheta[5] = np.inf
    optimizer = OPTIMIZERS["adamw"]
    arrays = [theta, aligned(dtheta), dtheta, slots_of(optimizer, 64, theta.dtype)]
    before = [a.tobytes() for a in arrays]
    control = aligned([0.0, *optimizer.control(0.1, 1)])
    kernel("update", update_source("adamw", dtype))(
        (1, 1), (256, 1),
        (*arrays, control, aligned([1.0, 1.0]), control, i64(64), i64(64), real_of(dtype)(1),
         i64(0), i64(64), i64(0)),
    )  # fmt: skip
    assert [a.tobytes() for a in arrays] == before


@pytest.mark.parametrize("dtype", DTYPES)
def test_update_of_a_part(dtype: str) -> None:
    """Parts in any order give the bits of the whole; 16-bit slots use the same noise."""
    n, split, optimizer = 4160, 4096, OPTIMIZERS["adamw"]
    theta, dtheta = theta_and_gradient(n, dtype)
    control = aligned([0.75, *optimizer.control(0.1, 3)])
    for kind in ("", "bfloat16") if dtype != "float64" else ("",):
        slots, found = slots_of(optimizer, n, NUMPY_TYPE[kind] if kind else theta.dtype), []
        for parts in ([(0, n)], [(split, n), (64, 1024), (0, 64), (1024, split)]):
            x, rounded, state = aligned(theta), aligned(dtheta), aligned(slots)
            for begin, end in parts:
                kernel("update", update_source("adamw", dtype, kind))(
                    (2, 1), (256, 1),
                    (x, rounded, dtheta, state, control, aligned([1.0, 1.0]), control, i64(n),
                     i64(split), real_of(dtype)(0.5), i64(begin), i64(end), i64(0)),
                )  # fmt: skip
            found.append((x.tobytes(), rounded.tobytes(), state.tobytes()))
        assert found[0] == found[1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("blocks", [1, 9])
@pytest.mark.parametrize("name", [n for n in NAMES if not SANITIZE or n == "adamw"])
def test_update_of_groups(name: str, blocks: int, dtype: str) -> None:
    """Each region has its own learning rate and weight decay, in one part or in several."""
    n, split, optimizer = 4160, 4096, OPTIMIZERS[name]
    rows = [(64, 2.0, 0.5), (1024, 1.0, 0.0), (4096, 0.0, 3.0), (4160, 0.25, 1.0)]
    theta, dtheta = theta_and_gradient(n, dtype)
    slots = slots_of(optimizer, n, theta.dtype)
    lr, real = LR.get(name, 0.1), real_of(dtype)
    control = aligned([0.75, *optimizer.control(lr, 3)])
    sizes = (i64(n), i64(split), real(PULL.params["biases"]))

    def call(order: int, parts: Any = ((0, n),)) -> Any:
        x, rounded, state = aligned(theta), aligned(dtheta), aligned(slots)
        for begin, end in parts:
            kernel("update", update_source(name, dtype, grouped=True))(
                (blocks, 1), (256, 1),
                (x, rounded, dtheta, state if len(state) else x, control, aligned([1.0, 1.0]),
                 aligned(rows), *sizes, i64(begin), i64(end), i64(0)), order=order,
            )  # fmt: skip
        return x, state

    got, state = same_in_every_order(call)
    for one, other in zip(call(0, ((4096, n), (64, 4096), (0, 64))), (got, state), strict=True):
        assert one.tobytes() == other.tobytes()
    g, begin = regularized(theta, dtheta, split, PULL), 0
    for end, rate, decay in rows:
        at = slice(begin, end)
        own = {k: decay * v for k, v in optimizer.params.items() if k == "weight_decay"}
        rule = optimizer.set(**own)
        by = aligned([0.75, *rule.control(rate * lr, 3)])
        x, want = by_numpy(rule, theta[at], g[at], slots[:, at], by)
        assert_close(got[at], x, np.dtype(real).name)
        assert_close(state[:, at], want, np.dtype(real).name)
        begin = end
    np.testing.assert_array_equal(got[1024:4096], theta[1024:4096])  # a rate of 0


# ---- gradients that products of micro-batches have added up, in θ's type -------------------------


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_float32_gradient_with_16_bit_storage(dtype: str) -> None:
    """The update and the norm use all its digits, while activations have 16 bits."""
    n, split, S, optimizer, f32 = 1024, 768, 4.0, OPTIMIZERS["adamw"], np.float32
    theta, dtheta = theta_and_gradient(n, "float32")
    assert (dtheta.astype(NUMPY_TYPE[dtype]).astype(f32) != dtheta).mean() > 0.9
    control = aligned([0.75, *optimizer.control(0.1, 3)])
    slots = slots_of(optimizer, n, f32)
    sizes = (i64(n), i64(split), f32(PULL.params["biases"]))

    def call(order: int) -> Any:
        x, rounded, state = aligned(theta), aligned_empty((n,), NUMPY_TYPE[dtype]), aligned(slots)
        kernel("update", update_source("adamw", dtype, gradient="float32"))(
            (2, 1), (256, 1),
            (x, rounded, dtheta, state, control, aligned([7.0, 1 / S]), control, *sizes, i64(0),
             i64(n), i64(0)), order=order,
        )  # fmt: skip
        norm = clipped("elastic_net", dtype, "float32", theta, dtheta, split, 3, S, order=order)
        return x, rounded, state, norm[0][:1]

    got, rounded, state, factor = same_in_every_order(call)
    g = regularized(theta, dtheta, split, PULL, S)
    x, want = by_numpy(optimizer, theta, g, slots, control)
    assert_close(got, x, "float32")
    assert_close(state, want, "float32")
    assert rounded.tobytes() == got.astype(rounded.dtype).tobytes()
    norm = np.sqrt(
        np.square(regularized(theta, dtheta, split, REGULARIZERS["elastic_net"], S)).sum()
    )
    assert_close(factor, [1 / norm], "float32")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "blocks"), [(64, 1), (64, 3), (4160, 2)])
def test_add(n: int, blocks: int, dtype: str) -> None:
    """total + part in the type of arithmetic, or part, whatever total was."""
    total, part = theta_and_gradient(n, dtype)

    def call(order: int) -> Any:
        added, overwritten = aligned(total), aligned_empty((n,), real_of(dtype))
        for out, flag in ((added, 0), (overwritten, 1)):
            kernel("add", CATALOGUE[dtype]["reduce"])(
                (blocks, 1), (256, 1), (part, out, i64(n), i32(flag)), order=order
            )
        return added, overwritten

    added, overwritten = same_in_every_order(call)
    np.testing.assert_array_equal(overwritten, part.astype(real_of(dtype)))
    np.testing.assert_array_equal(added, total + part.astype(real_of(dtype)))


# ---- 16-bit slots ------------------------------------------------------------------------------


def updates_of(name: str, dtype: str, theta: Any, dtheta: Any, slots: Any, t: int) -> Any:
    """θ and the bfloat16 slots after step t, which have the same bits in every order."""
    n, optimizer = len(theta), OPTIMIZERS[name]
    control = aligned([1.0, *optimizer.control(0.1, t)])

    def call(order: int) -> Any:
        x, state = aligned(theta), aligned(slots)
        kernel("update", update_source(name, dtype, "bfloat16"))(
            (2, 1), (256, 1),
            (x, aligned(dtheta), dtheta, state, control, aligned([1.0, 1.0]), control, i64(n),
             i64(n), real_of(dtype)(1), i64(0), i64(n), i64(0)), order=order,
        )  # fmt: skip
        return x, state

    return same_in_every_order(call)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != "float64"])
@pytest.mark.parametrize("name", [n for n in NAMES if OPTIMIZERS[n].slots])
def test_stochastic_rounding_of_slots(name: str, dtype: str) -> None:
    """Each slot becomes a neighbour of the exact value in bfloat16; the mean is the exact value."""
    n, optimizer = 4096, OPTIMIZERS[name]
    theta, dtheta = theta_and_gradient(n, dtype)
    slots = slots_of(optimizer, n, NUMPY_TYPE["bfloat16"])
    g, errors = regularized(theta, dtheta, n, PULL), []
    for t in (1, 2, 70_000):
        got, state = updates_of(name, dtype, theta, dtheta, slots, t)
        control = np.array([1.0, *optimizer.control(0.1, t)])
        x, want = by_numpy(optimizer, theta, g, slots, control)
        assert_close(got, x, "float32")
        spacing = 2.0 ** (np.floor(np.log2(np.abs(want[:, :-16]))) - 7)  # of 8 bits
        errors.append((state[:, :-16].astype(np.float64) - want[:, :-16]) / spacing)
        assert (np.abs(errors[-1]) < 1.001).all()
        assert not state[:, -16:].any()
    for error in errors:
        for slot in error:
            # in spacings; the mean of 4,080 errors of variance 1/4 or less deviates by 0.008
            assert abs(slot.mean()) < 0.04
            assert 0.3 < slot.std() < 0.5
    for one, other in ((0, 1), (1, 2)):  # each step and each slot draw new noise
        assert abs(np.corrcoef(errors[one][0], errors[other][0])[0, 1]) < 0.8
    flips = [(error > 0) for error in errors]
    assert (flips[0] != flips[1]).mean() > 0.1


def test_small_changes_of_slots_add_up() -> None:
    """v ← 0.999 v + 0.001 g²: with rounding to nearest, v would not change."""
    n, dtype = 512, "float32"
    theta = aligned(np.zeros(n), np.float32)
    dtheta = aligned(np.full(n, 1.0), np.float32)
    slots = aligned(np.full((2, n), 0.5), NUMPY_TYPE["bfloat16"])
    start = slots[1].astype(np.float64)
    for t in range(1, 201):
        _, slots = updates_of("adam", dtype, theta, dtheta, slots, t)
    want = 1 - 0.5 * 0.999**200  # towards g² = 1
    assert abs(slots[1].astype(np.float64).mean() - want) < 0.01
    assert want - start.mean() > 0.05


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_infinite_and_nan_slots_stay(value: float) -> None:
    dtheta = aligned(np.full(64, value), np.float32)
    slots = aligned(np.zeros((1, 64)), NUMPY_TYPE["bfloat16"])
    theta = aligned(np.zeros(64), np.float32)
    _, state = updates_of("momentum", "float32", theta, dtheta, slots, 1)
    np.testing.assert_array_equal(state.astype(np.float64), np.full((1, 64), value))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("blocks", [1, 3])
def test_round(dtype: str, blocks: int) -> None:
    theta, _ = theta_and_gradient(4160, dtype)
    rounded = aligned_empty((4160,), NUMPY_TYPE[dtype])
    launch = kernel("round_theta", CATALOGUE[dtype]["round"])
    launch((blocks, 1), (256, 1), (theta, rounded, i64(4160)))
    assert rounded.tobytes() == theta.astype(rounded.dtype).tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("t", "d"), [(1, 0.0), (2, 0.1), (8, 7 / 16), (30, 29 / 38), (1000, 0.95), (7, None)]
)
def test_average(t: int, d: float | None, dtype: str) -> None:
    """d = min(0.95, (t − 1) / (t + 8)); θ itself for t = 1; no change in a skipped step."""
    theta, _ = theta_and_gradient(4160, dtype)
    start = aligned(np.random.default_rng(3).normal(size=4160), theta.dtype)
    control = aligned([0.0 if d is None else 0.5, 7.0, 7.0, t])

    def call(order: int) -> Any:
        mean = aligned(start)
        kernel("average", CATALOGUE[dtype]["average"])(
            (2, 1), (256, 1),
            (theta, theta, mean, control, i64(4160), i64(3), np.float64(0.95)),
            order=order,
        )  # fmt: skip
        return (mean,)

    (got,) = same_in_every_order(call)
    weight = 1 if d is None else d
    want = weight * start.astype(np.float64) + (1 - weight) * theta.astype(np.float64)
    assert_close(got, want, np.dtype(real_of(dtype)).name)
    if weight in (0, 1):
        assert got.tobytes() == (start if weight else theta).tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("size", "blocks"), LENGTHS)
def test_normalize(size: int, blocks: int, dtype: str) -> None:
    """V / ‖V‖ in two launches; zeros stay zeros, and a norm that is not finite gives NaN.

    Each row of v is a vector with padding.
    """
    source, real, T = CATALOGUE[dtype]["orthogonal"], real_of(dtype), np.dtype(NUMPY_TYPE[dtype])
    n, apart = i64(size), i64(size + 3)
    v = aligned(np.full((5, size + 3), np.nan), real)
    exact = np.random.default_rng(5).normal(size=(5, size))
    exact *= [[1], [0], [1e-9], [30], [1]]
    v[:, :size] = exact
    v[4, size - 1] = np.inf

    def of(order: int) -> Any:
        partial, x = aligned_empty((5, blocks), real), aligned_empty((5, size), T)
        grid = blocks, 5
        kernel("squares", source)(grid, (256, 1), (v, partial, n, apart), order=order)
        arguments = v, partial, x, n, apart, np.float64(1e-7)
        kernel("normalize", source)(grid, (256, 1), arguments, order=order)
        return partial, x

    partial, x = same_in_every_order(of)
    exact, norms = v[:4, :size].astype(np.float64), np.zeros(4)
    for i in (0, 2, 3):
        norms[i] = (exact[i] ** 2).sum()
        assert partial[i].sum() == pytest.approx(norms[i], rel=1e-5)
    for i in (0, 3):
        assert_close(x[i], exact[i] / np.sqrt(norms[i]), dtype)
    assert not x[1].any()
    assert_close(x[2][:1], exact[2][:1] / 1e-7, dtype)
    assert np.isnan(x[4].astype(np.float64)).all()
    v[4, size - 1] = np.nan
    assert np.isnan(of(0)[1][4].astype(np.float64)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("r", "blocks"), [(1, 1), (7, 1), (40, 3)])
def test_quintic(r: int, blocks: int, dtype: str) -> None:
    real, rng = real_of(dtype), np.random.default_rng(6)
    start, P = (aligned(rng.normal(size=(3, r, r)), np.dtype(NUMPY_TYPE[dtype])) for _ in "AP")
    factors = (1.5, 3.4445, -4.775, 2.0315)

    def call(order: int) -> Any:
        A = aligned(start)
        kernel("quintic", CATALOGUE[dtype]["orthogonal"])(
            (blocks, 3), (256, 1), (A, P, i64(r), *map(real, factors)), order=order
        )
        return (A,)

    (got,) = same_in_every_order(call)
    s, a, b, c = factors
    want = s * (a * np.eye(r) + b * start.astype(np.float64) + c * P.astype(np.float64))
    assert_close(got, want, dtype, 30.0)


# ---- Ω, norm and clipping ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "split", "blocks"), SIZES)
@pytest.mark.parametrize("name", PENALTIES)
def test_penalty(name: str, n: int, split: int, blocks: int, dtype: str) -> None:
    entry, real = REGULARIZERS[name], real_of(dtype)
    theta, dtheta = theta_and_gradient(n, dtype)
    strength = 0.5
    sizes = (i64(n), i64(split), real(strength))

    def call(order: int) -> Any:
        added, unchanged, J, J_alone = (
            aligned(dtheta),
            aligned(dtheta),
            aligned([2.0]),
            aligned([2.0]),
        )
        partial, arrived = aligned_empty((blocks,), real), aligned([0], np.uint32)
        for d, sum_, add in ((added, J, 1), (unchanged, J_alone, 0)):
            kernel("penalty", penalty_source(name, dtype))(
                (blocks, 1),
                (256, 1),
                (theta, d, partial, arrived, sum_, *sizes, i32(add)),
                order=order,
            )
        assert J_alone.tobytes() == J.tobytes()
        assert unchanged.tobytes() == dtheta.tobytes()
        assert not arrived.any()
        return added, J

    added, J = same_in_every_order(call)
    strengths = np.where(np.arange(n) < split, 1, strength)
    theta64, arguments = theta.astype(np.float64), entry.arguments()
    omega = strengths * entry.omega(theta64, **arguments)
    want = dtheta.astype(np.float64) + strengths * entry.gradient(theta64, **arguments)
    assert_close(added, want, dtype)
    real_name = np.dtype(real).name
    assert_close(J - 2, [omega.sum()], real_name, omega.sum())


def clipped(
    name: str, dtype: str, gradient: str, theta: Any, dtheta: Any, split: int, blocks: int,
    S: Any, interval: int = 0, max_norm: float = 1.0, order: int = 0,
) -> tuple[Any, Any]:  # fmt: skip
    """control and scaling after `clip`; S: the loss scale, or the whole of scaling."""
    real, entry = real_of(dtype), REGULARIZERS[name]
    control, scaling = aligned([np.nan, 7.0]), aligned([S, np.nan, 0, 0] if np.ndim(S) == 0 else S)
    partial, arrived = aligned_empty((blocks,), real), aligned([0], np.uint32)
    kernel("clip", penalty_source(name, dtype, gradient))(
        (blocks, 1), (256, 1),
        (theta, theta, dtheta, scaling, control, partial, arrived, i64(len(theta)), i64(split),
         real(entry.strengths()[1]), np.float64(max_norm), i64(interval), i64(2)), order=order,
    )  # fmt: skip
    assert not arrived.any()
    return control, scaling


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "split", "blocks"), SIZES)
@pytest.mark.parametrize("name", PENALTIES)
def test_clip(name: str, n: int, split: int, blocks: int, dtype: str) -> None:
    theta, dtheta = theta_and_gradient(n, dtype)
    control, scaling = same_in_every_order(
        lambda order: clipped(name, dtype, "", theta, dtheta, split, blocks, 4.0, 0, 0.5, order)
    )
    norm = np.sqrt(np.square(regularized(theta, dtheta, split, REGULARIZERS[name], S=4)).sum())
    assert_close(control, [0.5 / norm, 7], np.dtype(real_of(dtype)).name)
    np.testing.assert_array_equal(scaling, [4, 0.25, 0, 0])


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize(
    ("norm", "scale"),
    [(0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (4.0, 0.25), (np.inf, np.nan), (np.nan, np.nan)],
)
def test_factor_of_a_norm(norm: float, scale: float, blocks: int) -> None:
    """control[0] ← min(1, max_norm / norm), NaN for a norm that is not finite."""
    control, scaling = of_norm(norm, [8.0, 7.0, 5.0, 3.0], 0, blocks=blocks)
    np.testing.assert_array_equal(control, [scale, 7.0])
    np.testing.assert_array_equal(scaling, [8.0, 1 / 8, 5.0, 3.0])


def of_norm(
    norm: float, scaling: Any, interval: int, max_norm: float = 1.0, blocks: int = 2
) -> tuple[Any, Any]:
    """control and scaling after `clip` of a gradient of this norm, which has one entry."""
    theta, dtheta = aligned(np.zeros((2, 4096)), np.float32)
    dtheta[3333] = norm * scaling[0]
    return clipped("none", "float32", "", theta, dtheta, 4096, blocks, scaling, interval, max_norm)


@pytest.mark.parametrize("max_norm", [1.0, np.inf])
def test_dynamic_loss_scale(max_norm: float) -> None:
    """An overflow halves S and skips the step; an interval without an overflow doubles S.

    scaling[1] is always the 1/S of the current gradient, because the following update needs it.
    """
    for norm in (np.inf, np.nan):
        control, scaling = of_norm(norm, [8.0, 0.5, 2.0, 4.0], 3, max_norm)
        assert control[0] == 0
        assert scaling.tolist() == [4.0, 1 / 8, 0.0, 5.0]
    control, scaling = of_norm(4.0, [8.0, 0.5, 1.0, 4.0], 3, max_norm)
    assert control[0] == min(1.0, max_norm / 4)
    assert scaling.tolist() == [8.0, 1 / 8, 2.0, 4.0]
    control, scaling = of_norm(4.0, [8.0, 0.5, 2.0, 4.0], 3, max_norm)
    assert scaling.tolist() == [16.0, 1 / 8, 0.0, 4.0]
