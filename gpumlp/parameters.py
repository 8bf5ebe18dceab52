"""θ in one flat buffer, with aligned views W[k] and b[k].  Gradients and slots share its layout.

All weights come first, then all biases, so one number, `split`, separates the two regions.  The
update, Ω and clipping are therefore one pass each over memory, whatever the depth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy.typing as npt

from gpumlp import checks
from gpumlp.backends import Backend
from gpumlp.functions import Activation
from gpumlp.io.types import Array

ALIGNMENT = 256  # bytes: cublasLt and 16-byte accesses work best with it


@dataclass(frozen=True)
class Layout:
    """The places of W[k] and b[k] in the flat buffer of a network.

    Attributes:
        widths: n_0, …, n_L.
        itemsize: bytes of one entry, in the smallest dtype that a buffer of this layout has.
    """

    widths: tuple[int, ...]
    itemsize: int

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of W[1] … W[L], then of b[1] … b[L]; W[k] is (n_k, n_{k−1})."""
        pairs = list(zip(self.widths[1:], self.widths, strict=False))
        return [*pairs, *((n,) for n in self.widths[1:])]

    @cached_property
    def starts(self) -> list[int]:
        """The first entry of each array, and last the buffer's length; multiples of 256 bytes."""
        unit = ALIGNMENT // self.itemsize
        starts = [0]
        for shape in self.shapes:
            starts.append(starts[-1] + -(-prod(shape) // unit) * unit)
        return starts

    @property
    def split(self) -> int:
        """The first entry of the biases."""
        return self.starts[len(self.widths) - 1]

    @property
    def size(self) -> int:
        """The number of entries of the flat buffer, with padding."""
        return self.starts[-1]

    @property
    def count(self) -> int:
        """The number of parameters, without padding."""
        return sum(prod(shape) for shape in self.shapes)


class Parameters:
    """One flat buffer in a layout: θ, its gradient dθ, or an optimizer's slot.

    Attributes:
        layout: θ, its gradient and the slots share it.
        flat: (layout.size,); padding is zero and stays zero.
        split: the first entry of the biases.
        W, b: views of `flat`, indexed by layer k = 1 … L (W[0] and b[0] are None).
        factors: None, because a backward pass overwrites the buffer: see `Backend.weight_gradient`.
        then: then(k) is called, if it is not None, when the gradient of W[k] is complete.
    """

    factors: Array | None = None
    then: Callable[[int], None] | None = None

    def __init__(self, layout: Layout, flat: Array) -> None:
        self.layout, self.flat, self.split = layout, flat, layout.split
        views = [
            flat[start : start + prod(shape)].reshape(shape)
            for start, shape in zip(layout.starts, layout.shapes, strict=False)
        ]
        depth = len(layout.widths) - 1
        self.W: list[Array] = [None, *views[:depth]]
        self.b: list[Array] = [None, *views[depth:]]

    def on_weight_gradient(self, k: int) -> None:
        """Call `then`, if there is one: the gradient of W[k] is complete."""
        if self.then is not None:
            self.then(k)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the flat buffer; the copy makes its own views."""
        return Parameters, (self.layout, self.flat)

    @classmethod
    def zeros(
        cls, backend: Backend, layout: Layout, dtype: npt.DTypeLike | None = None
    ) -> Parameters:
        """Return a buffer of zeros on the backend, in `dtype` (None: the dtype of θ)."""
        return cls(layout, backend.full((layout.size,), 0, dtype))

    def named(self) -> dict[str, Array]:
        """Return the views by the names that ``torch.nn.Sequential(Linear, activation, …)`` uses.

        "0.weight" (n_1, n_0), "0.bias" (n_1,), "2.weight", "2.bias", …
        """
        pairs = zip(self.W[1:], self.b[1:], strict=True)
        return {
            f"{2 * i}.{name}": view
            for i, pair in enumerate(pairs)
            for name, view in zip(("weight", "bias"), pair, strict=True)
        }

    def assign(self, backend: Backend, tensors: Mapping[str, Array]) -> None:
        """Copy `tensors`, named and shaped like `named`, into the views: all of them, or none.

        Raises:
            ValueError: a name is missing or unknown, or a shape differs.
        """
        views = self.named()
        tensors = checks.tensors(backend, tensors, views)
        backend.synchronize()
        for name, view in views.items():
            backend.asarray(tensors[name], out=view)
        backend.synchronize()  # the caller may free the tensors now


@dataclass(frozen=True)
class Layer:
    """The parameters of layer k: views of θ that are assigned in place (``layer.W[...] = value``).

    On a GPU the value is a CuPy array or a number; `MLP.assign` also accepts host arrays.
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
    """∇J, in arrays of the network's backend.  Lists are indexed 0 … L−1, like `MLP.layers`.

    Attributes:
        W, b: ∇_W J and ∇_b J, including λ∇Ω.
        x: ∂J/∂x, (m, n_0); None without intermediate gradients.
        z, h: gz = ∂J/∂z and gh = ∂J/∂h of each layer, (m, n_k).  They say how the layer's output
            should have changed.  Both are empty without intermediate gradients.
    """

    W: list[Array]
    b: list[Array]
    x: Array | None
    z: list[Array]
    h: list[Array]
