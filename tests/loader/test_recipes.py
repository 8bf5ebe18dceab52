"""Programs that trainers share: they have the results of trainers that share none."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.loader import recipes
from tests.support.compiled import needs_library

RNG = np.random.default_rng(3)
X = RNG.normal(size=(45, 6))
Y = RNG.normal(size=(45, 3))
LABELS = RNG.integers(0, 3, 45)
WEIGHTS = RNG.uniform(0.5, 2, 45)
BACKENDS = ["numpy", pytest.param("cpu", marks=needs_library)]
NET: dict[str, Any] = {
    "activation": "tanh",
    "loss": "squared_error",
    "precision": "float64",
    "seed": 1,
}
OTHERS: list[dict[str, Any]] = [  # of each, one setting differs from {}
    {"activation": "relu"}, {"loss": "huber"}, {"loss": gpumlp.LOSSES["huber"].set(delta=0.1)},
    {"regularizer": gpumlp.L2(0.3)}, {"regularizer": gpumlp.L2(0.4)}, {"norm": "layer"},
    {"regularizer": gpumlp.L2(0.3, biases=False)}, {"dropout": 0.4}, {"residual": True},
    {"precision": "float32"}, {"hidden": (7, 8)}, {"gated": "silu"},
    {"optimizer": "momentum"}, {"optimizer": gpumlp.OPTIMIZERS["adam"].set(beta1=0.5)},
    {"optimizer": gpumlp.OPTIMIZERS["adam"].set(eps=0.1)}, {"clip_norm": 0.01}, {"ema": 0.5},
    {"batch_size": 7}, {"accumulate": 3}, {"fold": False, "optimizer": "sgd"},
    {"optimizer": "sgd"}, {"groups": {"first": gpumlp.Group(lr=0.1)}}, {"memory": "low"},
    {"groups": {"first": gpumlp.Group(lr=0.2)}}, {"shards": 4}, {"weights": WEIGHTS},
    {"y": LABELS, "loss": "softmax_cross_entropy"}, {"rows": 31},
]  # fmt: skip


def trained(backend: str, **changes: Any) -> Any:
    """θ after some epochs."""
    net, fit = trainer(backend, **changes)
    fit(3)
    return np.array(net.theta.whole)


def trainer(backend: str, **changes: Any) -> Any:
    """A network, and a function of the number of epochs that trains it."""
    known = {k: changes.pop(k, v) for k, v in {**NET, "optimizer": "adam"}.items()}
    optimizer, hidden = known.pop("optimizer"), changes.pop("hidden", (8, 8))
    x, y, weights = (changes.pop(k, v) for k, v in {"x": X, "y": Y, "weights": None}.items())
    rows = slice(changes.pop("rows", len(x)))
    of_net = {k: changes.pop(k) for k in ("regularizer", "norm", "dropout", "residual",
                                           "gated") if k in changes}  # fmt: skip
    net = gpumlp.MLP([6, *hidden, 3], backend=backend, **known, **of_net)
    found = gpumlp.Trainer(net, optimizer, 0.01, **{"batch_size": 20, **changes})
    named = {"sample_weight": weights, "progress": False}
    return net, lambda epochs: found.fit(x[rows], y[rows], epochs, **named)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_setting_that_differs_has_its_own_programs(backend: str) -> None:
    def fresh(**changes: Any) -> Any:
        recipes._shared.clear()
        return trained(backend, **changes)

    want = [fresh(**changes) for changes in ({}, *OTHERS)]
    recipes._shared.clear()
    for _ in range(2):  # the second time with what the first one left
        for changes, theta in zip(({}, *OTHERS), want, strict=True):
            np.testing.assert_array_equal(trained(backend, **changes), theta, str(changes))


@pytest.mark.parametrize("backend", BACKENDS)
def test_live_trainers_share_no_memory(backend: str) -> None:
    data = [{"x": X * scale, "seed": seed} for seed, scale in enumerate((1.0, 2.0, 3.0))]
    want = [trained(backend, **each) for each in data]
    pairs = [trainer(backend, **each) for each in data]
    for _ in range(3):
        for _, fit in pairs:
            fit(1)
    for (net, _), theta in zip(pairs, want, strict=True):
        np.testing.assert_array_equal(net.theta.whole, theta)


@pytest.mark.parametrize("backend", BACKENDS)
def test_data_that_was_its_own_target(backend: str) -> None:
    square = np.ascontiguousarray(X[:, :3])

    def of(x: Any, y: Any) -> Any:
        net = gpumlp.MLP([3, 4, 3], loss="squared_error", backend=backend, precision="float64")
        gpumlp.Trainer(net).fit(x, y, 2, progress=False)
        return np.array(net.theta.whole)

    recipes._shared.clear()
    want = of(square, Y)
    recipes._shared.clear()
    of(square, square)  # in one array
    np.testing.assert_array_equal(of(square, Y), want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_shared_programs_keep_no_arrays(backend: str) -> None:
    net, fit = trainer(backend, x=X.copy())
    fit(1)
    gone = weakref.ref(net), weakref.ref(net.theta.whole.base)
    del net, fit
    gc.collect()
    assert [each() for each in gone] == [None, None]
    assert len(recipes._shared) > 0


def test_few_programs_are_kept() -> None:
    for width in range(1, recipes.STEPS + 9):
        gpumlp.Trainer(gpumlp.MLP([2, width, 1], loss="squared_error", backend="numpy"))
    assert len(recipes._shared) == recipes.STEPS
    net = gpumlp.MLP([6, 4, 3], loss="squared_error", backend="numpy")
    one = gpumlp.Trainer(net, batch_size=9)
    for rows in range(10, 30):
        one.fit(X[:rows], Y[:rows], 1, progress=False)
    assert len(one._recipes.known) == recipes.SHAPES
