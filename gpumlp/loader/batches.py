"""Minibatches from shuffled examples, in fixed buffers, micro-batch by micro-batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from gpumlp.io.mapped import large
from gpumlp.io.types import Array, HostArray, HostVector
from gpumlp.loader.examples import Examples
from gpumlp.network import MLP
from gpumlp.workspace import Workspace

Work = Callable[[range], None]
"""The operations of a step for some of a minibatch's micro-batches."""


class Batches:
    """Minibatches without replacement; an epoch's last may be smaller, and none is dropped.

    Their order is shuffled by `seed` anew for each epoch; None: it is the order of the data.

    A step reads from fixed buffers.  Its first launch fills them from the epoch's tables, so that a
    step can be recorded once and replayed.  Streamed examples are copied into these buffers before
    that launch.  (To use the two upload buffers directly would save the launch of a cast, but needs
    two recordings of each step.)

    A minibatch is divided into micro-batches of up to `rows` examples.  A step is one recording if
    all examples are in the backend, and one recording per micro-batch if they are streamed.

    Attributes:
        s: the workspace that `load` fills with a micro-batch.
        parts: the number of micro-batches of the current step.
        steps: the number of minibatches per epoch.
        at: the next step of the epoch, from 0.
        control: (numbers,) float64: the step's row of the table of `start`, without its last two
            numbers, which go into `factors`, (2,) in θ's type.
        costs: (steps,) float64: L of each minibatch.
        shares: (steps,) on the host: the weight of each minibatch in the mean over the epoch.
    """

    def __init__(
        self, net: MLP, data: Examples, size: int, seed: int | None, numbers: int, factors: Array,
        name: str, *, rows: int, low: bool = False,
    ) -> None:  # fmt: skip
        backend, m = net.backend, len(data.x)
        self._backend, self._data, self._seed = backend, data, seed
        self._size, self._rows = min(size, m), min(rows, m)
        self.steps, self.at = -(-m // self._size), 0
        self.s = Workspace(net, self._rows, low=low)
        self.control = backend.full((numbers,), 0, np.float64)
        self._factors, self._name = factors, name
        self.costs = backend.full((self.steps,), 0, np.float64)
        self._position = backend.full((1,), 0, np.int64)
        self._order = backend.empty((m,), np.int64)
        self._controls = backend.full((self.steps, numbers + 2), 0, np.float64)
        self._index = backend.empty((self._size,), np.int64)
        self._y = backend.empty((self._rows, *data.y.shape[1:]), data.target)
        self._feeds = [
            None if backend.accepts(a, kind) and not large(a) else backend.feed(a, self._rows, kind)
            for a, kind in ((data.x, backend.storage), (data.y, data.target))
        ]
        self._streamed = any(feed is not None for feed in self._feeds)
        self._weights = None
        if data.weights is not None:
            # only their ratios matter, and with this scale they fit any dtype
            self._weights = backend.asarray(data.weights / data.weights.max())
            self._of_batch = backend.empty((self._size,))
        self._fetched, self._current = False, (0, 0)
        self._recorded: dict[tuple[int, int], Callable[[], None] | None] = {}
        # all sizes that occur, so that their arrays are allocated before the first step
        for of in (m - (self.steps - 1) * self._size, self._size):
            self._select_batch(of)
            self._select_part(self.parts - 1)
            self._select_part(0)

    def start(self, epoch: int, controls: HostVector, costs: HostArray, at: int) -> None:
        """Upload the order of an epoch, which depends on seed and epoch alone, and its tables.

        controls: (steps, numbers + 2) on the host; costs: (steps,), L of the steps before `at`.
        """
        backend, weights = self._backend, self._data.weights
        order = np.arange(len(self._data.x))
        if self._seed is not None:
            order = np.random.default_rng([self._seed, epoch]).permutation(len(order))
        self._host_order = order
        backend.asarray(order, dtype=np.int64, out=self._order)
        backend.asarray(controls, dtype=np.float64, out=self._controls)
        backend.asarray(costs, dtype=np.float64, out=self.costs)
        self.seek(at)
        counted = np.ones(len(order)) if weights is None else weights[order]
        starts = np.arange(0, len(order), self._size)
        self.shares = np.add.reduceat(counted, starts) / counted.sum()

    def seek(self, at: int) -> None:
        """Make `at` the next step."""
        self.at = at
        self._backend.asarray(np.array([at]), dtype=np.int64, out=self._position)
        self._fetch(0)

    def run(self, work: Work, early_update: Work | None = None) -> None:
        """Do `work` on the next minibatch: on all its micro-batches, or on one after the other.

        For each size of a minibatch, the first step is enqueued operation by operation, which
        compiles kernels and plans products.  The second is recorded; it and all later ones are
        replayed.

        Args:
            work: gets a range of micro-batches.  It begins each with `load`, and ends the last with
                `end`.
            early_update: see `Backend.record`.
        """
        self._select_batch(min(self._size, len(self._order) - self.at * self._size))
        whole = range(self.parts)
        for parts in [range(j, j + 1) for j in whole] if self._streamed else [whole]:
            self._select_part(parts.start)
            if not self._fetched:
                self._fetch(parts.start)
            for feed, place in zip(self._feeds, (self.s.h[0], self.s.y), strict=True):
                if feed is not None:
                    feed.copy_into(place)
            self._enqueue(parts, work, early_update)
            self._fetched = False
            if parts.stop < self.parts:
                self._fetch(parts.stop)  # while the backend computes
        self.at = (self.at + 1) % self.steps
        if self.at > 0:  # after the last step `start` brings another order
            self._fetch(0)

    def _enqueue(self, parts: range, work: Work, early_update: Work | None) -> None:
        """Enqueue work(parts), or replay its recording."""
        key, do = (self._of, parts.start), partial(work, parts)
        if key not in self._recorded:
            self._recorded[key] = None
            do()
        else:
            early = (
                partial(early_update, parts) if early_update and parts.stop == self.parts else None
            )
            replay = self._recorded[key] or self._backend.record(do, self._named(parts), early)
            self._recorded[key] = replay
            (replay or do)()

    def _named(self, parts: range) -> str:
        """The name under which `gpumlp tune` stores the fastest variant of a recording."""
        name = f"{self._name}, minibatch {self._of}"
        if self.parts == 1:
            return name
        one = f", part {parts.start + 1} of {self.parts}"
        return name + (one if self._streamed else f" in {self.parts} parts")

    def load(self, j: int) -> None:
        """Load micro-batch j: h[0] = x, y, and weights that are shares of the whole minibatch.

        For j = 0 also control, factors and J = 0.
        """
        backend, s, whole = self._backend, self.s, self._index[: self._of]
        if j == 0:
            backend.begin(
                self._position, self._order, self._controls, self._size, whole, self.control,
                self._factors, s.J,
            )  # fmt: skip
            if self._weights is not None:
                backend.mean_weights(self._weights, whole, self._of_batch[: self._of])
        self._select_part(j)
        index = whole[j * self._rows :][: len(s.h[0])]
        sources = (self._data.x, self._data.y)
        for source, feed, place in zip(sources, self._feeds, (s.h[0], s.y), strict=True):
            if feed is None:
                backend.gather(source, index, place)

    def end(self) -> None:
        """Store L in `costs`, and move on to the next minibatch."""
        self._backend.end(self._position, self.s.J, self.costs)

    def _fetch(self, j: int) -> None:
        """Begin to fetch the streamed examples of micro-batch j of the next minibatch."""
        end = (self.at + 1) * self._size
        start = self.at * self._size + j * self._rows
        index = self._host_order[start : min(start + self._rows, end)]
        for feed in self._feeds:
            if feed is not None:
                feed.fetch(index)
        self._fetched = True

    def forget(self) -> None:
        """Drop the recordings, which may refer back to this object."""
        self._recorded.clear()

    def _select_batch(self, of: int) -> None:
        """Select a minibatch of so many examples."""
        self._of, self.parts = of, -(-of // self._rows)

    def _select_part(self, j: int) -> None:
        """Make the workspace that of micro-batch j."""
        if self._current == (self._of, j):
            return
        self._current = self._of, j
        start = j * self._rows
        m = min(self._rows, self._of - start)
        self.s.resize(m, self._of)
        self.s.y = self._y[:m]
        if self._weights is not None:
            self.s.weights = self._of_batch[start : start + m]
