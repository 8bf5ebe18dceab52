"""Minibatches of the training data in a seeded order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.io.mapped import large
from gpumlp.io.types import Array
from gpumlp.loader.examples import Examples
from gpumlp.network import MLP
from gpumlp.workspace import Workspace

Work = Callable[[range], None]
"""What is done with some of a minibatch's micro-batches."""


class Batches:
    """Minibatches without replacement; an epoch's last may be smaller, and none is dropped.

    Their order is shuffled by `seed` anew for each epoch, or, for None, that of the data.

    What a step reads lies at fixed places, filled from the epoch's tables by its first launch, so
    that a step's work can be recorded once and replayed.  Examples that stay on the host come into
    their places before that: they arrive in two buffers in turn, for which a recorded step would
    need two recordings, to save the launch of a cast.

    A minibatch is worked in micro-batches of up to `rows` examples.  A step is one recording where
    all examples are in the backend, and one for each of them where they are brought.

    Attributes:
        s: the workspace that `load` fills, of a micro-batch.
        parts: the micro-batches of the step at work.
        steps: minibatches an epoch.
        at: the step of the epoch that comes next, from 0.
        control: (numbers,) float64: the step's row of `start`'s table, whose last two numbers go
            into `factors`, (2,) in θ's type.
        costs: (steps,) float64: where each minibatch's L goes.
        shares: (steps,) on the host: what each minibatch counts in the mean over the epoch.
    """

    def __init__(
        self,
        net: MLP,
        data: Examples,
        size: int,
        seed: int | None,
        numbers: int,
        factors: Array,
        name: str,
        *,
        rows: int,
        low: bool = False,
    ) -> None:
        backend, m = net.backend, len(data.x)
        self._backend, self._data, self._seed = backend, data, seed
        self._size, self._rows = min(size, m), min(rows, m)
        self.steps, self.at = -(-m // self._size), 0
        self.s = Workspace(net, self._rows, low=low)
        self.control = backend.full((numbers,), 0, np.float64)
        self._factors, self._name = factors, name
        self.costs = backend.full((self.steps,), 0, np.float64)
        self.shares = np.zeros(self.steps)
        self._position = backend.full((1,), 0, np.int64)
        self._order = backend.empty((m,), np.int64)
        self._host_order = np.arange(m)
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
            # only their ratios count, and so scaled they fit any dtype
            self._weights = backend.asarray(data.weights / data.weights.max())
            self._of_batch = backend.empty((self._size,))
        self._fetched, self._at_work = False, (0, 0)
        self._recorded: dict[tuple[int, int], Callable[[], None] | None] = {}
        # all sizes that occur, so that what they need is allocated before the first step
        for of in (m - (self.steps - 1) * self._size, self._size):
            self._begin(of)
            self._turn(self.parts - 1)
            self._turn(0)

    def start(
        self, epoch: int, controls: npt.NDArray[np.float64], costs: npt.NDArray[Any], at: int
    ) -> None:
        """The uploads of an epoch: its order, a function of seed and epoch alone, and its tables.

        controls: (steps, numbers + 2) on the host; costs: (steps,), of the steps before `at`.
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
        """`work` on the next minibatch, on all of its micro-batches or on one after the other.

        work: of a range of them, which begins each with `load` and the last with `end`.  The first
        of each size is handed in piece by piece, which compiles kernels and plans products; the
        second is recorded, and it and all after it are replayed.  early_update: see `Backend.record`.
        """
        self._begin(min(self._size, len(self._order) - self.at * self._size))
        whole = range(self.parts)
        for parts in [range(j, j + 1) for j in whole] if self._streamed else [whole]:
            self._turn(parts.start)
            if not self._fetched:
                self._fetch(parts.start)
            for feed, place in zip(self._feeds, (self.s.h[0], self.s.y), strict=True):
                if feed is not None:
                    feed.copy_into(place)
            self._hand_in(parts, work, early_update)
            self._fetched = False
            if parts.stop < self.parts:
                self._fetch(parts.stop)  # while the backend works
        self.at = (self.at + 1) % self.steps
        if self.at > 0:  # after the last step `start` comes, with another order
            self._fetch(0)

    def _hand_in(self, parts: range, work: Work, early_update: Work | None) -> None:
        """work(parts), or what was recorded of it."""
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
        """Of what recording `gpumlp tune` keeps the fastest way."""
        name = f"{self._name}, minibatch {self._of}"
        if self.parts == 1:
            return name
        one = f", part {parts.start + 1} of {self.parts}"
        return name + (one if self._streamed else f" in {self.parts} parts")

    def load(self, j: int) -> None:
        """Micro-batch j: h[0] = x, y, the examples' weights; before the first also control, factors
        and J = 0.  The weights are shares in the mean over the whole minibatch.
        """
        backend, s, whole = self._backend, self.s, self._index[: self._of]
        if j == 0:
            backend.begin(
                self._position, self._order, self._controls, self._size, whole, self.control,
                self._factors, s.J,
            )  # fmt: skip
            if self._weights is not None:
                backend.mean_weights(self._weights, whole, self._of_batch[: self._of])
        self._turn(j)
        index = whole[j * self._rows :][: len(s.h[0])]
        sources = (self._data.x, self._data.y)
        for source, feed, place in zip(sources, self._feeds, (s.h[0], s.y), strict=True):
            if feed is None:
                backend.gather(source, index, place)

    def end(self) -> None:
        """Its L goes into `costs`, and the next one's turn it is."""
        self._backend.end(self._position, self.s.J, self.costs)

    def _fetch(self, j: int) -> None:
        """Start on the examples of the next minibatch's micro-batch j that are on the host."""
        end = (self.at + 1) * self._size
        start = self.at * self._size + j * self._rows
        index = self._host_order[start : min(start + self._rows, end)]
        for feed in self._feeds:
            if feed is not None:
                feed.fetch(index)
        self._fetched = True

    def forget(self) -> None:
        """Let go of what was recorded, which may refer back here."""
        self._recorded.clear()

    def _begin(self, of: int) -> None:
        """A minibatch of so many examples."""
        self._of, self.parts = of, -(-of // self._rows)

    def _turn(self, j: int) -> None:
        """Make the workspace that of micro-batch j."""
        if self._at_work == (self._of, j):
            return
        self._at_work = self._of, j
        start = j * self._rows
        m = min(self._rows, self._of - start)
        self.s.resize(m, self._of)
        self.s.y = self._y[:m]
        if self._weights is not None:
            self.s.weights = self._of_batch[start : start + m]
