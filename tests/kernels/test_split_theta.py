"""θ as 16-bit weights and a 16-bit remainder: its bits, and the kernels that read and write it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpumlp.backends.cuda.source import KernelSource
from gpumlp.backends.numpy.backend import NumpyBackend
from gpumlp.functions import OPTIMIZERS
from tests.support.harness.catalogue import CATALOGUE, PULL, penalty_source, update_source
from tests.support.harness.comparing import NUMPY_TYPE, same_in_every_order
from tests.support.harness.compiled import SANITIZE, kernel
from tests.support.harness.memory import aligned, aligned_empty

i64, f32 = np.int64, np.float32
HALF = NUMPY_TYPE["bfloat16"]
N, SPLIT = 4160, 4096
GROUPS = [(64, 2.0, 0.5), (1024, 1.0, 0.0), (4096, 0.0, 3.0), (4160, 0.25, 1.0)]
# 0, denormals, 1, the largest numbers, infinity and NaN
UPPER = [0, 1, 0x7F, 0x80, 0x3F80, 0x3F81, 0x7F7E, 0x7F7F, 0x7F80, 0x7F81, 0x7FC0, 0x7FFF]
LOWER = [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF]


def patterns() -> Any:
    """float32: each upper half above with all lower halves that matter, both signs, and random."""
    chosen = [s << 31 | u << 16 | low for s in (0, 1) for u in UPPER for low in LOWER]
    ties = np.arange(0, 1 << 32, 1 << 20, np.uint64) + 0x8000
    random = np.random.default_rng(0).integers(0, 1 << 32, 1 << 16, np.uint64)
    found = np.concatenate([np.array(chosen, np.uint64), ties, random]).astype(np.uint32)
    return aligned(np.resize(found, -(-len(found) // 64) * 64).view(f32), f32)


def away_from_zero(theta: Any) -> Any:
    """The bfloat16 nearest to each float32 that is no NaN; of two, the one further from 0."""
    bits = theta.view(np.uint32)
    magnitude = np.floor((bits & 0x7FFFFFFF) / 65536 + 0.5).astype(np.uint16)
    return (magnitude | (bits >> 31 << 15).astype(np.uint16)).view(HALF)


def split(theta: Any) -> tuple[Any, Any]:
    """The 16-bit weights and the remainder by NumPy."""
    rounded, remainder = aligned_empty(theta.shape, HALF), aligned_empty(theta.shape, np.int16)
    NumpyBackend().round(theta, rounded, remainder)
    return rounded, remainder


def restored(rounded: Any, remainder: Any) -> Any:
    theta = aligned_empty(rounded.shape, f32)
    NumpyBackend().restore(theta, rounded, remainder)
    return theta


def test_the_pair_has_all_bits() -> None:
    """Rounding is that of the 16-bit copy but for ties; NaN is NaN, also to the products."""
    theta = patterns()
    rounded, remainder = split(theta)
    nan, bits = np.isnan(theta), theta.view(np.uint32)
    assert nan.any()
    assert rounded[~nan].tobytes() == away_from_zero(theta)[~nan].tobytes()
    assert np.isnan(rounded[nan].astype(f32)).all()
    again = restored(rounded, remainder)
    assert again[~nan].tobytes() == theta[~nan].tobytes()
    assert np.isnan(again[nan]).all()
    untied = ~nan & (bits & 0xFFFF != 0x8000)
    assert rounded[untied].tobytes() == theta[untied].astype(HALF).tobytes()
    assert (rounded[~nan] != theta[~nan].astype(HALF)).any()
    for one, other in zip(split(again), (rounded, remainder), strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("blocks", [1, 3])
def test_kernels_that_split_and_restore(blocks: int) -> None:
    theta, source = patterns(), CATALOGUE["bfloat16"]["round"]
    rounded, remainder = aligned_empty(theta.shape, HALF), aligned_empty(theta.shape, np.int16)
    again, sizes = aligned_empty(theta.shape, f32), ((blocks, 1), (256, 1))
    kernel("split_theta", source)(*sizes, (theta, rounded, remainder, i64(len(theta))))
    for got, want in zip((rounded, remainder), split(theta), strict=True):
        assert got.tobytes() == want.tobytes()
    kernel("restore_theta", source)(*sizes, (again, rounded, remainder, i64(len(theta))))
    assert again.tobytes() == restored(rounded, remainder).tobytes()


def problem(gradient: str = "") -> tuple[Any, Any]:
    """θ, of which one entry in 16 is halfway between two bfloat16, and dθ."""
    theta, dtheta = np.random.default_rng(0).normal(size=(2, N)).astype(f32)
    theta.view(np.uint32)[::16] = theta.view(np.uint32)[::16] & 0xFFFF0000 | 0x8000
    theta[-16:] = dtheta[-16:] = 0
    return aligned(theta, f32), aligned(dtheta, f32 if gradient else HALF)


def updated(
    name: str, theta: Any, dtheta: Any, slots: Any, parts: Any, order: int, kind: Any
) -> Any:
    """θ, the 16-bit weights and the slots after an update in both forms of θ."""
    control = aligned([0.75, *OPTIMIZERS[name].control(0.1, 3)])
    groups = aligned(GROUPS) if kind.get("grouped") else control
    found = []
    for remainder in (False, True):
        whole, (rounded, low), state = aligned(theta), split(theta), aligned(slots)
        x = low if remainder else whole
        for begin, end in parts:
            kernel("update", update_source(name, "bfloat16", remainder=remainder, **kind))(
                (2, 1), (256, 1),
                (x, rounded, dtheta, state, control, aligned([1.0, 1.0]), groups, i64(N),
                 i64(SPLIT), f32(PULL.params["biases"]), i64(begin), i64(end), i64(0)), order=order,
            )  # fmt: skip
        found.append((restored(rounded, low) if remainder else whole, rounded, state))
    return found


@pytest.mark.parametrize(
    "kind",
    [{}, {"slots": "bfloat16"}, {"gradient": "float32", "slots": "bfloat16", "grouped": True}],
)
@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if not SANITIZE or n == "adamw"])
def test_update_has_the_bits_of_float32(name: str, kind: Any) -> None:
    """θ and its slots, with the same noise in 16 bits; the weights are θ, rounded."""
    if kind and name != "adamw":  # they do not depend on the rule
        kind = {}
    theta, dtheta = problem(kind.get("gradient", ""))
    slots = np.random.default_rng(1).uniform(0.1, 1, (max(1, len(OPTIMIZERS[name].slots)), N))
    slots[:, -16:] = 0
    slots = aligned(slots, HALF if "slots" in kind else f32)
    for parts in ([(0, N)], [(SPLIT, N), (64, 1024), (0, 64), (1024, SPLIT)]):
        for order in (0, 1):
            (x, _, state), (got, rounded, own) = updated(
                name, theta, dtheta, slots, parts, order, kind
            )
            assert got.tobytes() == x.tobytes() != theta.tobytes()
            assert own.tobytes() == state.tobytes()
            assert rounded.tobytes() == away_from_zero(x).tobytes()
            assert not got[-16:].any()


def test_update_skips_a_step() -> None:
    theta, dtheta = problem()
    pair, slots = split(theta), aligned(np.ones((2, N)), f32)
    before = [a.tobytes() for a in pair]
    control = aligned([0.0, *OPTIMIZERS["adamw"].control(0.1, 1)])
    kernel("update", update_source("adamw", "bfloat16", remainder=True))(
        (1, 1), (256, 1),
        (pair[1], pair[0], dtheta, slots, control, aligned([1.0, 1.0]), control, i64(N), i64(SPLIT),
         f32(1), i64(0), i64(N), i64(0)),
    )  # fmt: skip
    assert [a.tobytes() for a in pair] == before


def test_norm_and_average_have_the_bits_of_float32() -> None:
    theta, dtheta = problem()
    rounded, low = split(theta)
    start = aligned(np.random.default_rng(3).normal(size=N), f32)

    def call(order: int) -> Any:
        found = []
        for x, upper in ((theta, theta), (low, rounded.view(np.int16))):
            remainder = x is low
            control, scaling = aligned([np.nan, 7.0]), aligned([4.0, np.nan, 0, 0])
            partial, arrived = aligned_empty((2,), f32), aligned([0], np.uint32)
            kernel("clip", penalty_source("elastic_net", "bfloat16", remainder=remainder))(
                (2, 1), (256, 1),
                (x, upper, dtheta, scaling, control, partial, arrived, i64(N), i64(SPLIT),
                 f32(0.5), np.float64(0.5), i64(0), i64(2)), order=order,
            )  # fmt: skip
            mean, number = aligned(start), aligned([1.0, 30.0])
            source = KernelSource("average.cu", "bfloat16", remainder=remainder)
            kernel("average", source)(
                (2, 1), (256, 1), (x, upper, mean, number, i64(N), i64(1), np.float64(0.9)),
                order=order,
            )  # fmt: skip
            found.append((control, scaling, mean))
        return [*found[0], *found[1]]

    results = same_in_every_order(call)
    for want, got in zip(results[:3], results[3:], strict=True):
        assert got.tobytes() == want.tobytes()
    assert 0 < results[3][0] < 1
    assert results[5].tobytes() != start.tobytes()
