"""A trainer's step: its arrays, its minibatches, its numbers, and what it does to θ."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol, Self

import numpy as np

from gpumlp import backprop, checks
from gpumlp.backends import Backend
from gpumlp.errors import OutOfMemoryError
from gpumlp.io.types import Array
from gpumlp.loader.batches import Batches
from gpumlp.loader.examples import Examples
from gpumlp.network import MLP
from gpumlp.training.averaging import Average
from gpumlp.training.updating import Updated, Updating, updating

SCALE = 2.0**16  # the loss scale that float16 starts from, as torch's GradScaler does
ALLOCATED = ("slots", "factors", "scaling", "updating", "average")  # the attributes of `allocate`


class Stepping(Updated, Protocol):
    """What steps need of a `Trainer`, which documents each."""

    lr: float
    batch_size: int
    seed: int
    shuffle: bool
    low_memory: bool
    ema: float | None
    fold: bool | None
    slot_type: np.dtype[Any]
    scaling: Array
    updating: Updating
    average: Average | None
    steps: int
    epochs: int

    @property
    def at_a_time(self) -> int: ...  # noqa: D102

    def with_network(self, net: MLP, **changes: Any) -> Self: ...  # noqa: D102

    def batches(self, data: Examples) -> Batches: ...  # noqa: D102

    def control(self, lr: float, t: int) -> tuple[float, ...]: ...  # noqa: D102

    def step(self, batches: Batches) -> None: ...  # noqa: D102


def checked_network(net: Any) -> MLP:
    """The argument `net`, if it is a network."""
    if not isinstance(net, MLP):
        raise TypeError(f"net must be a gpumlp.MLP, got {type(net).__name__}")
    return net


def checked_memory(memory: Any) -> str:
    """The argument `memory` of `Trainer`, if it is one of its two values."""
    if memory not in ("normal", "low"):
        raise ValueError(f'memory must be "normal" or "low", got {memory!r}')
    return str(memory)


def slot_type(backend: Backend, precision: str | None) -> np.dtype[Any]:
    """The dtype of the optimizer's state.

    Raises:
        ValueError: the backend does not have this precision of the state.
    """
    if precision is None:
        return backend.dtype
    if precision != "bfloat16":
        raise ValueError(f'slot_precision must be None or "bfloat16", got {precision!r}')
    if not backend.rounds_slots:
        raise ValueError(
            f'slot_precision="bfloat16" does not go with {backend.name} and '
            f'{backend.precision}; use backend="cupy" and another precision than float64, or '
            "slot_precision=None"
        )
    from gpumlp.backends.cuda.source import dtype_of

    return dtype_of(precision)


def checked_parts(accumulate: Any, batch_size: int) -> int:
    """The argument `accumulate` of `Trainer`, a whole number from 1 to `batch_size`."""
    parts = checks.positive_int(accumulate, "accumulate")
    if parts > batch_size:
        raise ValueError(
            f"accumulate={parts} micro-batches cannot be made of batch_size={batch_size} examples; "
            "pass at most as many"
        )
    return parts


# ---- arrays --------------------------------------------------------------------------------------


def allocate(trainer: Stepping) -> None:
    """Set the attributes `ALLOCATED` to their state before the first step.

    Raises:
        OutOfMemoryError: nothing stays allocated.
    """
    backend, layout, slots = trainer.net.backend, trainer.net.theta.layout, trainer.optimizer.slots
    S = SCALE if backend.scales_loss else 1.0
    try:
        trainer.slots = backend.full((len(slots), layout.size), 0, trainer.slot_type)
        trainer.factors = backend.full((2,), 0)
        trainer.scaling = backend.asarray(np.array([S, 1 / S, 0, 0]), dtype=np.float64)
        trainer.updating = updating(trainer, trainer.fold)
        trainer.average = None if trainer.ema is None else Average(trainer.net, trainer.ema)
    except OutOfMemoryError:  # its traceback holds the trainer
        for name in ALLOCATED:
            setattr(trainer, name, None)
        raise


def parameters(trainer: Stepping) -> dict[str, Array]:
    """The flat buffers of θ and of what goes with it, by the prefix of their names in files."""
    flat = {"": trainer.net.theta.flat}
    if trainer.average is not None:
        flat[""], flat["iterate."] = trainer.average.both(trainer.net)
    for i, slot in enumerate(trainer.optimizer.slots):
        flat[f"optimizer.{slot}."] = trainer.slots[i]
    return flat


def state(trainer: Stepping) -> list[Array]:
    """The arrays, in addition to θ, that the next step depends on."""
    average = [] if trainer.average is None else trainer.average.arrays[:1]
    return [trainer.slots, trainer.scaling, *average]


def restore(trainer: Stepping, arrays: Sequence[Array], shown: bool) -> None:
    """The trainer's `state` ← arrays; `shown` as in `Average`."""
    backend = trainer.net.backend
    for own, saved in zip(state(trainer), arrays, strict=True):
        backend.asarray(saved, out=own)
    backend.synchronize()
    if trainer.average is not None:
        trainer.average.shown = shown


# ---- steps ---------------------------------------------------------------------------------------


def batches(trainer: Stepping, data: Examples) -> Batches:
    """The minibatches of `data` for `step`; call `Batches.start` before each epoch."""
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


def control(trainer: Stepping, lr: float, t: int) -> tuple[float, ...]:
    """The row of step t = 1, 2, … in the table of `Batches.start`.

    It holds the gradient's scale, the optimizer's numbers, and the factors of a folded gradient.
    """
    decay, params = trainer.net.regularizer.weight_decay() or 0.0, trainer.optimizer.params
    # where a gradient is folded, all weights have the same learning rate
    factors = trainer.optimizer.factors(lr * max(trainer.rates), decay, **params)
    return (1.0, *trainer.optimizer.control(lr, t), *factors)


def step(trainer: Stepping, batches: Batches) -> None:
    """One step on the next minibatch: gather, forward, backward, clip, update."""
    # clipping and the loss scale need the whole gradient first
    whole = trainer.clip_norm is not None or trainer.net.backend.scales_loss
    early = trainer.updating.splits and not whole
    early_update = partial(_work, trainer, batches, early_update=True) if early else None
    batches.run(partial(_work, trainer, batches), early_update)
    trainer.steps += 1


def _work(trainer: Stepping, batches: Batches, parts: range, early_update: bool = False) -> None:
    """Some of the micro-batches of a step; the last one is followed by the update of θ."""
    net, s, updating = trainer.net, batches.s, trainer.updating
    s.scaling = trainer.scaling
    for j in parts:
        batches.load(j)
        backprop.forward(net, s)
        if early_update and j == batches.parts - 1:
            updating.early_update(trainer, s, batches.control, j)
        backprop.backward(net, s, updating.into(j))
        updating.add(j)
    if parts.stop == batches.parts:
        updating.finish(trainer, s, batches.control)
        if (average := trainer.average) is not None:
            net.backend.defer(lambda: average.step(net, batches.control))
        batches.end()
