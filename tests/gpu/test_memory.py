"""The memory plan of a fit against CuPy's memory pool, and a pool that is too small."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import gpumlp

ARRAYS = 64  # more arrays than a fit has; the pool rounds each of them up to 512 bytes


@pytest.fixture
def pool() -> Any:
    cupy = pytest.importorskip("cupy")
    pool = cupy.get_default_memory_pool()
    yield pool
    pool.set_limit(size=0)


def problem() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(8192, 512)), rng.integers(0, 10, 8192)


def network(precision: str) -> gpumlp.MLP:
    return gpumlp.MLP([512, 2048, 2048, 2048, 10], "gelu", precision=precision, backend="cupy")


@pytest.mark.parametrize("memory", ["normal", "low"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_planned_memory_matches_pool(pool: Any, precision: str, memory: str) -> None:
    x, y = problem()
    trainer = gpumlp.Trainer(network(precision), batch_size=3000, memory=memory)
    planned, before, used = trainer.memory(x, y), pool.used_bytes(), []

    class RecordMemory(gpumlp.Callback):
        def on_step_end(self, trainer: gpumlp.Trainer) -> None:
            used.append(pool.used_bytes() - before)

    trainer.fit(x, y, 2, callbacks=[RecordMemory()], progress=False)
    assert 0 <= max(used) - planned.missing <= 512 * ARRAYS
    assert pool.used_bytes() == before


def test_batch_size_in_error_fits(pool: Any) -> None:
    x, y = problem()
    net = network("bfloat16")
    trainer = gpumlp.Trainer(net, batch_size=8192)
    planned, before = trainer.memory(x, y), net.tensors()
    pool.free_all_blocks()
    pool.set_limit(size=pool.used_bytes() + planned.missing * 2 // 3)
    with pytest.raises(gpumlp.DeviceError, match="out of GPU memory") as caught:
        trainer.fit(x, y, 1, progress=False)
    for name, tensor in net.tensors().items():
        np.testing.assert_array_equal(tensor, before[name])
    found = re.search(r"use accumulate=(\d+), or batch_size=(\d+)", str(caught.value))
    assert found
    trainer.batch_size = int(found[2])
    trainer.fit(x, y, 1, progress=False)
    assert trainer.steps == -(-8192 // trainer.batch_size)
    del trainer, caught
    parts = gpumlp.Trainer(net, batch_size=8192, accumulate=int(found[1]))
    parts.fit(x, y, 1, progress=False)
    assert parts.steps == 1
