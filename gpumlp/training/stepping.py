"""A trainer's step: its minibatches, its numbers, and what it does to θ."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gpumlp import backprop
from gpumlp.loader.batches import Batches
from gpumlp.loader.examples import Examples

if TYPE_CHECKING:
    from gpumlp.training.trainer import Trainer


def batches(trainer: Trainer, data: Examples) -> Batches:
    """The minibatches of `data` for `step`; `Batches.start` comes before an epoch's first."""
    numbers = 1 + len(trainer.optimizer.control(trainer.lr, 1))
    net, widths = trainer.net, "-".join(map(str, trainer.net.widths))
    functions = " ".join([*(f.name for f in net.f[1:]), net.loss.name, trainer.optimizer.name])
    name = (
        f"step {widths} {functions} {net.precision}{' clipped' * (trainer.clip_norm is not None)}"
    )
    seed = trainer.seed if trainer.shuffle else None
    return Batches(
        net, data, trainer.batch_size, seed, numbers, trainer.factors, name,
        rows=trainer.at_a_time, low=trainer.low_memory,
    )  # fmt: skip


def control(trainer: Trainer, lr: float, t: int) -> tuple[float, ...]:
    """The row of step t = 1, 2, … in `Batches.start`'s table: the gradient's scale, the
    optimizer's numbers, and the factors with which a gradient is folded.
    """
    decay, params = trainer.net.regularizer.weight_decay() or 0.0, trainer.optimizer.params
    # one rate for all weights, wherever the gradient is added to them
    factors = trainer.optimizer.factors(lr * max(trainer.rates), decay, **params)
    return (1.0, *trainer.optimizer.control(lr, t), *factors)


def step(trainer: Trainer, batches: Batches) -> None:
    """One step on the next minibatch: gather, forward, backward, clip, update."""
    early = trainer._updating.splits(trainer)
    early_update = partial(_work, trainer, batches, early_update=True) if early else None
    batches.run(partial(_work, trainer, batches), early_update)
    trainer.steps += 1


def _work(trainer: Trainer, batches: Batches, parts: range, early_update: bool = False) -> None:
    """Some of the micro-batches that a step consists of; after the last one θ moves."""
    net, s, updating = trainer.net, batches.s, trainer._updating
    s.scaling = trainer.scaling
    for j in parts:
        batches.load(j)
        backprop.forward(net, s)
        if early_update and j == batches.parts - 1:
            updating.early_update(trainer, s, batches.control)
        backprop.backward(net, s, updating.sums.into(j))
        updating.sums.add(j)
    if parts.stop == batches.parts:
        updating.finish(trainer, s, batches.control)
        if (average := trainer.average) is not None:
            net.backend.defer(lambda: average.step(net, batches.control))
        batches.end()
