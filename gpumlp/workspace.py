"""The arrays of a minibatch: allocated once, and used for every minibatch up to that size."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gpumlp import backprop
from gpumlp.backprop import Model
from gpumlp.io.chunks import chunks
from gpumlp.io.types import Array

Slots = dict[tuple[str, int], int]
"""(name, layer) -> slot of an array.  With c shared buffers, slot s is in buffer s modulo c."""
UNSCALED = np.array([1.0, 1.0, 0.0, 0.0])  # see `Backend.clip`


class Workspace:
    """z, h, gz, gh of every layer for up to `rows` examples, and J.

    Only what is read later is stored.  z[k] is what `Backend.pre_activation` stores of it, or h[k]
    if that is nothing.  gz[k] is gh[k], and the layers share two buffers for it alternately, unless
    `intermediate` asks for all of them.  Without `gradients` nothing is stored for the backward
    pass: the layers share two buffers for h.

    `low` saves memory: h[k] of a hidden layer is not stored if f' reads z alone.  Three buffers are
    then shared by these h and all gz, and `recompute` computes h[k] again from z[k].

    Attributes:
        z, h, gz, gh: indexed by layer, 1 … L, each (m, n_k) for the m of the last `resize`;
            h[0] = x, (m, n_0).
        y: the targets; the caller or `load` sets them.
        weights: (m,), the share of each example's loss in J; 1/m unless the caller sets others.
        J: (1,) float64; the operations add to it.
        scaling: (4,) float64: the loss scale, see `Backend.clip`; 1 unless the caller sets another.
    """

    def __init__(
        self, net: Model, rows: int, *, gradients: bool = True, intermediate: bool = False,
        low: bool = False,
    ) -> None:  # fmt: skip
        backend, widths = net.backend, net.widths
        self.rows = rows
        self.y: Array = None
        self.weights: Array = None
        self.J = backend.full((1,), 0, "float64")
        self.scaling = backend.asarray(UNSCALED, dtype=np.float64)
        slots, dropped = _shared_slots(net, low) if gradients and not intermediate else ({}, [])
        if not gradients:
            slots = {("h", k): k for k in range(net.L + 1)}
        shared = _shared_arrays(net, rows, slots, 3 if dropped else 2)
        # the last h that is not stored is still in its buffer when the backward pass begins
        self._recomputed = {k: net.f[k] for k in dropped if k != net.L - 1}
        every, full = range(net.L + 1), range(1, net.L + 1)

        def array(name: str, k: int) -> Array:
            found = shared.get((name, k))
            return backend.empty((rows, widths[k]), backend.storage) if found is None else found

        self._h = {k: array("h", k) for k in every}
        stored = {k: backend.pre_activation(net.f[k], rows, widths[k]) for k in full if gradients}
        self._z = {
            k: self._h[k] if (a := stored.get(k)) is None else backend.empty(*a) for k in full
        }
        self._gz = {k: array("gz", k) for k in full if gradients}
        self._gh = {k: array("gh", k) for k in full} if intermediate else self._gz
        self._uniform: dict[tuple[int, int], Array] = {}
        self._backend = backend
        self.resize(rows)

    def resize(self, m: int, of: int | None = None) -> None:
        """Make the lists views of the first m ≤ rows rows, and the weights 1/m each, or 1/of."""
        # one view per buffer, so that the operations still see which arrays are the same
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
        """Return h[k], computed again from z[k] if h[k] was not stored."""
        if k in self._recomputed:
            self._backend.activation(self._recomputed[k], self.z[k], self.h[k])
        return self.h[k]

    def load(
        self, x: Array, y: Array = None, share: Array = None, targets: Array = None
    ) -> Iterator[slice]:
        """Load examples chunk by chunk: yield the rows of each chunk when it is in the workspace.

        With y, J ← 0 before the first chunk.  Each chunk has up to `rows` examples, and its pages
        of mapped files are unmapped after it: see `chunks`.

        Args:
            x: (m, n_0), on the backend or on the host.
            y: (m, n_L), or labels (m,); None if only ŷ is wanted.
            share: (m,), the share of each example's loss in J; None for 1/m each.
            targets: (rows, …), a buffer for targets that the backend does not accept as they are;
                None for a new array each time.
        """
        backend = self._backend

        def accepted(a: Array, dtype: np.dtype[Any], out: Array | None = None) -> Array:
            return a if backend.accepts(a, dtype) else backend.asarray(a, dtype=dtype, out=out)

        if y is not None:
            backend.asarray(np.zeros(1), out=self.J)
        for rows in chunks(x, y, rows=self.rows):
            m = rows.stop - rows.start
            self.resize(m, len(x))
            backend.asarray(x[rows], out=self.h[0])
            if y is not None:
                kind = np.dtype(np.int32) if y.ndim == 1 else backend.dtype
                self.y = accepted(y[rows], kind, None if targets is None else targets[:m])
            if share is not None:
                self.weights = accepted(share[rows], backend.dtype)
            yield rows
        self.y = None  # the caller may free it


class ForwardPass:
    """Algorithm 6.3 over any number of examples, chunk by chunk, in memory that does not grow.

    Several threads may call it.  One of them uses the stored workspace, the others new ones.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: Workspace | None = None

    def __call__(
        self, net: Model, chunk: int, x: Array, y: Array = None, share: Array = None, *,
        keep: bool = True,
    ) -> tuple[float, Array]:  # fmt: skip
        """Return L(ŷ, y), or 0 without y, and ŷ (m, n_L), or None unless `keep`.

        chunk: the largest number of rows at a time; x, y and share: see `Workspace.load`.  ŷ is on
        the host if x is, else on the backend.
        """
        backend, L, m = net.backend, 0.0, len(x)
        y_hat: Array = backend.empty((m, net.widths[-1])) if keep else None
        with self._lock:
            s, self._idle = self._idle, None
        if s is None or s.rows < min(m, chunk):
            s = Workspace(net, min(m, chunk), gradients=False)
        try:
            backend.round(net.theta.flat, net.rounded.flat)
            for rows in s.load(x, y, share):
                outputs = backprop.forward(net, s)
                if y is not None:
                    backprop.loss(net, s)
                if keep:
                    backend.asarray(outputs, out=y_hat[rows])
            if y is not None:
                L = float(backend.to_host(s.J)[0])
        finally:
            self._idle = s
        backend.synchronize()
        return L, y_hat if y_hat is None or backend.owns(x) else backend.to_host(y_hat)


def _shared_slots(net: Model, low: bool) -> tuple[Slots, list[int]]:
    """Return the slots of arrays that share buffers in the backward pass, and the layers k whose
    h[k] is not stored: none, if that would save no memory.
    """
    widths = net.widths
    gz = {("gz", k): k for k in range(1, net.L + 1)}
    dropped = [k for k in range(1, net.L) if net.f[k].elementwise and net.f[k].reads == "z"]
    # h[k] is computed again into the buffer of gz[k+2]; those of gz[k+1] and gz[k] are in use
    both = gz | {("h", k): k - 1 for k in dropped}
    saved = sum(_sizes(widths, gz, 2)) + sum(widths[k] for k in dropped)
    if low and sum(_sizes(widths, both, 3)) < saved:
        return both, dropped
    return gz, []


def _sizes(widths: Sequence[int], slots: Slots, count: int) -> list[int]:
    """Return the width of each of `count` shared buffers: that of its widest array."""
    return [
        max((widths[k] for (_, k), slot in slots.items() if slot % count == i), default=0)
        for i in range(count)
    ]


def _shared_arrays(net: Model, rows: int, slots: Slots, count: int) -> dict[tuple[str, int], Array]:
    """Return (rows, n_k) for each name and layer k, as a view of one of `count` buffers."""
    backend, widths = net.backend, net.widths
    sizes = _sizes(widths, slots, count) if slots else []
    buffers = [backend.empty((rows * n,), backend.storage) for n in sizes]
    return {
        (name, k): buffers[slot % count][: rows * widths[k]].reshape(rows, widths[k])
        for (name, k), slot in slots.items()
    }
