"""The operations of `gpumlp.backends.sharing` in NumPy."""

from __future__ import annotations

import numpy as np

from gpumlp.backends.numpy import update
from gpumlp.backends.sharing import Sharing
from gpumlp.distributed.world import World
from gpumlp.functions import Regularizer
from gpumlp.io.threads import Threads
from gpumlp.io.types import HostArray as Array


class NumpySharing(Sharing):
    """The operations of several processes, for a backend on the host."""

    _threads: Threads

    def exchange(
        self, world: World, source: Array, counts: tuple[int, ...], received: Array
    ) -> None:
        world.exchange(source, counts, received)

    def tree_sum(self, parts: Array, total: Array) -> None:
        def block(at: slice) -> None:
            rows = [row[at] for row in parts]
            while len(rows) > 2:
                pairs = [a + b for a, b in zip(rows[::2], rows[1::2], strict=False)]
                rows = pairs + rows[2 * len(pairs) :]
            if len(rows) == 2:
                np.add(rows[0], rows[1], out=total[at])
            else:
                np.copyto(total[at], rows[0])

        self._threads.over_rows(block, total)

    def collect(self, world: World, whole: Array, counts: tuple[int, ...]) -> None:
        world.gather(whole, counts)

    def square_sum(
        self, regularizer: Regularizer, theta: Array, dtheta: Array, split: int, scaling: Array,
        total: Array, rounded: Array | None = None,
    ) -> None:  # fmt: skip
        total[0] = update.square_sum(self._threads, regularizer, theta, dtheta, split)

    def clip_by(self, squares: Array, max_norm: float, scaling: Array, control: Array) -> None:
        norm = float(np.sqrt(np.add.accumulate(squares)[-1]))  # in order, not in pairs
        control[0] = update.clip_factor(norm, max_norm)
