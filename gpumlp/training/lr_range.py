"""The learning-rate range test: steps with a learning rate that grows until the cost explodes."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpumlp import checks
from gpumlp.errors import OutOfMemoryError
from gpumlp.io.types import Array
from gpumlp.loader.batches import Batches
from gpumlp.loader.examples import Examples
from gpumlp.network import ClassWeight
from gpumlp.training.planning import let_go

if TYPE_CHECKING:
    from gpumlp.training.trainer import Trainer

Numbers = npt.NDArray[np.float64]
WIDTH = 0.25  # decades: the standard deviation of the Gaussian that smooths the curve
FALLING = 0.1  # of the whole fall: a cost that is so far down has left its plateau
EXPLODED = 3.0  # the cost may rise above its least by so many times that
MEMORY = 0.8  # of the mean that is compared: five steps or so, so that no single minibatch ends it


@dataclass(frozen=True, repr=False)
class LRCurve:
    """What a range test found: the cost of a minibatch over the learning rate of its step.

    Attributes:
        lr: (n,) float64, in a geometric series.
        loss: (n,) float64, L of each minibatch just before its update, without λΩ(θ).
        smoothed: (n,) float64, `loss` averaged over neighbouring learning rates.
        suggestion: where `smoothed` falls most steeply over log lr on its way to the minimum: a
            good `Trainer(lr=…)`; None where it never falls.
        minimum: where `smoothed` is least; a tenth of it is the cautious rule of thumb.
        exploded: whether the test ended because the cost did.
    """

    lr: Numbers
    loss: Numbers
    smoothed: Numbers
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
        """The curve as a matplotlib Figure, also written to `path` as PNG where there is one.

        Raises:
            ImportError: matplotlib is missing.
        """
        from gpumlp import plots

        figure = plots.range_figure(
            self.lr, self.loss, self.smoothed, self.suggestion, self.minimum
        )
        if path is not None:
            plots.write_png(figure, path)
        return figure


def find_lr(
    trainer: Trainer,
    x: Array,
    y: Array,
    *,
    start: float = 1e-7,
    end: float = 10.0,
    steps: int = 200,
    sample_weight: Array | None = None,
    class_weight: ClassWeight = None,
    data: str = "auto",
) -> LRCurve:
    """The cost over the learning rate, on a copy of the network and the trainer.

    Nothing of the trainer changes, and its schedule plays no part; θ, the optimizer's state, the
    gradient and a step's arrays are allocated a second time while it lasts.

    Source: Smith (2017), "Cyclical learning rates for training neural networks", section 3.3.

    Args:
        trainer: how it trains, and from which θ and optimizer's state.
        x: (m, n_0), as `Trainer.fit` takes it.
        y: (m, n_L) or labels (m,), as `Trainer.fit` takes it.
        start: the first learning rate.
        end: the last one; the test ends before it where the cost explodes.
        steps: their number; each takes a minibatch, over as many epochs as that needs.
        sample_weight: as in `Trainer.fit`.
        class_weight: as in `Trainer.fit`.
        data: as in `Trainer.fit`.

    Raises:
        ValueError, TypeError: an argument is not as said.
        FloatingPointError: the cost is not finite after the first step.
        DeviceError: out of GPU memory.
    """
    start = checks.positive_number(start, "start")
    end = checks.positive_number(end, "end")
    if end <= start:
        raise ValueError(f"end must be more than start = {start:g}, got {end:g}")
    steps = checks.positive_int(steps, "steps", least=10)
    rates = np.geomspace(start, end, steps)
    asked: dict[str, Any] = {"sample_weight": sample_weight, "class_weight": class_weight}
    try:
        losses = _losses(trainer, x, y, rates, data, asked)
    except OutOfMemoryError as error:
        let_go(error)
        raise OutOfMemoryError(
            f"{error}: find_lr trains a copy, with θ, the optimizer's state and a step's arrays a "
            'second time; use a smaller batch_size, or data="stream"'
        ) from error
    if len(losses) < 2:
        raise FloatingPointError(
            f"the cost is not finite after a step with lr {start:g}; scale x and y, or lower start"
        )
    return _curve(rates[: len(losses)], losses, len(losses) < steps)


def _losses(
    trainer: Trainer, x: Array, y: Array, rates: Numbers, data: str, asked: dict[str, Any]
) -> Numbers:
    """L of a minibatch a step, up to where it explodes, or the last that is finite."""
    examples = Examples.checked(trainer.net, x, y, data=data, rows=trainer.at_a_time, **asked)
    twin = _twin(trainer)
    batches = twin.batches(examples)
    try:
        # overflows are what is looked for
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return np.array(list(_until_it_explodes(_steps(twin, batches, rates))))
    finally:
        twin.net.backend.synchronize()  # the caller may free the data now
        batches.forget()


def _twin(trainer: Trainer) -> Trainer:
    """A trainer in the same state, with arrays of its own."""
    twin = copy.copy(trainer)
    twin.net = copy.deepcopy(trainer.net)
    twin.ema = None
    twin.allocate()
    backend = twin.net.backend
    if trainer.average is not None:  # of which the network may show the average
        backend.asarray(trainer.average.both(trainer.net)[1], out=twin.net.theta.flat)
    backend.asarray(trainer.slots, out=twin.slots)
    backend.asarray(trainer.scaling, out=twin.scaling)
    return twin


def _steps(twin: Trainer, batches: Batches, rates: Numbers) -> Iterator[float]:
    """Train, a step with each learning rate; L of each minibatch just before its update."""
    backend = twin.net.backend
    twin.net.round()
    for i in range(len(rates)):
        if i % batches.steps == 0:
            _start_epoch(twin, batches, rates[i : i + batches.steps])
        at = batches.at
        twin.step(batches)
        yield float(backend.to_host(batches.costs[at : at + 1])[0])


def _until_it_explodes(losses: Iterator[float]) -> Iterator[float]:
    """The losses up to the first that has left the others far below, or is not finite."""
    first = mean = best = math.nan
    for L in losses:
        if not math.isfinite(L):
            return
        yield L
        if math.isnan(first):
            first = mean = best = L
        mean = MEMORY * mean + (1 - MEMORY) * L
        best = min(best, mean)
        # a tenth of the first: or a cost near 0 would end it at once
        if mean > best + EXPLODED * max(abs(best), abs(first) / 10):
            return


def _start_epoch(twin: Trainer, batches: Batches, lr: Numbers) -> None:
    """The uploads of an epoch, of whose steps the first have these learning rates."""
    controls = [twin.control(float(rate), twin.steps + 1 + i) for i, rate in enumerate(lr)]
    table = np.pad(controls, ((0, batches.steps - len(lr)), (0, 0)), mode="edge")
    batches.start(twin.epochs, table, np.zeros(batches.steps), 0)
    twin.epochs += 1


def _curve(lr: Numbers, loss: Numbers, exploded: bool) -> LRCurve:
    """The curve smoothed, its steepest descent before the minimum, and the minimum."""
    decades = np.log10(lr)
    apart = decades[1] - decades[0]
    reach = math.ceil(4 * WIDTH / apart)
    near = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) * apart / WIDTH))
    within = slice(reach, reach + len(lr))
    # its differences from the first, so that rounding makes no fall of a cost that stays
    change = np.convolve(loss - loss[0], near)[within]
    smoothed = loss[0] + change / np.convolve(np.ones(len(lr)), near)[within]
    least = int(smoothed.argmin())
    # from where the curve last was high: what lies before is the minibatches' noise
    high = smoothed[least] + (1 - FALLING) * (smoothed[0] - smoothed[least])
    begin = int(np.flatnonzero(smoothed[: least + 1] >= high)[-1])
    slope = np.gradient(smoothed, decades)[begin : least + 1]
    steepest = begin + int(slope.argmin())
    suggestion = float(lr[steepest]) if slope.min() < 0 else None
    return LRCurve(lr, loss, smoothed, suggestion, float(lr[least]), exploded)
