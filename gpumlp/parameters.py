"""θ in one flat buffer: aligned views W[k] and b[k]; gradients and slots share its layout.

All weights come first, then all biases, so that one number, `split`, tells the two regions apart:
the update, Ω and clipping are then one pass each over memory, whatever the depth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy.typing as npt

from gpumlp.backends import Backend
from gpumlp.functions import Activation
from gpumlp.io.types import Array

ALIGNMENT = 256  # bytes: what cublasLt and 16-byte accesses like best


@dataclass(frozen=True)
class Layout:
    """Where each W[k] and b[k] of a network with the given widths lies in the flat buffer.

    Attributes:
        widths: n_0, …, n_L.
        itemsize: bytes of one entry in the smallest type that a buffer of this layout has.
    """

    widths: tuple[int, ...]
    itemsize: int

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of W[1] … W[L], then b[1] … b[L]; W[k] is (n_k, n_{k−1})."""
        pairs = list(zip(self.widths[1:], self.widths, strict=False))
        return [*pairs, *((n,) for n in self.widths[1:])]

    @cached_property
    def starts(self) -> list[int]:
        """The first entry of each, and the buffer's length last; multiples of 256 bytes."""
        unit = ALIGNMENT // self.itemsize
        starts = [0]
        for shape in self.shapes:
            starts.append(starts[-1] + -(-prod(shape) // unit) * unit)
        return starts

    @property
    def split(self) -> int:
        """Where the biases' region begins."""
        return self.starts[len(self.widths) - 1]

    @property
    def size(self) -> int:
        """Entries of the flat buffer, padding included."""
        return self.starts[-1]

    @property
    def count(self) -> int:
        """The number of parameters, padding not counted."""
        return sum(prod(shape) for shape in self.shapes)


class Parameters:
    """One flat buffer in a layout: θ, its gradient dθ, or an optimizer's slot.

    Attributes:
        layout: shared by θ and all that goes with it.
        flat: (layout.size,); padding is zero and stays zero.
        W, b: views of `flat`, indexed by layer k = 1 … L (W[0] and b[0] are None).
        factors, then: as the destination of gradients it is overwritten (None), and then(k) is
            called where there is one, when that of W[k] is there.
    """

    factors: Array | None = None
    then: Callable[[int], None] | None = None

    def __init__(self, layout: Layout, flat: Array) -> None:
        self.layout = layout
        self.flat = flat
        views = [
            flat[start : start + prod(shape)].reshape(shape)
            for start, shape in zip(layout.starts, layout.shapes, strict=False)
        ]
        depth = len(layout.widths) - 1
        self.W: list[Array] = [None, *views[:depth]]
        self.b: list[Array] = [None, *views[depth:]]

    def on_weight_gradient(self, k: int) -> None:
        """The gradient of W[k] is there."""
        if self.then is not None:
            self.then(k)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are of the flat buffer; the views are made anew, of the copy."""
        return Parameters, (self.layout, self.flat)

    @classmethod
    def zeros(
        cls, backend: Backend, layout: Layout, dtype: npt.DTypeLike | None = None
    ) -> Parameters:
        """A buffer of zeros in the backend, in `dtype` (None: θ's)."""
        return cls(layout, backend.full((layout.size,), 0, dtype))

    def named(self) -> dict[str, Array]:
        """The views by the names that ``torch.nn.Sequential(Linear, activation, …)`` gives them.

        "0.weight" (n_1, n_0), "0.bias" (n_1,), "2.weight", "2.bias", …
        """
        pairs = zip(self.W[1:], self.b[1:], strict=True)
        return {
            f"{2 * i}.{name}": view
            for i, pair in enumerate(pairs)
            for name, view in zip(("weight", "bias"), pair, strict=True)
        }


@dataclass(frozen=True)
class Layer:
    """Layer k's share of θ: views, assignable in place (``layer.W[...] = value``).

    On a GPU the value is a CuPy array or a number; `MLP.assign` takes host arrays too.
    ``torch.from_dlpack(layer.W)`` is a tensor over the same memory.

    Attributes:
        W: (n_out, n_in).
        b: (n_out,).
        f: the activation.
    """

    W: Array
    b: Array
    f: Activation


@dataclass(frozen=True)
class Gradients:
    """∇J, in arrays of the net's backend; lists are indexed 0 … L−1 as `MLP.layers` is.

    Attributes:
        W, b: ∇_W J and ∇_b J, λ∇Ω included.
        x: ∂J/∂x, (m, n_0), or None where intermediate gradients were not asked for.
        z, h: gz = ∂J/∂z and gh = ∂J/∂h of each layer, (m, n_k): what its output should have been
            moved by; empty where they were not asked for.
    """

    W: list[Array]
    b: list[Array]
    x: Array | None
    z: list[Array]
    h: list[Array]
