"""θ in one flat buffer, with aligned views W[k] and b[k].  Gradients and slots share its layout.

All weights come first, then all biases, the parameters of norms and the tables of embeddings, so
one number, `split`, separates two regions.  The update, Ω and clipping are therefore one pass each
over memory, whatever the depth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpumlp.arrays import check_fits, real_array
from gpumlp.backends import Backend
from gpumlp.functions import Activation
from gpumlp.functions.blocks import Block
from gpumlp.functions.embeddings import Embeddings
from gpumlp.functions.stages import ColumnStage
from gpumlp.io.types import Array

ALIGNMENT = 256  # bytes: cublasLt and 16-byte accesses work best with it


COUNTER = ".num_batches_tracked"  # of torch's BatchNorm, which its momentum makes needless
WEIGHTS = ("W", "P")  # the parts before `split`
PARTS = (*WEIGHTS, "b", "φ", "c", "E", "s")


class Part(NamedTuple):
    """One array of a layout: its letter, its layer k = 1 … L and its shape.

    Of a table E, k is the number of the embedding, from 0.
    """

    name: str
    k: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """The places of W[k], b[k] and what blocks have in the flat buffer of a network.

    Attributes:
        widths: n_0, …, n_L.
        itemsize: bytes of one entry, in the smallest dtype that a buffer of this layout has.
        blocks: of the layers 1 … L; empty if all are plain.
        embed: the embeddings of columns of x, or None; their `starts` are found here.
    """

    widths: tuple[int, ...]
    itemsize: int
    blocks: tuple[Block, ...] = ()
    embed: Embeddings | None = None

    @property
    def read(self) -> tuple[int, ...]:
        """The widths of h[0], …, h[L]: h[0] is x or, with embeddings, what they make of it."""
        return self.widths if self.embed is None else (self.embed.width, *self.widths[1:])

    @cached_property
    def parts(self) -> list[Part]:
        """What is in the buffer, in order: W and P of each layer, all b, φ and c of each, all E, s.

        W[k] is (n_k, n_{k−1}), or has twice as many rows before a gate.  P[k] and c[k] are the
        linear layer of a skip; φ[k] is (p, n_{k−1}), of a norm.  s[k] stands behind θ without being
        a parameter: (q, n_{k−1}), the running averages of a norm over columns: see `ColumnStage`.
        """
        layers = range(1, len(self.widths))
        blocks = dict(zip(layers, self.blocks or [Block()] * len(layers), strict=True))
        rows = {k: self.widths[k] * (2 if blocks[k].gate else 1) for k in layers}
        found = []
        for k, block in blocks.items():
            found.append(Part("W", k, (rows[k], self.read[k - 1])))
            if block.projects:
                found.append(Part("P", k, (self.widths[k], self.widths[k - block.skip])))
        found += [Part("b", k, (rows[k],)) for k in layers]
        for k, block in blocks.items():
            if block.norm is not None and block.norm.initial:
                found.append(Part("φ", k, (len(block.norm.initial), self.widths[k - 1])))
            if block.projects:
                found.append(Part("c", k, (self.widths[k],)))
        tables = () if self.embed is None else self.embed.each
        found += [Part("E", i, (one.c, one.d)) for i, one in enumerate(tables)]
        for k, block in blocks.items():
            if isinstance(block.norm, ColumnStage):
                found.append(Part("s", k, (len(block.norm.running), self.widths[k - 1])))
        return found

    @cached_property
    def starts(self) -> list[int]:
        """The first entry of each part, and last the end of all; multiples of 256 bytes."""
        unit, sizes = ALIGNMENT // self.itemsize, (prod(part.shape) for part in self.parts)
        return [0, *accumulate(-(-size // unit) * unit for size in sizes)]

    def views(self, entries: int, view: Callable[[Part, int], Any]) -> dict[str, list[Any]]:
        """view(part, its first entry) of the parts in a buffer of so many entries.

        They are found by letter and layer: ``["W"][k]``; None if a layer has no such part.
        """
        found: dict[str, list[Any]] = {name: [None] * len(self.widths) for name in PARTS}
        found["E"] = [None] * sum(part.name == "E" for part in self.parts)
        for part, start in zip(self.parts, self.starts, strict=False):
            if start < entries:
                found[part.name][part.k] = view(part, start)
        return found

    def _before(self, *names: str) -> int:
        """The end of the parts with these letters, which are the first ones."""
        return self.starts[sum(part.name in names for part in self.parts)]

    @property
    def split(self) -> int:
        """The first entry of the biases."""
        return self._before(*WEIGHTS)

    @property
    def tables(self) -> int:
        """The first entry of the tables of embeddings, or `size`."""
        return self._before(*PARTS[:-2])

    @property
    def size(self) -> int:
        """The number of entries of the flat buffer, with padding."""
        return self._before(*PARTS[:-1])

    @property
    def whole(self) -> int:
        """The number of entries of θ and of the states s behind it."""
        return self.starts[-1]

    @cached_property
    def embeddings(self) -> Embeddings | None:
        """`embed` with the place of each table, from the first one on."""
        if self.embed is None:
            return None
        starts = self.views(self.size, lambda part, start: start - self.tables)["E"]
        return replace(self.embed, starts=tuple(starts))

    @property
    def count(self) -> int:
        """The number of parameters, without padding."""
        return sum(prod(part.shape) for part in self.parts if part.name != "s")


class Parameters:
    """One flat buffer in a layout: θ, its gradient dθ, or an optimizer's slot.

    Attributes:
        layout: θ, its gradient and the slots share it.
        whole: (layout.whole,), θ and the states behind it; or (layout.size,) without states.
        flat: (layout.size,), `whole` without states; padding is zero and stays zero.
        split: the first entry of the biases.
        W, b: views of `flat`, indexed by layer k = 1 … L (W[0] and b[0] are None).
        P, phi, c: those of blocks: see `Layout.parts`; None where a layer has none.
        E: the tables of embeddings, (c, d) each, in the order of their columns.
        s: the running averages of norms; None where a layer, or this buffer, has none.
    """

    def __init__(self, layout: Layout, whole: Array) -> None:
        self.layout, self.whole, self.split = layout, whole, layout.split
        self.flat = whole if len(whole) == layout.size else whole[: layout.size]

        def view(part: Part, start: int) -> Array:
            return whole[start : start + prod(part.shape)].reshape(part.shape)

        views = layout.views(len(whole), view).values()
        self.W, self.P, self.b, self.phi, self.c, self.E, self.s = views

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the flat buffer; the copy makes its own views."""
        return Parameters, (self.layout, self.whole)

    @classmethod
    def zeros(
        cls, backend: Backend, layout: Layout, dtype: npt.DTypeLike | None = None
    ) -> Parameters:
        """Return zeros without states on the backend, in `dtype` (None: the dtype of θ)."""
        return cls(layout, backend.full((layout.size,), 0, dtype))

    def named(self) -> dict[str, Array]:
        """Return the views by the names that ``torch.nn.Sequential(Linear, activation, …)`` uses.

        "0.weight" (n_1, n_0), "0.bias" (n_1,), "2.weight", "2.bias", …  Of a norm before layer 2:
        "2.norm.weight" and "2.norm.bias" (n_1,); of the linear layer of a skip to its output:
        "2.skip.weight", "2.skip.bias"; and of the embedding of column j: "embed.j.weight" (c, d).
        Then the states, as `states` names them.
        """
        views = {}
        for k in range(1, len(self.W)):
            name = str(2 * (k - 1))
            views[f"{name}.weight"], views[f"{name}.bias"] = self.W[k], self.b[k]
            if self.phi[k] is not None:
                own = zip(("weight", "bias"), self.phi[k], strict=False)
                views |= {f"{name}.norm.{each}": row for each, row in own}
            if self.P[k] is not None:
                views[f"{name}.skip.weight"], views[f"{name}.skip.bias"] = self.P[k], self.c[k]
        embed = self.layout.embed
        for one, table in zip(embed.each if embed else (), self.E, strict=True):
            views[f"embed.{one.column}.weight"] = table
        return views | self.states()

    def states(self) -> dict[str, Array]:
        """Return the views of the states by torch's names: "2.norm.running_mean", …"""
        views = {}
        for k, rows in enumerate(self.s):
            if rows is not None:
                norm = self.layout.blocks[k - 1].norm
                assert isinstance(norm, ColumnStage)
                for (name, *_), row in zip(norm.running, rows, strict=True):
                    views[f"{2 * (k - 1)}.norm.{name}"] = row
        return views

    def assign(self, backend: Backend, tensors: Mapping[str, Array]) -> None:
        """Copy `tensors` into the views of these names: all of them or, on an error, none."""
        if not isinstance(tensors, Mapping):
            raise TypeError(
                "tensors must be a mapping from names to arrays, as net.tensors() returns, got "
                f"{type(tensors).__name__}"
            )
        views = self.named()
        tensors = {k: a for k, a in tensors.items() if not str(k).endswith(COUNTER)}
        if set(tensors) != set(views):
            wrong = sorted(map(str, set(tensors) ^ set(views)))
            raise ValueError(f"tensor names do not fit this network: {', '.join(wrong[:4])}")
        arrays = {}
        for name, view in views.items():
            array = real_array(backend, tensors[name], name, "pass real numbers", to_host=True)
            if np.shape(array) != view.shape:
                raise ValueError(
                    f"{name} has shape {np.shape(array)}, this network's is {view.shape}"
                )
            check_fits(array, view.dtype, name)
            arrays[name] = array
        backend.synchronize()
        for name, view in views.items():
            backend.asarray(arrays[name], out=view)
        backend.synchronize()  # the caller may free the tensors now


@dataclass
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

    def __setattr__(self, name: str, value: Any) -> None:
        """AttributeError but for the same array, as ``layer.W *= 2`` assigns it."""
        if vars(self).setdefault(name, value) is not value:
            raise AttributeError(
                f"{name} of a layer cannot change; W and b are views of θ, whose values you assign "
                "in place: layer.W[...] = value"
            )


@dataclass(frozen=True)
class Gradients:
    """∇J, in arrays of the network's backend.  Lists are indexed 0 … L−1, like `MLP.layers`.

    Attributes:
        W, b: ∇_W J and ∇_b J, including λ∇Ω.
        x: ∂J/∂x, (m, n_0), 0 in columns of codes; None without intermediate gradients.
        z, h: gz = ∂J/∂z and gh = ∂J/∂h of each layer, (m, n_k).  They say how the layer's output
            should have changed.  Both are empty without intermediate gradients.
        named: ∇J by the names of `MLP.tensors`, also of what blocks have and of embeddings.
    """

    W: list[Array]
    b: list[Array]
    x: Array | None
    z: list[Array]
    h: list[Array]
    named: Mapping[str, Array]
