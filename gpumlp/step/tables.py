"""The examples of an epoch as a step sees them: its data, and the tables that it reads."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpumlp.backends import Backend
from gpumlp.io.types import Array
from gpumlp.step.program import Buffer
from gpumlp.step.recording import F64, held
from gpumlp.step.sharding import WHOLE, Shards

I64 = np.dtype(np.int64)


class MicroBatch(NamedTuple):
    """m neighbouring examples of a minibatch, from `start` on, in one shard of it.

    number: of the shard among those of the process.  first, last: whether the shard begins with
    this micro-batch, and whether it ends with it.
    """

    shard: int
    number: int
    start: int
    m: int
    first: bool
    last: bool


class Tables:
    """Buffers of an epoch.  They are held, since each step reads its row, and some write one.

    Args:
        x, y: all examples, (m, n_0), and (m, n_L) or labels (m,): arrays, or what has their shape.
        kinds: the dtypes of x and of y in a step.
        streamed: whether x and y are streamed: then a minibatch has buffers for them.
        weighted: whether examples have weights.
        size, rows: the number of examples of a minibatch and of a micro-batch.
        numbers: of a row of `control`.
        shards: the parts of a minibatch; this process computes some of them.
        members: the networks that are trained in one program, each with its own order; 0: one.

    Attributes:
        x, y: all examples in the backend; None if they are streamed.
        order: (m,), the order of the examples in the epoch.  With K members (steps K size,): what
            the members read in a step are neighbours.
        position: (1,), the step; control: (numbers,), its row of controls (steps, numbers + 2).
            With K members (steps, K numbers + 2).
        costs: (steps,), L of each minibatch; with shards (steps, shards), the sum in each; with
            members (steps, K).
        weights: (m,), the weight of each example; None if all are equal.
        streams: whether x or y is streamed.
        sizes: the numbers of examples of minibatches that occur.
        initial: the values of buffers that begin with one.
    """

    def __init__(
        self, backend: Backend, x: Array, y: Array, kinds: tuple[np.dtype[Any], np.dtype[Any]],
        streamed: tuple[bool, ...], weighted: bool, size: int, rows: int, numbers: int,
        shards: Shards = WHOLE, members: int = 0,
    ) -> None:  # fmt: skip
        m, K = len(x), max(1, members)
        self._dtype, self._y_shape, self._target = backend.dtype, y.shape[1:], kinds[1]
        self.size, self.shards, self.members = min(size, m), shards, members
        self._of_shard = -(-self.size // shards.count)
        self.rows = min(rows, self._of_shard)
        self.steps = -(-m // self.size)
        self.x = None if streamed[0] else _shared("x of all", x.shape, kinds[0])
        self.y = None if streamed[1] else _shared("y of all", y.shape, kinds[1])
        self.order = _shared("order", (self.steps * K * self.size if members else m,), I64)
        self.position = _shared("position", (1,), I64)
        self.control = held("control", (numbers,), F64)
        self.controls = _shared("controls", (self.steps, K * numbers + 2), F64)
        each = (shards.count,) if shards.count > 1 else (K,) if members else ()
        self.costs = _shared("costs", (self.steps, *each), F64)
        self.weights = _shared("weights of all", (m,), backend.dtype) if weighted else None
        self._minibatches: dict[int, tuple[Buffer, Buffer | None]] = {}
        self.streams = self.x is None or self.y is None
        self.initial: dict[Buffer, float] = {}
        self._uniform: dict[int, Buffer] = {}
        self.sizes = dict.fromkeys((m - (self.steps - 1) * self.size, self.size))

    def parts(self, of: int) -> list[MicroBatch]:
        """The micro-batches of this process in a minibatch of so many examples, in order."""
        found: list[MicroBatch] = []
        for number, shard in enumerate(self.shards.own):
            begin, end = (min(of, i * self._of_shard) for i in (shard, shard + 1))
            for start in range(begin, end, self.rows):
                m = min(self.rows, end - start)
                first, last = start == begin, start + m == end
                found.append(MicroBatch(shard, number, start, m, first, last))
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
            self.order, self.position, self.control, self.controls, self.costs, self.weights,
            *(each for pair in self._minibatches.values() for each in pair), *self.initial,
        ]  # fmt: skip
        return [each for each in own if each is not None]

    def minibatch(self, of: int) -> tuple[Buffer, Buffer | None]:
        """The rows of a minibatch of `of` examples, (of,), and their weights; None if equal."""
        if of not in self._minibatches:
            weighted = self.weights is not None
            weights = held("weights", (of,), self._dtype) if weighted else None
            self._minibatches[of] = held("index", (of,), I64), weights
        return self._minibatches[of]

    def targets(self, m: int) -> Buffer:
        """The targets of a micro-batch."""
        return Buffer("y", (m, *self._y_shape), self._target)

    def shares(self, of: int, m: int, start: int) -> Buffer:
        """The share of each example in J: m examples of a minibatch of `of` examples."""
        _, weights = self.minibatch(of)
        if weights is not None:
            return weights.rows(m, start)
        if of not in self._uniform:
            self._uniform[of] = held(f"1/{of}", (min(self.rows, of),), self._dtype)
            self.initial[self._uniform[of]] = 1 / of
        return self._uniform[of].rows(m)


def _shared(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Buffer:
    return held(name, shape, dtype, shared=True)
