"""The operations of `gpumlp.backends.sharing` in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gpumlp.backends.numpy.theta import clip_factor, square_sum
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
            rows = _in_pairs([row[at] for row in parts], np.add, 2)
            if len(rows) == 2:
                np.add(rows[0], rows[1], out=total[at])
            else:
                np.copyto(total[at], rows[0])

        self._threads.over_rows(block, total)

    def tree_moments(self, parts: Array, total: Array) -> None:
        with np.errstate(all="ignore"):  # what stands behind the last column is no number
            (joined,) = _in_pairs([*parts.reshape(len(parts), 3, -1)], joined_moments)
        np.copyto(total, joined.reshape(-1))

    def collect(self, world: World, whole: Array, counts: tuple[int, ...]) -> None:
        world.gather(whole, counts)

    def square_sum(
        self, regularizer: Regularizer, theta: Array, dtheta: Array, split: int, scaling: Array,
        total: Array, rounded: Array | None = None,
    ) -> None:  # fmt: skip
        total[0] = square_sum(self._threads, regularizer, theta, dtheta, split)

    def clip_by(self, squares: Array, max_norm: float, scaling: Array, control: Array) -> None:
        norm = float(np.sqrt(np.add.accumulate(squares)[-1]))  # in order, not in pairs
        control[0] = clip_factor(norm, max_norm)


def _in_pairs(
    rows: Sequence[Array], both: Callable[[Array, Array], Array], left: int = 1
) -> Sequence[Array]:
    """Join neighbours, and the results again, until at most `left` are left."""
    while len(rows) > left:
        pairs = [both(a, b) for a, b in zip(rows[::2], rows[1::2], strict=False)]
        rows = [*pairs, *rows[2 * len(pairs) :]]
    return rows


def joined_moments(a: Array, b: Array) -> Array:
    """The means, variances and numbers of rows of two parts together, (3, n)."""
    (mean, variance, m), (other, other_variance, more) = a, b
    share, apart = more / (m + more), other - mean
    variance = variance + share * (other_variance - variance + (1 - share) * np.square(apart))
    return np.stack([mean + share * apart, variance, m + more])
