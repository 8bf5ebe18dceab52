"""Embeddings on the compiled CPU backend: against NumPy's operations, and their time."""

from __future__ import annotations

import math
import time
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import gpumlp
from gpumlp.backends import get_backend
from gpumlp.backends.cpu import backend as cpu_backend
from gpumlp.backends.cpu.code import Code
from gpumlp.backends.stages import parts
from tests.support.compiled import needs_library
from tests.support.embeddings import examples, network, with_places

pytestmark = needs_library
RNG = np.random.default_rng(3)
BF16 = np.dtype(ml_dtypes.bfloat16)
SHAPES = [
    {0: (3, 2)}, {2: (1, 5)}, {0: (2, 1), 1: (2, 64), 2: (300, 65)},
    {1: (70_000, 16)}, {0: (100, 200), 2: (257, 3)},
]  # fmt: skip


@pytest.fixture(autouse=True)
def _on_any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cpu_backend.EMULATE, "1")


def arrays(embed: dict[int, tuple[int, int]], m: int, columns: int = 3) -> Any:
    """The embeddings with the places of a layout, x (m, columns) and E; codes are often equal."""
    embeddings = with_places(columns, embed)
    x = RNG.normal(size=(m, columns))
    for j, (c, _) in embed.items():
        x[:, j] = np.where(RNG.random(m) < 0.5, RNG.integers(0, c, m), c - 1)
    return embeddings, x, RNG.normal(size=embeddings.starts[-1] + math.prod(embed[max(embed)]))


def gradient_of(
    backend: Any, x: Any, g: Any, embeddings: Any, dE: Any, factors: Any = None
) -> None:
    order = np.empty((2, len(embeddings.each), len(x)), np.int64)
    sums = np.empty((parts(len(x)), 2, embeddings.added), dE.dtype)
    backend.embed_gradient(x, g, embeddings, order, sums, dE, factors)


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("m", [1, 37, 257, 5000])
@pytest.mark.parametrize("embed", SHAPES, ids=str)
def test_operations_equal_those_of_numpy(embed: Any, m: int, precision: str) -> None:
    backend, numpy = get_backend("cpu", precision), get_backend("numpy", "float64")
    embeddings, x, E = arrays(embed, m)
    x, E = x.astype(backend.dtype), E.astype(backend.storage)
    h = np.empty((m, embeddings.width), backend.storage)
    backend.embed(x, E, embeddings, h)
    want = np.empty(h.shape)
    numpy.embed(x.astype(float), E.astype(float), embeddings, want)
    assert np.array_equal(h, want.astype(backend.storage))
    for width in (embeddings.added, embeddings.width + 3):  # g may have other columns before
        g = RNG.normal(size=(m, width)).astype(backend.storage)
        dE = np.full(E.shape, 7, backend.storage)
        gradient_of(backend, x, g, embeddings, dE)
        sums = np.empty(E.shape)
        gradient_of(numpy, x.astype(float), g.astype(float), embeddings, sums)
        eps = {"float64": 1e-14, "float32": 1e-6, "bfloat16": 2**-8}[precision]
        near = eps * np.sqrt(m) * max(1, np.abs(sums).max())
        np.testing.assert_allclose(dE.astype(float), sums, eps, near)
        assert (dE.astype(float)[sums == 0] == 0).all()


def test_sums_are_in_the_order_of_the_examples() -> None:
    """Bit for bit, in float32, whatever the number of threads."""
    embeddings, x, E = arrays({1: (5, 70), 2: (40, 3)}, 3000)
    x, g = x.astype("f"), RNG.normal(size=(3000, 73)).astype("f")
    want = np.zeros(E.shape, "f")
    for start, one, (first, end) in zip(
        embeddings.starts, embeddings.each, ((0, 70), (70, 73)), strict=True
    ):
        table = want[start : start + one.c * one.d].reshape(one.c, one.d)
        for row, code in zip(g[:, first:end], x[:, one.column].astype(int), strict=True):
            table[code] += row
    backend: Any = get_backend("cpu", "float32")
    for threads in (1, 2, 3):
        dE = np.empty(E.shape, "f")
        buffers = np.empty((2, 2, 3000), np.int64), np.empty(0)
        works = list(backend._lower.embed_gradient(x, g, embeddings, *buffers, dE))
        program = cpu_backend.Program(backend._library, backend._blas, Code(works))
        program._threads = threads
        program()
        assert np.array_equal(dE, want)


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("embed", SHAPES, ids=str)
def test_sums_are_added_to_the_rows_of_codes(embed: Any, precision: str) -> None:
    """And other rows keep their bits."""
    embeddings, x, E = arrays(embed, 257)
    x, g = x.astype(precision), RNG.normal(size=(257, embeddings.added)).astype(precision)
    factors, results = np.array([-0.25, 1.0], precision), []
    for name in ("numpy", "cpu"):
        own = E.astype(precision)
        gradient_of(get_backend(name, precision), x, g, embeddings, own, factors)
        results.append(own)
    dE = np.empty(E.shape, precision)
    gradient_of(get_backend("cpu", precision), x, g, embeddings, dE)
    near = 1e-12 if precision == "float64" else 1e-4
    for own in results:
        np.testing.assert_allclose(own, E.astype(precision) - 0.25 * dE, near, near)
        assert np.array_equal(own[dE == 0], E.astype(precision)[dE == 0])


def test_codes_are_not_rounded_in_bfloat16() -> None:
    """bfloat16 has whole numbers up to 256 only."""
    net = gpumlp.MLP([2, 3, 2], embed={0: (40_000, 4)}, precision="bfloat16", backend="cpu")
    x = np.array([[39_999, 0.5], [39_873, 1.5]])
    table = net.tensors()["embed.0.weight"]
    _, grads = net.cost_and_gradients(x, [0, 1])
    touched = np.flatnonzero(np.asarray(grads.named["embed.0.weight"], "f").any(axis=1))
    assert touched.tolist() == [39_873, 39_999]
    trainer = gpumlp.Trainer(net, "sgd", lr=0.5, batch_size=2)
    trainer.fit(x, [0, 1], 1, progress=False)
    moved = np.flatnonzero((net.tensors()["embed.0.weight"] != table).any(axis=1))
    assert moved.tolist() == [39_873, 39_999]


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_a_step_is_one_call(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    run = cpu_backend.Program.__call__

    def counted(self: Any, steps: int = 1) -> None:
        if len(self._calls) > 3:
            calls.append(steps)
        run(self, steps)

    monkeypatch.setattr(cpu_backend.Program, "__call__", counted)
    x, y = examples(64)
    gpumlp.Trainer(network("cpu"), optimizer, batch_size=16).fit(x, y, 2, progress=False)
    assert sum(calls) == 8
    assert max(calls) > 1


def test_time_of_a_large_table_is_that_of_the_minibatch() -> None:
    """256 examples of 100,000 categories: beside zeros, about as long as with 1,000 of them."""
    backend = get_backend("cpu", "float32")
    best = []
    for c in (1000, 100_000):
        embeddings, x, E = arrays({0: (c, 16)}, 256)
        x = x.astype("f")
        g, dE = np.ones((256, 16), "f"), np.empty(E.shape, "f")
        times = []
        for _ in range(30):
            begin = time.perf_counter()
            gradient_of(backend, x, g, embeddings, dE)
            middle = time.perf_counter()
            dE.fill(0)
            times.append((middle - begin, time.perf_counter() - middle))
        of_gradient, of_zeros = map(min, zip(*times, strict=True))  # others disturb each alone
        best.append(of_gradient - of_zeros)
    small, large = best
    assert large < small + 2e-3, best
