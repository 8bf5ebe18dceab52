"""Minibatches from shuffled examples: the tables of an epoch, streams, and the compiled steps."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Protocol

import numpy as np

from gpumlp.backends import Backend
from gpumlp.backends.declaration import Call
from gpumlp.io.types import Array, HostArray, HostVector
from gpumlp.loader.examples import Examples
from gpumlp.loader.recipes import Recipe
from gpumlp.step.plan import Plan
from gpumlp.step.program import Buffer


class Order:
    """The order of the examples in an epoch, and the next minibatch of it, on the host.

    Args:
        m: the number of examples, and `weights` those of the examples, if they have some.
        size: the number of examples of a minibatch.
        seed: shuffles them anew for each epoch; None: the order is that of the data.

    Attributes:
        rows: (m,), in order, after `draw`.
        steps, at: the number of minibatches per epoch, and of the next one, from 0.
        shares: (steps,), the weight of each minibatch in the mean over the epoch.
    """

    def __init__(
        self, m: int, weights: HostArray | None, size: int, seed: int | None, first: int = 0
    ) -> None:
        self._m, self._seed, self._weights, self._first = m, seed, weights, first
        self.size = min(size, m)
        self.steps, self.at = -(-m // self.size), 0
        self.shares = np.diff([*range(0, m, self.size), m]) / m

    def draw(self, epoch: int) -> None:
        """The order of an epoch, which depends on seed and epoch alone."""
        m, weights = self._m, self._weights
        if self._seed is None:
            order = np.arange(m)
        else:
            draw = _few_shuffled if m <= FEW else _shuffled
            order = draw(self._seed, epoch, m)
        if weights is not None:
            weights = weights[order]
            starts = np.arange(0, m, self.size)
            self.shares = np.add.reduceat(weights, starts) / weights.sum()
        self.rows = order + self._first if self._first else order

    @property
    def of(self) -> int:
        """The number of examples of the next minibatch."""
        return min(self.size, self._m - self.at * self.size)

    @property
    def alike(self) -> int:
        """The number of next minibatches that have as many examples."""
        return max(1, self._m // self.size - self.at)

    def minibatches(self, steps: int) -> HostArray:
        """The rows of the next minibatches, which have equally many examples, one after another."""
        begin = self.at * self.size
        return self.rows[begin : begin + steps * self.of]

    def go_on(self, steps: int) -> None:
        """Steps were done; after the last one of an epoch, the next is the first."""
        self.at = (self.at + steps) % self.steps


FEW = 1 << 13  # examples; the orders of so few are kept, 8 MiB in all, for fits of the same data


def _shuffled(seed: int, epoch: int, m: int) -> HostArray:
    order = np.random.default_rng([seed, epoch]).permutation(m)
    order.flags.writeable = False  # it may be another fit's, too
    return order


_few_shuffled = lru_cache(maxsize=128)(_shuffled)


class Minibatches(Protocol):
    """What a fit does with the minibatches of its network."""

    order: Order

    @property
    def alike(self) -> int:
        """The number of next steps that one call can do."""

    def start(self, epoch: int, controls: HostVector, costs: HostArray, at: int) -> None:
        """Begin an epoch.

        controls: (steps, numbers + 2), see `Stepping.controls`.
        costs: (steps,), L of the steps before `at`, which is the next one.
        """

    def costs(self, steps: slice = slice(None)) -> HostArray:
        """L of some minibatches of the epoch that were done, float64, on the host."""

    def forget(self) -> None:
        """Drop what may refer back to this object."""


class Batches:
    """Minibatches without replacement; an epoch's last may be smaller, and none is dropped.

    A step reads from fixed buffers.  Its first launch fills them from the epoch's tables, so that a
    step can be recorded once and replayed.  Streamed examples are copied into these buffers before
    that launch.  (To use the two upload buffers directly would save the launch of a cast, but needs
    two recordings of each step.)

    Args:
        recipe: the programs of the trainer's step, and `arrays` the arrays of its held buffers.
        seed: of the orders.
        name: what the time of a step depends on, the key in the tuning cache.

    Attributes:
        order: that of the current epoch.
    """

    def __init__(
        self, backend: Backend, data: Examples, recipe: Recipe, arrays: Mapping[Buffer, Array],
        seed: int | None, name: str,
    ) -> None:  # fmt: skip
        tables = recipe.tables
        self._backend, self._data, self._tables = backend, data, tables
        self.order = Order(len(data.x), data.weights, tables.size, seed)
        held = {
            b: backend.full(b.shape, tables.initial.get(b, 0), b.dtype) for b in tables.buffers()
        }
        self._costs, self._position = held[tables.costs], held[tables.position]
        self._rows, self._controls = held[tables.order], held[tables.controls]
        if tables.weights is not None and data.weights is not None:
            # only their ratios matter, and with this scale they fit any dtype
            backend.asarray(data.weights / data.weights.max(), out=held[tables.weights])
        held |= arrays
        held |= {b: a for b, a in ((tables.x, data.x), (tables.y, data.y)) if b is not None}
        self._feeds = [
            backend.feed(a, tables.rows, kind) if b is None else None
            for b, a, kind in (
                (tables.x, data.x, data.kind), (tables.y, data.y, data.target)
            )
        ]  # fmt: skip
        self._fetched = False
        arena = backend.empty((recipe.size,), np.uint8)
        self._programs = recipe.compiled(backend, arena, held, name)
        self._recipe, self._memory = recipe, (arena, held)
        self._places = {}
        for of, ways in recipe.plans.items() if tables.streams else ():
            planned = next(iter(ways.values()))
            own = planned.arrays(arena, held)
            self._places[of] = [None if b is None else own[b] for b in planned.program.inputs()]

    def start(self, epoch: int, controls: HostVector, costs: HostArray, at: int) -> None:
        """Upload the tables of an epoch: see `Minibatches`."""
        backend = self._backend
        self.order.draw(epoch)
        backend.asarray(self.order.rows, dtype=np.int64, out=self._rows)
        backend.asarray(controls, dtype=np.float64, out=self._controls)
        table = costs
        if self._costs.ndim > 1:  # of shards
            table = np.zeros(self._costs.shape)
            table[:, 0] = costs
        backend.asarray(table, dtype=np.float64, out=self._costs)
        self.seek(at)

    def seek(self, at: int) -> None:
        """Make `at` the next step."""
        self.order.at = at
        self._backend.asarray(np.array([at]), dtype=np.int64, out=self._position)
        self._fetch(0)

    @property
    def alike(self) -> int:
        """The number of next steps that one call can do: those of one program, with no stream."""
        return 1 if self._tables.streams else self.order.alike

    def run(self, steps: int = 1) -> None:
        """Do the next steps, at most `alike` of them."""
        of = self.order.of
        if self._tables.streams:
            self._run_streamed(of)
        else:
            self._programs[of, 0](steps)
        self.order.go_on(steps)
        if self.order.at > 0:  # after the last step `start` brings another order
            self._fetch(0)

    def costs(self, steps: slice = slice(None)) -> HostArray:
        costs, shards = self._backend.to_host(self._costs[steps]), self._tables.shards
        if shards.count == 1:
            return costs
        by_shard = np.ascontiguousarray(costs.T)  # in which a process has neighbouring rows
        of_each = shards.each * len(costs)
        shards.world.gather(by_shard.reshape(-1), (of_each,) * shards.world.size)
        return sum(by_shard, start=np.zeros(len(costs)))

    def _run_streamed(self, of: int) -> None:
        """Do a step micro-batch by micro-batch, and fetch each while the backend computes."""
        parts = len(self._tables.parts(of))
        for j in range(parts):
            if not self._fetched:
                self._fetch(j)
            for feed, place in zip(self._feeds, self._places[of, j], strict=True):
                if feed is not None:
                    feed.copy_into(place)
            self._programs[of, j](1)
            self._fetched = False
            if j + 1 < parts:
                self._fetch(j + 1)
        if not parts:  # a process without examples of this minibatch
            self._programs[of, 0](1)

    def _fetch(self, j: int) -> None:
        """Begin to fetch the streamed examples of micro-batch j of the next minibatch."""
        if not self._tables.streams:
            return
        minibatch = self.order.minibatches(1)
        parts = self._tables.parts(len(minibatch))
        if not parts:
            return
        index = minibatch[parts[j].start :][: parts[j].m]
        for feed in self._feeds:
            if feed is not None:
                feed.fetch(index)
        self._fetched = True

    def operations(self) -> tuple[Plan, list[Call]]:
        """The program of a whole minibatch, and its calls: the first of the ways to do it."""
        tables, (arena, held) = self._tables, self._memory
        planned = next(iter(self._recipe.whole(tables.size).values()))
        return planned, planned.calls(self._backend, planned.arrays(arena, held))

    def forget(self) -> None:
        """Drop the recordings, which may refer back to this object."""
        self._programs.clear()
