"""Memory: the bytes that a fit needs, by purpose, read from the buffers of its programs."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from types import SimpleNamespace
from typing import Any, Self

import numpy as np

from gpumlp import checks
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
            x = np.broadcast_to(np.zeros((), of_x), (checks.positive_int(x, f"x{suffix}"), n_0))
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
