"""Doors of a room and a whole step, by pytest-benchmark: for comparing one version with another.

    pytest benchmarks --benchmark-autosave          # then, after a change:
    pytest benchmarks --benchmark-compare

GPUMLP_BENCH_BACKEND chooses the room (numpy), GPUMLP_BENCH_WIDTH the layers' width (1024).
Every timed call ends with `synchronize`, so that a device's work is done within it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.parameters import Parameters
from gpumlp.training.batches import Examples

ROWS, OUTPUTS = 256, 10
WIDTH = int(os.environ.get("GPUMLP_BENCH_WIDTH", "1024"))
BACKEND = os.environ.get("GPUMLP_BENCH_BACKEND", "numpy")


class Step:
    """A network in training, with one minibatch loaded and its forward and backward pass done."""

    def __init__(self, activation: str, optimizer: str) -> None:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((ROWS, WIDTH), np.float32)
        y = rng.integers(0, OUTPUTS, ROWS)
        self.net = gpumlp.MLP([WIDTH, WIDTH, WIDTH, OUTPUTS], activation, backend=BACKEND)
        self.trainer = gpumlp.Trainer(self.net, optimizer, lr=1e-3, batch_size=ROWS)
        self.room, layout = self.net.backend, self.net.theta.layout
        self.d = Parameters.zeros(self.room, layout, self.room.storage)
        self.batches = self.trainer.batches(Examples.checked(self.net, x, y))
        self.batches.start(0, np.array([self.trainer.control(1e-3, 1)]), np.zeros(1), at=0)
        J, _ = self.net.cost_and_gradients(x, y)
        assert abs(J - np.log(OUTPUTS)) < 2  # the network works before it is timed
        self.run()

    def run(self) -> None:
        """One step."""
        self.batches.seek(0)
        self.trainer.step(self.batches)
        self.room.synchronize()


def timed(benchmark: Any, step: Step, call: Callable[[], None]) -> None:
    """Benchmark a call together with the wait for its end."""

    def run() -> None:
        call()
        step.room.synchronize()

    benchmark(run)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_step(benchmark: Any, activation: str, optimizer: str) -> None:
    """Gather, forward, backward, update."""
    benchmark(Step(activation, optimizer).run)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "mish"])
def test_affine_activation(benchmark: Any, activation: str) -> None:
    """One turn of Algorithm 6.3."""
    step = Step(activation, "sgd")
    theta, f, s = step.net.rounded, step.net.f, step.batches.s
    timed(
        benchmark,
        step,
        lambda: step.room.affine_activation(s.h[1], theta.W[2], theta.b[2], f[2], s.z[2], s.h[2]),
    )


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "mish"])
def test_hidden_gradient(benchmark: Any, activation: str) -> None:
    """One turn of Algorithm 6.4, but for the weights' gradient."""
    step = Step(activation, "sgd")
    theta, f, s, d = step.net.rounded, step.net.f, step.batches.s, step.d
    timed(
        benchmark,
        step,
        lambda: step.room.hidden_gradient(
            s.gz[2], theta.W[2], f[1], s.z[1], s.h[1], s.gh[1], s.gz[1], d.b[1]
        ),
    )


@pytest.mark.parametrize("optimizer", gpumlp.OPTIMIZERS)
def test_update(benchmark: Any, optimizer: str) -> None:
    """One pass of the optimizer over the flat θ."""
    step = Step("relu", optimizer)
    net, trainer = step.net, step.trainer
    split = net.theta.layout.split
    timed(
        benchmark,
        step,
        lambda: step.room.update(
            trainer.optimizer, net.regularizer, net.theta.flat, net.rounded.flat, step.d.flat,
            trainer.slots, split, trainer.scaling, step.batches.control,
        ),
    )  # fmt: skip
