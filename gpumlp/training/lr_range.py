"""The learning-rate range test: steps with a learning rate that grows until the cost explodes."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp import checks, plots
from gpumlp.errors import OutOfMemoryError
from gpumlp.io.types import Array, HostVector
from gpumlp.loader.examples import Examples
from gpumlp.training import together
from gpumlp.training.memory import drop_tracebacks
from gpumlp.training.stepping import Stepping, restore

WIDTH = 0.25  # decades: the standard deviation of the Gaussian that smooths the curve
FALLING = 0.1  # the share of the whole fall after which a cost has left its plateau
EXPLODED = 3.0  # the cost may rise above its minimum by this many times the minimum
MOST_STEPS = 1_000_000
MEMORY = 0.8  # of the running mean: some five steps, so that no single minibatch ends the test


@dataclass(frozen=True, repr=False)
class LRCurve:
    """The result of a range test: the cost of a minibatch over the learning rate of its step.

    Attributes:
        lr: (n,) float64, a geometric series.
        loss: (n,) float64, L of each minibatch just before its update, without λΩ(θ).
        smoothed: (n,) float64, `loss` averaged over neighbouring learning rates.
        suggestion: the learning rate where `smoothed` falls most steeply over log lr before its
            minimum, a good value for `Trainer(lr=…)`; None if it never falls.
        minimum: the learning rate where `smoothed` is least; the cautious rule is a tenth of it.
        exploded: whether the test ended because the cost exploded.
    """

    lr: HostVector
    loss: HostVector
    smoothed: HostVector
    suggestion: float | None
    minimum: float
    exploded: bool

    def __repr__(self) -> str:
        best = "none: the cost never falls" if self.suggestion is None else f"{self.suggestion:.2g}"
        end = ", where the cost explodes" if self.exploded else ""
        return (
            f"LRCurve(suggestion {best}; minimum at {self.minimum:.2g}; {len(self.lr)} steps "
            f"from {self.lr[0]:.2g} to {self.lr[-1]:.2g}{end})"
        )

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """The curve as a matplotlib Figure; if there is a `path`, also written there as PNG.

        Raises:
            ImportError: matplotlib is missing.
        """
        figure = plots.range_figure(
            self.lr, self.loss, self.smoothed, self.suggestion, self.minimum
        )
        if path is not None:
            plots.write_png(figure, path)
        return figure


def find_lr(
    trainer: Stepping, x: Array, y: Array, start: float, end: float, steps: int, **data: Any
) -> LRCurve:
    """The range test of `Trainer.find_lr`, which documents it.

    data: the other arguments of `Examples.checked`.
    """
    start = checks.positive_number(start, "start")
    end = checks.positive_number(end, "end")
    if end <= start:
        raise ValueError(f"end must be more than start = {start:g}, got {end:g}")
    steps = checks.positive_int(steps, "steps", least=10, most=MOST_STEPS)
    rates = np.geomspace(start, end, steps)
    try:
        # overflows are expected
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            losses = np.array(list(_losses(trainer, x, y, rates, data)))
    except OutOfMemoryError as error:
        drop_tracebacks(error)
        raise OutOfMemoryError(
            f"{error}: find_lr trains a copy, with θ, the optimizer's state and a step's arrays a "
            'second time; use a smaller batch_size, or data="stream"'
        ) from error
    if len(losses) < 2:
        raise FloatingPointError(
            f"the cost is not finite after a step with lr {start:g}; scale x and y, or lower start"
        )
    return _curve(rates[: len(losses)], losses, len(losses) < steps)


def _copy(trainer: Stepping) -> Stepping:
    """A trainer in the same state, with its own network and arrays, and without an average."""
    copied = trainer.with_network(copy.deepcopy(trainer.net), ema=None)
    if trainer.average is not None:  # the network may hold the average
        theta = trainer.average.both(trainer.net)[1]
        copied.net.backend.asarray(theta, out=copied.net.theta.flat)
    restore(copied, [trainer.slots, trainer.scaling], shown=False)
    return copied


def _losses(
    trainer: Stepping, x: Array, y: Array, rates: HostVector, data: dict[str, Any]
) -> Iterator[float]:
    """L of one minibatch per step and learning rate, until it explodes or is not finite."""
    examples = Examples.checked(trainer.net, x, y, rows=trainer.at_a_time, **data)
    if (world := trainer.shards.world).size > 1:
        facts = {"learning rates": (rates[0], rates[-1], len(rates))}
        together.check_alike(world, together.facts_of(trainer, examples, None) | facts)
    trainer = _copy(trainer)
    trainer.begin()
    backend, batches = trainer.net.backend, trainer.batches(examples)
    first = mean = best = math.nan
    try:
        for i in range(len(rates)):
            at = i % batches.order.steps
            if at == 0:  # an epoch, whose steps after the last learning rate are not done
                lrs = rates[i : i + batches.order.steps].tolist()
                controls = trainer.controls(lrs, trainer.steps + 1)
                table = np.pad(controls, ((0, batches.order.steps - len(lrs)), (0, 0)), mode="edge")
                batches.start(trainer.epochs, table, np.zeros(batches.order.steps), 0)
                trainer.epochs += 1
            trainer.step(batches)
            L = float(batches.costs(slice(at, at + 1))[0])
            if not math.isfinite(L):
                return
            yield L
            if i == 0:
                first = mean = best = L
            mean = MEMORY * mean + (1 - MEMORY) * L
            best = min(best, mean)
            # at least a tenth of the first: a cost near 0 would end the test too early
            if mean > best + EXPLODED * max(abs(best), abs(first) / 10):
                return
    finally:
        backend.synchronize()  # the caller may free the data now
        batches.forget()


def _curve(lr: HostVector, loss: HostVector, exploded: bool) -> LRCurve:
    """The smoothed curve, its steepest descent before the minimum, and the minimum."""
    decades = np.log10(lr)
    apart = decades[1] - decades[0]
    reach = math.ceil(4 * WIDTH / apart)
    near = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) * apart / WIDTH))
    within = slice(reach, reach + len(lr))
    # differences from the first cost, so that rounding does not make a constant cost fall
    change = np.convolve(loss - loss[0], near)[within]
    smoothed = loss[0] + change / np.convolve(np.ones(len(lr)), near)[within]
    least = int(smoothed.argmin())
    # the search begins where the curve was high for the last time: before that is only noise
    high = smoothed[least] + (1 - FALLING) * (smoothed[0] - smoothed[least])
    begin = int(np.flatnonzero(smoothed[: least + 1] >= high)[-1])
    slope = np.gradient(smoothed, decades)[begin : least + 1]
    steepest = begin + int(slope.argmin())
    suggestion = float(lr[steepest]) if slope.min() < 0 else None
    return LRCurve(lr, loss, smoothed, suggestion, float(lr[least]), exploded)
