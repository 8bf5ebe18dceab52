"""The network and a minibatch as buffers, with which the book's loops are recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpumlp.functions import Activation, Loss, Regularizer
from gpumlp.io.types import Array
from gpumlp.parameters import Layout, Part
from gpumlp.step.program import Buffer
from gpumlp.step.settings import Network, input_type

F64 = np.dtype(np.float64)


class ThetaBuffers(NamedTuple):
    """θ or its gradient as buffers: see `backprop.Theta` and `backprop.Destination`.

    P, phi, c, s: see `Parameters`.  E: all tables of embeddings, or None.
    """

    flat: Buffer
    split: int
    W: list[Any]
    P: list[Any]
    b: list[Any]
    phi: list[Any]
    c: list[Any]
    s: list[Any]
    E: Buffer | None = None
    factors: Buffer | None = None

    @property
    def matrices(self) -> list[Buffer]:
        """All W and P, in the order of the layout."""
        every = (*self.W, *self.P)
        return sorted((each for each in every if each is not None), key=lambda each: each.start)


def theta_buffers(whole: Buffer, layout: Layout) -> ThetaBuffers:
    """A flat buffer in a layout, with its parts by layer; as `Parameters`, it may have states."""

    def view(part: Part, start: int) -> Buffer:
        return whole.part(f"{whole.name} {part.name}{part.k}", start, part.shape)

    W, P, b, phi, c, _, s = layout.views(whole.size, view).values()
    E, first = None, layout.tables
    if layout.embed is not None:
        E = whole.part(f"{whole.name} E", first, (layout.size - first,))
    return ThetaBuffers(whole.rows(layout.size), layout.split, W, P, b, phi, c, s, E)


def held(
    name: str, shape: tuple[int, ...], dtype: npt.DTypeLike, *, shared: bool = False
) -> Buffer:
    """A buffer that exists between steps; `shared` as in `Buffer`."""
    return Buffer(name, shape, np.dtype(dtype), held=True, shared=shared)


class Model:
    """A network as the loops see it: `backprop.Model`, with buffers.

    Attributes:
        J, scaling: see `Minibatch`; J has several entries if a minibatch has several costs.
    """

    backend: Any  # while the loops are recorded, a `Program`
    theta: Any
    rounded: Any
    f: tuple[Activation, ...]
    loss: Loss
    regularizer: Regularizer

    def __init__(self, net: Network, costs: int = 1) -> None:
        layout = net.theta.layout
        self.embeddings = layout.embeddings
        self.widths, self.f, self.loss, self.blocks = net.widths, net.f, net.loss, layout.blocks
        self.regularizer, self.L, self._real = net.regularizer, net.L, net.backend
        dtype, storage = net.backend.dtype, net.backend.storage
        self.theta = self.rounded = theta_buffers(held("θ", (layout.whole,), dtype), layout)
        if storage != dtype:
            copy = held("θ in 16 bits", (layout.size,), storage)
            self.rounded = theta_buffers(copy, layout)
        self.J, self.scaling = held("J", (costs,), F64), held("scaling", (4,), F64)

    def minibatch(
        self, m: int, y: Buffer | None, weights: Buffer | None, *, gradients: bool = True,
        intermediate: bool = False, cost: int = 0,
    ) -> Minibatch:  # fmt: skip
        """Buffers for m examples.  Those that the backend computes in place are one.

        z[k] is h[k] unless the backward pass reads a z.  gh[k] is gz[k] unless `intermediate`.
        """
        storage = self._real.storage
        layers = range(1, self.L + 1)

        def per_layer(letter: str) -> list[Any]:
            return [None, *(
                Buffer(f"{letter}{k}", (m, self.widths[k]), storage) for k in layers
            )]  # fmt: skip

        h, gz = per_layer("h"), per_layer("gz")
        x = h[0] = Buffer("x", (m, self.widths[0]), input_type(self._real, self.embeddings))
        if self.embeddings is not None:
            h[0] = Buffer("h0", (m, self.embeddings.width), storage)
        z = list(h)
        for k in layers if gradients else ():
            stored = self._real.pre_activation(self.f[k], m, self.widths[k])
            if stored is not None:
                z[k] = Buffer(f"z{k}", *stored)
        gh = per_layer("gh") if intermediate else gz
        J = self.J.rows(1, cost)
        return Minibatch(z, h, gz, gh, y, weights, self.scaling, J, x)


@dataclass(eq=False, repr=False)
class Minibatch:
    """The buffers of one minibatch: `backprop.State`.

    Attributes:
        z, h, gz, gh: indexed by layer, 1 … L, each (m, n_k); h[0] is x or, with embeddings, what
            they make of it.
        y: the targets, (m, n_L), or labels (m,).
        weights: (m,), the share of each example's loss in J.
        scaling: (4,) float64, the loss scale, see `Backend.clip`.
        J: (1,) float64; the operations add to it.
        x: (m, n_0).
        gx: ∂J/∂h[0], like h[0]; None if it is not computed.
    """

    z: list[Any]
    h: list[Any]
    gz: list[Any]
    gh: list[Any]
    y: Any
    weights: Any
    scaling: Any
    J: Any
    x: Any
    gx: Any = None

    def having(self, arrays: Mapping[Buffer, Array]) -> Minibatch:
        """The arrays of these buffers; of a buffer that has none, None."""

        def array(b: Any) -> Any:
            return None if b is None or b.root not in arrays else b.of(arrays[b.root])

        return Minibatch(**{
            name: [*map(array, value)] if isinstance(value, list) else array(value)
            for name, value in vars(self).items()
        })  # fmt: skip
