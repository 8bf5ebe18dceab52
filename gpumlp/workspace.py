"""The arrays of a minibatch, allocated once and used for every minibatch up to that size."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends import Array
from gpumlp.backprop import Model

UNSCALED = np.array([1.0, 1.0, 0.0, 0.0])  # see `Backend.clip`


class Workspace:
    """z, h, gz, gh of every layer for up to `rows` examples, and J.

    What is not read is not kept.  z[k] is what `Backend.pre_activation` keeps of it, and h[k] where
    that is nothing.  gz[k] is gh[k], and two buffers take turns through the layers, unless
    `intermediate` asks to keep all of them.  Nothing is kept for going back, unless `gradients`
    asks for it.

    Attributes:
        z, h, gz, gh: indexed by layer, 1 … L, each (m, n_k) for the m of the last `resize`;
            h[0] = x, (m, n_0).
        y: the targets, set by the caller.
        weights: (m,), what each example's loss counts in J; 1/m unless the caller sets others.
        J: (1,) float64, which the doors add to.
        scaling: (4,) float64: the loss scale, see `Backend.clip`; 1 unless the caller sets another.
    """

    def __init__(
        self, net: Model, rows: int, *, gradients: bool = True, intermediate: bool = False
    ) -> None:
        room, widths = net.backend, net.theta.layout.widths
        kind = room.storage
        self.rows = rows
        self.y: Array = None
        self.weights: Array = None
        self.J = room.full((1,), 0, "float64")
        self.scaling = room.asarray(UNSCALED, dtype=np.float64)
        full = range(1, net.L + 1)
        self._h = {k: room.empty((rows, widths[k]), kind) for k in range(net.L + 1)}
        self._z = {
            k: room.pre_activation(net.f[k], self._h[k]) if gradients else self._h[k] for k in full
        }
        if intermediate:
            self._gh = {k: room.empty((rows, widths[k]), kind) for k in full}
            self._gz = {k: room.empty((rows, widths[k]), kind) for k in full}
        elif gradients:
            sizes = [rows * max(widths[1 + i :: 2], default=0) for i in (0, 1)]
            turns = [room.empty((size,), kind) for size in sizes]
            self._gz = {
                k: turns[(k - 1) % 2][: rows * widths[k]].reshape(rows, widths[k]) for k in full
            }
            self._gh = self._gz
        else:
            self._gz = self._gh = {}
        self._uniform: dict[int, Array] = {}
        self._room = room
        self.resize(rows)

    def resize(self, m: int) -> None:
        """Make the lists views of the first m ≤ rows rows, and the weights 1/m each."""
        # one view for one buffer, so that the doors still see which arrays are the same
        buffers = [a for part in (self._z, self._h, self._gz, self._gh) for a in part.values()]
        first = {id(a): a[:m] for a in buffers}

        def views(part: dict[int, Array]) -> list[Array]:
            return [first[id(part[k])] if k in part else None for k in range(len(self._h))]

        self.z, self.h, self.gz, self.gh = map(views, (self._z, self._h, self._gz, self._gh))
        if m not in self._uniform:
            if len(self._uniform) == 8:
                self._uniform.clear()
            self._uniform[m] = self._room.full((m,), 1 / m)
        self.weights = self._uniform[m]

    def aim(self, y: Array, weights: npt.NDArray[Any] | None, rows: slice) -> None:
        """The targets y[rows], their shares in a mean over all of y, and J ← 0.

        y: (m, n), or labels (m,); weights: (m,) on the host, or None for all alike.
        """
        room = self._room
        if weights is None:
            share = np.full(rows.stop - rows.start, 1 / len(y))
        else:
            share = weights[rows] / weights.sum()
        self.y = room.asarray(y[rows], dtype=np.int32 if y.ndim == 1 else None)
        self.weights = room.asarray(share)
        self.J = room.full((1,), 0, "float64")
