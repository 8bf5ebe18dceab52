"""Memory: the bytes that a fit needs, by purpose, read from the buffers of its programs; and what
would fit where they are too many.
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from types import SimpleNamespace
from typing import Any, Self, TypeVar

import numpy as np

from gpumlp import checks
from gpumlp.errors import OutOfMemoryError
from gpumlp.io.mapped import large
from gpumlp.loader.examples import parts_of, streams
from gpumlp.loader.recipes import Recipe
from gpumlp.network import CHUNK, MLP
from gpumlp.step.chunked import chunked_bytes
from gpumlp.step.settings import input_type
from gpumlp.step.training import TrainingStep
from gpumlp.training.averaging import SPARE
from gpumlp.training.callbacks import stopping_rule
from gpumlp.training.metrics import columns, measures
from gpumlp.training.stepping import Stepping

T = TypeVar("T")
INTEGERS = (int, np.integer)
MIB = 1 << 20
OMEGA = 8  # bytes that a network has for λΩ(θ)


@dataclass(frozen=True, repr=False)
class Memory:
    """The bytes that a fit needs in its backend, by purpose.  It prints as a table.

    Attributes:
        examples, batch_size, accumulate: the number of training examples, the examples of a step,
            and the micro-batches of a step.
        theta, …, scratch: the bytes of each purpose.  `data` has no arrays that the
            backend uses in place; for streamed data, it is two minibatches.  `tables` is an
            epoch's order, weights and costs; `step` is the arena of a step's x, y, z, h and gz,
            which share memory where they are not needed at the same time.
        held: the bytes of all these that are allocated already.
    """

    examples: int
    batch_size: int
    theta: int = field(metadata={"label": "θ"})
    rounded: int = field(metadata={"label": "θ in 16 bits"})
    remainder: int = field(metadata={"label": "remainder of θ"})
    gradient: int = field(metadata={"label": "gradient, loss scale"})
    slots: int = field(metadata={"label": "the optimizer's state"})
    average: int = field(metadata={"label": "average of θ"})
    best: int = field(metadata={"label": "best θ, for early stopping"})
    data: int = field(metadata={"label": "data"})
    tables: int = field(metadata={"label": "order and tables"})
    step: int = field(metadata={"label": "a step's x, y, z, h and gz"})
    evaluation: int = field(metadata={"label": "evaluation"})
    scratch: int = field(metadata={"label": "workspace of products and sums"})
    held: int
    accumulate: int = 1

    @property
    def total(self) -> int:
        """The bytes of all purposes."""
        return sum(getattr(self, name) for name in NAMES)

    @property
    def missing(self) -> int:
        """The bytes that are still to be allocated."""
        return self.total - self.held

    def __str__(self) -> str:
        title = f"{self.examples:,} examples, batch_size {self.batch_size}"
        title += f", accumulate {self.accumulate}" * (self.accumulate > 1)
        sizes = {label: getattr(self, name) for name, label in NAMES.items()}
        sizes |= {"total": self.total, "allocated already": self.held}
        wide = max(map(len, [title, *sizes]))
        lines = [f"{label:<{wide}} {n / MIB:12,.2f}" for label, n in sizes.items() if n]
        return "\n".join([f"{title:<{wide}} {'MiB':>12}", *lines])

    __repr__ = __str__


NAMES = {each.name: each.metadata["label"] for each in fields(Memory) if each.metadata}


def plan(
    trainer: Stepping, x: Any, y: Any, validation: Any, weighted: bool, early_stopping: Any,
    metric: Any, train_metric: bool, data: str,
) -> Memory:  # fmt: skip
    """The memory of `Trainer.fit` with these arguments, which `Trainer.memory` documents."""
    net, backend, allocated = trainer.net, trainer.net.backend, trainer.slots is not None
    found, train_metric = measures(net.loss, metric), checks.boolean(train_metric, "train_metric")
    step, theta = TrainingStep(trainer.step_settings()), net.theta.whole.nbytes
    of_step = sum(b.nbytes for b in step.initial)
    average = 0
    if step.mean is not None:
        average = step.mean.nbytes + min(SPARE, step.mean.size) * step.mean.itemsize
    rounded = 0 if net.rounded is net.theta else net.rounded.flat.nbytes
    remainder = 0 if step.remainder is None else step.remainder.nbytes
    placement = data, trainer.at_a_time
    examples = Data.of(net, x, y, weighted, *placement)
    tables = trainer.tables(examples)
    parts = [examples] if train_metric else []
    placed = examples.bytes + sum(examples.fed(tables.rows))
    if validation is not None and not (isinstance(validation, INTEGERS) and validation == 0):
        number = isinstance(validation, INTEGERS)
        x_val, y_val, own = (validation, None, None) if number else parts_of(validation)
        parts.append(Data.of(net, x_val, y_val, own is not None, *placement, "_val"))
        placed += parts[-1].bytes
    recipe = Recipe(step, tables)
    scratch = sum(
        backend.scratch_memory(each.program)
        for ways in recipe.plans.values()
        for each in ways.values()
    )
    evaluated = {"": bool(train_metric), "val_": len(parts) > bool(train_metric)}
    named: Any = SimpleNamespace(columns=["cost", *found])
    names = columns({prefix: named for prefix, there in evaluated.items() if there})
    rule = stopping_rule(early_stopping, names)
    best = rule is not None and rule.restore_best
    held = theta + rounded + OMEGA + backend.own_memory(0) + (of_step + average) * allocated
    return Memory(
        len(examples.x), tables.size, theta, rounded, remainder,
        of_step - step.slots.nbytes - remainder, step.slots.nbytes, average, theta * bool(best),
        placed,
        tables=OMEGA + sum(b.nbytes for b in tables.buffers()), step=recipe.size,
        evaluation=sum(each.evaluation() for each in parts),
        scratch=backend.own_memory(max(net.widths)) + scratch, held=held,
        accumulate=trainer.accumulate,
    )  # fmt: skip


@dataclass(frozen=True)
class Data:
    """Training or validation data as `Examples` would place them.

    Attributes:
        bytes: of the arrays that would be placed in the backend.
        streamed: whether x and y are streamed.
    """

    net: MLP
    x: Any
    y: Any
    weights: bool | None
    target: np.dtype[Any]
    bytes: int
    streamed: tuple[bool, bool]

    @classmethod
    def of(
        cls, net: MLP, x: Any, y: Any, weighted: bool, data: str, rows: int, suffix: str = ""
    ) -> Self:  # fmt: skip
        """Data of arrays or of a number of examples; the rest is as in `Examples.checked`."""
        backend, n_0, n = net.backend, net.widths[0], net.widths[-1]
        of_x = input_type(backend, net.embed)
        if isinstance(x, INTEGERS):
            most = (1 << 59) // max(n_0, n)  # NumPy counts bytes in 63 bits
            m = checks.positive_int(x, f"x{suffix}", most=most)
            x = np.broadcast_to(np.zeros((), of_x), (m, n_0))
        x = checks.examples(backend, x, n_0, f"x{suffix}")
        if y is not None:
            y = checks.shaped_targets(backend, net.loss, y, len(x), n, f"y{suffix}")
        labels = net.loss.target == "class" and (y is None or y.ndim == 1)
        target = np.dtype(np.int32) if labels else backend.dtype
        shape = (len(x),) if labels else (len(x), n)
        if labels or y is None:
            y = np.broadcast_to(np.zeros((), target), shape)
        stream = streams(net, [(x, of_x), (y, target)], data, rows)
        placed, streamed = 0, []
        for a, kind, may in ((x, of_x, True), (y.reshape(shape), target, not labels)):
            there = backend.accepts(a, kind)
            stays = not there and stream and may and isinstance(a, np.ndarray)
            placed += 0 if there or stays else a.size * kind.itemsize
            streamed.append(stays or (there and large(a)))
        return cls(net, x, y, weighted or None, target, placed, (streamed[0], streamed[1]))

    def fed(self, rows: int) -> list[int]:
        """The bytes of the feeds."""
        backend = self.net.backend
        pairs = (self.x, input_type(backend, self.net.embed)), (self.y, self.target)
        return [
            backend.feed_memory(a, rows, kind)
            for (a, kind), feeds in zip(pairs, self.streamed, strict=True) if feeds
        ]  # fmt: skip

    def evaluation(self) -> int:
        """The bytes of an `Evaluation` of these data."""
        m, backend = len(self.x), self.net.backend
        share = m * backend.dtype.itemsize if self.weights else 0
        return share + chunked_bytes(self.net, min(m, CHUNK), self.target)


# ---- where memory is short -----------------------------------------------------------------------


UNUSED = 1 / 32  # of the free memory: allocations are rounded up, and kernels and graphs need some


def attempt(work: Callable[[], T], trainer: Stepping, plan: Callable[[Any], Memory]) -> T:
    """work(); if it needs too much memory, the error has the plan, and what would fit.

    plan(trainer) is what a trainer needs for the work.  The arrays of the failed attempt are freed.
    """
    trainer.net.backend.synchronize()
    free = trainer.net.backend.free_memory()
    try:
        return work()
    except OutOfMemoryError as error:
        drop_tracebacks(error)
        planned = plan(trainer)
        if free is None:
            raise OutOfMemoryError(f"{error}\n{planned}") from error
        usable = free - int(UNUSED * free)

        def fits(**changes: Any) -> bool:
            changed = copy.copy(trainer)
            vars(changed).update(changes)
            return plan(changed).total - planned.held <= usable

        needed = f"{planned.missing / MIB:,.2f} MiB were to be allocated"
        sizes = f"{needed} and {free / MIB:,.2f} were free"
        advice = _advice(trainer, planned, fits)
        raise OutOfMemoryError(f"out of GPU memory: {sizes}\n{planned}\n{advice}") from error


def drop_tracebacks(error: BaseException) -> None:
    """Free the arrays that the tracebacks of an error would hold as long as the error lives."""
    each: BaseException | None = error
    while each is not None:
        each = each.with_traceback(None).__context__


def _advice(trainer: Stepping, planned: Memory, fits: Callable[..., bool]) -> str:
    """The settings that would fit; if no batch_size does, what else to change."""
    if fits():
        return (
            "so much was free, but in pieces, or another program or a callback has allocated it "
            "since: free it, or use a smaller batch_size"
        )

    def largest_size(most: int, of: Callable[[int], dict[str, Any]], **changes: Any) -> int:
        """The largest n of 1 … most whose settings of(n) fit; 0 if none do."""
        return bisect_right(range(1, most + 1), False, key=lambda n: not fits(**of(n), **changes))

    whole = trainer.batch_size
    rows = largest_size(trainer.at_a_time, lambda n: {"accumulate": -(-whole // n), "fold": None})
    options, largest = [f"accumulate={-(-whole // rows)}"] if rows else [], 0
    for low in sorted({trainer.low_memory, True}):
        size = largest_size(planned.batch_size, lambda n: {"batch_size": n}, low_memory=low)
        if size > largest:
            options.append(f"batch_size={size}" + ' and memory="low"' * (low > trainer.low_memory))
            largest = size
    if options:
        return f"use {', or '.join(options)}"
    return (
        f"no batch_size fits; use {', '.join([*_smaller(trainer, planned), 'a smaller network'])}"
    )


def _smaller(trainer: Stepping, planned: Memory) -> list[str]:
    """The settings that need less memory with every batch_size."""
    net, slots = trainer.net, len(trainer.optimizer.slots)
    rounds = net.backend.rounds_slots and trainer.optimizer.orthogonal is None
    options = {
        'precision="bfloat16"': net.backend.storage.itemsize > 2,
        'slot_precision="bfloat16"': slots and rounds and trainer.slot_type.itemsize > 2,
        "ema=None": trainer.ema is not None,
        "an optimizer with less state": slots > 1,
        'data="stream"': planned.data > planned.missing // 4,
    }
    return [option for option, helps in options.items() if helps]
