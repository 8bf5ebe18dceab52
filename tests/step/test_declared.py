"""Each operation writes what it declares, and nothing else; the counts are those of its arrays."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.columns import Columns
from gpumlp.backends.declaration import OPERATIONS
from gpumlp.backends.numpy.backend import NumpyBackend
from gpumlp.backends.operations import Backend
from gpumlp.backends.sharing import Sharing
from gpumlp.backends.stages import Stages
from gpumlp.distributed.world import ALONE
from tests.support.blocks import BATCH_BY_MEANS

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 6)), RNG.integers(0, 3, 40)


def watched(name: str, seen: dict[str, set[str]]) -> Any:
    """The operation of NumPy's backend; arrays that it writes must be declared."""
    real, declared = getattr(NumpyBackend, name), OPERATIONS[name]
    written = declared.writes | declared.updates

    @functools.wraps(real)
    def run(self: Any, *args: Any, **kwargs: Any) -> None:
        arguments = declared.arguments(*args, **kwargs)
        arrays = {k: a for k, a in arguments.items() if isinstance(a, np.ndarray)}
        before = {k: a.copy() for k, a in arrays.items()}
        real(self, *args, **kwargs)
        free = [a for k, a in arrays.items() if k in written]
        for k, a in arrays.items():
            changed = not np.array_equal(a, before[k], equal_nan=a.dtype.kind == "f")
            if changed:
                seen.setdefault(name, set()).add(k)
            if k not in written and not any(np.shares_memory(a, b) for b in free):
                assert not changed, f"{name} writes {k}, which it does not declare"

    return run


def test_operations_write_what_they_declare(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[str]] = {}
    for name in OPERATIONS:
        monkeypatch.setattr(NumpyBackend, name, watched(name, seen))
    for settings in (
        {"optimizer": "adamw", "clip_norm": 0.1, "accumulate": 3, "ema": 0.9},
        {"optimizer": "muon", "memory": "low", "groups": {"biases": gpumlp.Group(lr=2.0)}},
        {"optimizer": "sgd"},
        {"optimizer": "momentum", "accumulate": 2},
        {"optimizer": "sgd", "shards": 2, "clip_norm": 0.1},
    ):
        net = gpumlp.MLP([6, 8, 7, 9, 3], "gelu", regularizer=None, backend="numpy")
        trainer = gpumlp.Trainer(net, batch_size=12, **settings)
        trainer.fit(X, Y, 2, sample_weight=RNG.random(40) + 0.1, progress=False)
    blocks = {"norm": "layer", "gated": [None, "silu"], "dropout": [0.5, 0.0], "residual": True}
    net = gpumlp.MLP([6, 8, 8, 3], **blocks, backend="numpy")
    gpumlp.Trainer(net, batch_size=12).fit(X, Y, 2, progress=False)
    net = gpumlp.MLP([6, 8, 3], embed={1: (40, 2)}, backend="numpy")
    codes = X.copy()
    codes[:, 1] = np.arange(40)
    gpumlp.Trainer(net, batch_size=12).fit(codes, Y, 1, progress=False)
    net = gpumlp.MLP([6, 5, 3], regularizer=gpumlp.L2(0.1), backend="numpy")
    net.cost(X, Y)
    net.cost_and_gradients(X, Y)
    for norm, parts in (("batch", 1), ("batch", 2), (BATCH_BY_MEANS, 1)):
        net = gpumlp.MLP([6, 8, 3], norm=norm, backend="numpy")
        gpumlp.Trainer(net, batch_size=12, accumulate=parts).fit(X, Y, 2, progress=False)
    arrays = (np.ones(shape) for shape in ((4, 2), (4, 3), 9, 9, (1, 9), 3))
    rule, omega = gpumlp.OPTIMIZERS["momentum"], gpumlp.L2(0.1)
    net.backend.weight_update(rule, omega, *arrays, (2, 8), (1.0, 1.0))
    whole = np.ones(4)
    net.backend.exchange(ALONE, whole, (4,), np.empty((1, 4)))
    net.backend.collect(ALONE, whole, (4,))
    theta, rounded, remainder = RNG.normal(size=9).astype("f"), *np.zeros((2, 9), np.int16)
    net.backend.round(theta, rounded, remainder)
    remainder += 1
    net.backend.restore(theta, rounded, remainder)
    # NumPy rounds nothing, and scales no loss; dtheta is undefined after an update
    undone = {(name, "rounded") for name in ("round", "update", "weight_update")}
    undone |= {("clip", "scaling"), ("clip_by", "scaling"), ("update", "dtheta")}
    undone |= {("collect", "whole")}  # nothing comes from other processes
    undone |= {("embed_gradient", "order"), ("embed_gradient", "sums")}
    for name, each in OPERATIONS.items():
        for written in each.writes | each.updates:
            assert written in seen.get(name, ()) or (name, written) in undone


def test_every_operation_of_the_algorithms_is_declared() -> None:
    """All that a program may hold: what writes arrays of the caller and returns nothing."""
    others = {
        "__copy__", "__deepcopy__", "asarray", "adopt", "to_host", "empty", "full",
        "pre_activation", "feed", "compile", "synchronize",
    }  # fmt: skip
    parts = (Backend, Columns, Sharing, Stages)
    declared = {name: each for part in parts for name, each in vars(part).items()}
    methods = {name for name, each in declared.items() if callable(each)}
    assert methods - others - {"__init__", "__subclasshook__"} == set(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_declared_names_are_parameters(name: str) -> None:
    each = OPERATIONS[name]
    assert each.writes | each.updates <= set(each.parameters)
    assert not each.writes & each.updates
