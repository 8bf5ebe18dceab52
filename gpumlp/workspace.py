"""The arrays of a minibatch, allocated once and used for every minibatch up to that size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backprop import Model
from gpumlp.io.types import Array

Places = dict[tuple[str, int], int]
"""(name, layer) -> place in the row of arrays that take turns: those whose places differ by the
number of buffers have the same one."""
UNSCALED = np.array([1.0, 1.0, 0.0, 0.0])  # see `Backend.clip`


class Workspace:
    """z, h, gz, gh of every layer for up to `rows` examples, and J.

    What is not read is not kept.  z[k] is what `Backend.pre_activation` keeps of it, and h[k] where
    that is nothing.  gz[k] is gh[k], and two buffers take turns through the layers, unless
    `intermediate` asks to keep all of them.  Without `gradients` nothing is kept for going back:
    two buffers take turns for h.

    With `low`, h[k] of a hidden layer whose f' reads z alone is not kept, where that saves memory:
    three buffers take turns for those h and all gz, and `recall` computes h[k] again from z[k].

    Attributes:
        z, h, gz, gh: indexed by layer, 1 … L, each (m, n_k) for the m of the last `resize`;
            h[0] = x, (m, n_0).
        y: the targets, set by the caller.
        weights: (m,), what each example's loss counts in J; 1/m unless the caller sets others.
        J: (1,) float64, which the operations add to.
        scaling: (4,) float64: the loss scale, see `Backend.clip`; 1 unless the caller sets another.
    """

    def __init__(
        self,
        net: Model,
        rows: int,
        *,
        gradients: bool = True,
        intermediate: bool = False,
        low: bool = False,
    ) -> None:
        backend, widths = net.backend, net.theta.layout.widths
        kind = backend.storage
        self.rows = rows
        self.y: Array = None
        self.weights: Array = None
        self.J = backend.full((1,), 0, "float64")
        self.scaling = backend.asarray(UNSCALED, dtype=np.float64)
        places, fleeting = _places(net, low) if gradients and not intermediate else ({}, [])
        if not gradients:
            places = {("h", k): k for k in range(net.L + 1)}
        shared = _taking_turns(net, rows, places, 3 if fleeting else 2)
        # the last h that is not kept is still there when the way back begins
        self._again = {k: net.f[k] for k in fleeting if k != net.L - 1}
        every, full = range(net.L + 1), range(1, net.L + 1)

        def kept(name: str, k: int) -> Array:
            found = shared.get((name, k))
            return backend.empty((rows, widths[k]), kind) if found is None else found

        self._h = {k: kept("h", k) for k in every}
        beside = {k: backend.pre_activation(net.f[k], rows, widths[k]) for k in full if gradients}
        self._z = {
            k: self._h[k] if (a := beside.get(k)) is None else backend.empty(*a) for k in full
        }
        self._gz = {k: kept("gz", k) for k in full if gradients}
        self._gh = {k: kept("gh", k) for k in full} if intermediate else self._gz
        self._uniform: dict[tuple[int, int], Array] = {}
        self._backend = backend
        self.resize(rows)

    def resize(self, m: int, of: int | None = None) -> None:
        """Make the lists views of the first m ≤ rows rows, and the weights 1/m each, or 1/of."""
        # one view for one buffer, so that the operations still see which arrays are the same
        buffers = [a for part in (self._z, self._h, self._gz, self._gh) for a in part.values()]
        first = {id(a): a[:m] for a in buffers}

        def views(part: dict[int, Array]) -> list[Array]:
            return [first[id(part[k])] if k in part else None for k in range(len(self._h))]

        self.z, self.h, self.gz, self.gh = map(views, (self._z, self._h, self._gz, self._gh))
        of = of or m
        if (m, of) not in self._uniform:
            if len(self._uniform) == 8:
                self._uniform.clear()
            self._uniform[m, of] = self._backend.full((m,), 1 / of)
        self.weights = self._uniform[m, of]

    def recompute(self, k: int) -> Array:
        """h[k], computed from z[k] again where it was not kept."""
        if k in self._again:
            self._backend.activation(self._again[k], self.z[k], self.h[k])
        return self.h[k]

    def set_targets(self, y: Array, weights: npt.NDArray[Any] | None, rows: slice) -> None:
        """The targets y[rows], their shares in a mean over all of y, and J ← 0.

        y: (m, n), or labels (m,); weights: (m,) on the host, or None for all alike.
        """
        backend = self._backend
        if weights is None:
            share = np.full(rows.stop - rows.start, 1 / len(y))
        else:
            share = weights[rows] / weights.sum()
        self.y = backend.asarray(y[rows], dtype=np.int32 if y.ndim == 1 else None)
        self.weights = backend.asarray(share)
        self.J = backend.full((1,), 0, "float64")


def _places(net: Model, low: bool) -> tuple[Places, list[int]]:
    """Whose turn is when on the way back, and the hidden layers whose h is not kept.

    There are none of these where they would save no memory.
    """
    widths = net.theta.layout.widths
    gz = {("gz", k): k for k in range(1, net.L + 1)}
    fleeting = [k for k in range(1, net.L) if net.f[k].elementwise and net.f[k].reads == "z"]
    # h[k] comes again in the place of gz[k+2]; gz[k+1], which it goes with, and gz[k] are there
    both = gz | {("h", k): k - 1 for k in fleeting}
    saved = sum(_sizes(widths, gz, 2)) + sum(widths[k] for k in fleeting)
    if low and sum(_sizes(widths, both, 3)) < saved:
        return both, fleeting
    return gz, []


def _sizes(widths: Sequence[int], places: Places, turns: int) -> list[int]:
    """The widest array, of layer k each, that takes each turn."""
    return [
        max((widths[k] for (_, k), place in places.items() if place % turns == i), default=0)
        for i in range(turns)
    ]


def _taking_turns(
    net: Model, rows: int, places: Places, turns: int
) -> dict[tuple[str, int], Array]:
    """(rows, n_k) for each name and layer k, in one of `turns` buffers: that of its place."""
    backend, widths = net.backend, net.theta.layout.widths
    sizes = _sizes(widths, places, turns) if places else []
    buffers = [backend.empty((rows * n,), backend.storage) for n in sizes]
    return {
        (name, k): buffers[place % turns][: rows * widths[k]].reshape(rows, widths[k])
        for (name, k), place in places.items()
    }
