"""A step, an epoch and inference, to compare one version of the library with another.

pytest benchmarks --benchmark-autosave      # then, after a change:
pytest benchmarks --benchmark-compare
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpumlp
from benchmarks.suite import OUTPUTS, ROWS, WIDTH, Training, timed


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_step(benchmark: Any, activation: str, optimizer: str) -> None:
    """Gather the minibatch; forward pass, backward pass, update."""
    training = Training(activation, optimizer)
    timed(benchmark, training.backend, training.run, flops=training.case.flops(), record=False)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_epoch(benchmark: Any, optimizer: str) -> None:
    """`Trainer.fit` over 8½ minibatches: upload, shuffle, a smaller last step, the cost."""
    training = Training(optimizer=optimizer)
    m = 8 * ROWS + ROWS // 2
    x = np.resize(training.x, (m, WIDTH))
    y = np.resize(training.y, m)
    trainer = gpumlp.Trainer(training.net, optimizer, lr=1e-3, batch_size=ROWS)
    before, flops = training.net.cost(x, y), training.case.flops() * m // ROWS
    assert trainer.fit(x, y, 3, metric=None, progress=False)["cost"][-1] < before
    timed(
        benchmark, training.backend,
        lambda: trainer.fit(x, y, 1, metric=None, progress=False), flops=flops, record=False,
    )  # fmt: skip


@pytest.mark.parametrize("m", [1, 256, 4096])
def test_inference(benchmark: Any, m: int) -> None:
    """`MLP.predict` of host arrays, with the copies to the GPU and back."""
    training = Training()
    x = np.random.default_rng(1).standard_normal((m, WIDTH), np.float32)
    np.testing.assert_allclose(training.net.predict(x).sum(axis=1), 1, rtol=1e-2)
    flops = 2 * m * (2 * WIDTH * WIDTH + WIDTH * OUTPUTS)
    timed(
        benchmark, training.backend, lambda: training.net.predict(x), flops=flops, record=False
    )  # fmt: skip
