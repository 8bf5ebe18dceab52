"""The examples of an epoch as a step sees them: its data, and the tables that it reads."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpumlp.backends import Backend
from gpumlp.io.types import Array
from gpumlp.step.program import Buffer
from gpumlp.step.recording import F64, held
from gpumlp.step.shards import WHOLE, Shards

I64 = np.dtype(np.int64)


class MicroBatch(NamedTuple):
    """m neighbouring examples of a minibatch, from `start` on, in one shard of it."""

    shard: int
    start: int
    m: int


class Tables:
    """Buffers of an epoch.  They are held, since each step reads its row, and some write one.

    Args:
        x, y: all examples, (m, n_0), and (m, n_L) or labels (m,): arrays, or what has their shape.
        target: the dtype of y for the loss.
        streamed: whether x and y are streamed: then a minibatch has buffers for them.
        weighted: whether examples have weights.
        size, rows: the number of examples of a minibatch and of a micro-batch.
        numbers: of a row of `control`.
        shards: the parts of a minibatch; this process computes some of them.

    Attributes:
        x, y: all examples in the backend; None if they are streamed.
        order: (m,), the order of the examples in the epoch; index: (size,), a minibatch of it.
        position: (1,), the step; control: (numbers,), its row of controls (steps, numbers + 2).
        costs: (steps,), L of each minibatch; with shards (steps, shards), the sum in each.
        weights: (m,), the weight of each example; own_weights: (size,), those of a minibatch; None
            if all are equal.
        streams: whether x or y is streamed.
        sizes: the numbers of examples of minibatches that occur.
        initial: the values of buffers that begin with one.
    """

    def __init__(
        self, backend: Backend, x: Array, y: Array, target: np.dtype[Any],
        streamed: tuple[bool, ...], weighted: bool, size: int, rows: int, numbers: int,
        shards: Shards = WHOLE,
    ) -> None:  # fmt: skip
        m = len(x)
        self._dtype, self._y_shape, self._target = backend.dtype, y.shape[1:], target
        self.size, self.shards = min(size, m), shards
        self._of_shard = -(-self.size // shards.count)
        self.rows = min(rows, self._of_shard)
        self.steps = -(-m // self.size)
        self.x = None if streamed[0] else held("x of all", x.shape, backend.storage)
        self.y = None if streamed[1] else held("y of all", y.shape, target)
        self.order, self.index = held("order", (m,), I64), held("index", (self.size,), I64)
        self.position, self.control = held("position", (1,), I64), held("control", (numbers,), F64)
        self.controls = held("controls", (self.steps, numbers + 2), F64)
        each = (shards.count,) if shards.count > 1 else ()
        self.costs = held("costs", (self.steps, *each), F64)
        self.weights = held("weights of all", (m,), backend.dtype) if weighted else None
        self.own_weights = held("weights", (self.size,), backend.dtype) if weighted else None
        self.streams = self.x is None or self.y is None
        self.initial: dict[Buffer, float] = {}
        self._uniform: dict[int, Buffer] = {}
        self.sizes = dict.fromkeys((m - (self.steps - 1) * self.size, self.size))

    def parts(self, of: int) -> list[MicroBatch]:
        """The micro-batches of this process in a minibatch of so many examples, in order."""
        found = []
        for shard in self.shards.own:
            begin, end = (min(of, i * self._of_shard) for i in (shard, shard + 1))
            found += [
                MicroBatch(shard, start, min(self.rows, end - start))
                for start in range(begin, end, self.rows)
            ]
        return found

    def ranks(self, of: int) -> int:
        """The number of processes that have examples of a minibatch of so many: the first ones."""
        return -(-of // (self._of_shard * self.shards.each))

    def part_name(self, of: int, j: int) -> str:
        """What names the program that begins with micro-batch j, if there are several."""
        count = len(self.parts(of))
        if count <= 1:
            return ""
        return f", part {j + 1} of {count}" if self.streams else f" in {count} parts"

    def buffers(self) -> list[Buffer]:
        """The buffers to allocate: all but x and y."""
        own = [
            self.order, self.index, self.position, self.control, self.controls, self.costs,
            self.weights, self.own_weights, *self.initial,
        ]  # fmt: skip
        return [each for each in own if each is not None]

    def targets(self, m: int) -> Buffer:
        """The targets of a micro-batch."""
        return Buffer("y", (m, *self._y_shape), self._target)

    def shares(self, of: int, m: int, start: int) -> Buffer:
        """The share of each example in J: m examples of a minibatch of `of` examples."""
        if self.own_weights is not None:
            return self.own_weights.rows(of).rows(m, start)
        if of not in self._uniform:
            self._uniform[of] = held(f"1/{of}", (min(self.rows, of),), self._dtype)
            self.initial[self._uniform[of]] = 1 / of
        return self._uniform[of].rows(m)
