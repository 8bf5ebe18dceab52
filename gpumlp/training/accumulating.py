"""Where a backward pass puts its gradients, and how those of a step's micro-batches add up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

from gpumlp import checks
from gpumlp.backends import Backend
from gpumlp.io.types import Array
from gpumlp.parameters import Layout


def _nothing(k: int) -> None:
    pass


@dataclass
class Sink:
    """Where ∇W[k] goes, or α ∇W[k] + β W[k] for (α, β) = factors, and ∇b[k]; indexed by layer.

    Attributes:
        on_weight_gradient: called with k when ∇W[k] is there; nothing is left to do where it was added to W
            itself.
    """

    W: list[Array]
    b: list[Array]
    factors: Array | None
    on_weight_gradient: Callable[[int], None] = _nothing


class Sums(Protocol):
    """The gradients of a step, micro-batch by micro-batch."""

    def into(self, j: int) -> Any:
        """What `backprop.backward` writes for the micro-batch j = 0, 1, … of a step."""

    def add(self, j: int) -> None:
        """After it."""


@dataclass
class Whole(Sums):
    """A minibatch in one piece: its gradients are the step's."""

    d: Any

    def into(self, j: int) -> Any:  # noqa: D102
        return self.d

    def add(self, j: int) -> None:  # noqa: D102
        pass


class Summed(Sums):
    """Micro-batches: the products add ∇W to the last ones', and a launch each adds ∇b.

    Args:
        W: what all ∇W are added to, in θ's type, indexed by layer.
        total: (p − split,), in θ's type: what all ∇b are added to.
        factors: of the products of a step's first micro-batch, see `Backend.weight_gradient`.
        on_weight_gradient: of `Sink`.
    """

    def __init__(
        self, backend: Backend, layout: Layout, W: list[Array], total: Array,
        factors: Array | None, on_weight_gradient: Callable[[int], None] = _nothing,
    ) -> None:  # fmt: skip
        self._backend, self._total = backend, total
        self._part = backend.full(total.shape, 0, backend.storage)
        b = biases(layout, self._part)
        self._first = Sink(W, b, factors, on_weight_gradient)
        self._further = Sink(W, b, backend.full((2,), 1), on_weight_gradient)

    def into(self, j: int) -> Sink:  # noqa: D102
        return self._further if j else self._first

    def add(self, j: int) -> None:  # noqa: D102
        self._backend.add(self._part, self._total, j == 0)


def checked(accumulate: Any, batch_size: int) -> int:
    """The number of micro-batches; ValueError or TypeError where a minibatch has fewer examples."""
    parts = checks.positive_int(accumulate, "accumulate")
    if parts > batch_size:
        raise ValueError(
            f"accumulate={parts} micro-batches cannot be made of batch_size={batch_size} examples; "
            "pass at most as many"
        )
    return parts


def biases(layout: Layout, flat: Array) -> list[Array]:
    """The views b[k], k = 1 … L, of a buffer of the biases' region alone; None stands for b[0]."""
    depth = len(layout.widths) - 1
    starts = [start - layout.split for start in layout.starts[depth:-1]]
    sizes = [prod(shape) for shape in layout.shapes[depth:]]
    return [None, *(flat[i : i + n] for i, n in zip(starts, sizes, strict=True))]
