"""θ in one flat buffer, with aligned views W[k] and b[k].  Gradients and slots share its layout.

All weights come first, then all biases, so one number, `split`, separates the two regions.  The
update, Ω and clipping are therefore one pass each over memory, whatever the depth.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.arrays import as_backend_array
from gpumlp.backends import Backend
from gpumlp.backends.declaration import Call
from gpumlp.functions import Activation, Regularizer
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
        return [0, *accumulate(-(-prod(shape) // unit) * unit for shape in self.shapes)]

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
    """

    def __init__(self, layout: Layout, flat: Array) -> None:
        self.layout, self.flat, self.split = layout, flat, layout.split
        views = [
            flat[start : start + prod(shape)].reshape(shape)
            for start, shape in zip(layout.starts, layout.shapes, strict=False)
        ]
        depth = len(layout.widths) - 1
        self.W: list[Array] = [None, *views[:depth]]
        self.b: list[Array] = [None, *views[depth:]]

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
        views = {}
        for i, (W, b) in enumerate(zip(self.W[1:], self.b[1:], strict=True)):
            views[f"{2 * i}.weight"], views[f"{2 * i}.bias"] = W, b
        return views

    def assign(self, backend: Backend, tensors: Mapping[str, Array]) -> None:
        """Copy `tensors` into the views of these names: all of them or, on a ValueError, none."""
        views = self.named()
        if set(tensors) != set(views):
            wrong = sorted(set(tensors) ^ set(views))
            raise ValueError(f"tensor names do not fit this network: {', '.join(wrong[:4])}")
        arrays = {}
        for name, view in views.items():
            array = as_backend_array(tensors[name], backend, name, to_host=True)
            if np.shape(array) != view.shape:
                raise ValueError(
                    f"{name} has shape {np.shape(array)}, this network's is {view.shape}"
                )
            arrays[name] = array
        backend.synchronize()
        for name, view in views.items():
            backend.asarray(arrays[name], out=view)
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


class Penalty:
    """λΩ(θ) of a network.  It keeps the operation of the last call, which is that of the next one.

    On the host the operation is a program: to make it takes five times as long as to run it for a
    small network, and a fit asks for λΩ(θ) after each epoch.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend, self._lock = backend, threading.Lock()
        self._omega = backend.full((1,), 0, "float64")
        self._of: tuple[Any, ...] = ()
        self._run: Callable[[int], None] = lambda steps: None

    def __call__(self, regularizer: Regularizer, theta: Parameters) -> float:
        """λΩ(θ), which is 0 without a regulariser."""
        if not regularizer.active:
            return 0.0
        backend, of = self._backend, (regularizer, theta.flat)
        backend.synchronize()
        with self._lock:
            if len(self._of) != 2 or any(a is not b for a, b in zip(self._of, of, strict=True)):
                self._of, self._run = of, self._made(regularizer, theta)
            backend.asarray(np.zeros(1), dtype="float64", out=self._omega)
            self._run(1)
            return float(backend.to_host(self._omega)[0])

    def _made(self, regularizer: Regularizer, theta: Parameters) -> Callable[[int], None]:
        backend = self._backend
        work = partial(backend.penalty, regularizer, theta.flat, theta.split, self._omega, None)
        if not backend.on_host:
            return lambda steps: work()
        return backend.compile({"penalty": [Call(work)]}, "penalty")
