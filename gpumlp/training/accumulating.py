"""The destination of the gradients of a step, and the sum over its micro-batches."""

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
    """The destination of ∇W[k], or of α ∇W[k] + β W[k] for (α, β) = factors, and of ∇b[k].

    Attributes:
        W, b: indexed by layer k = 1 … L.
        on_weight_gradient: called with k when ∇W[k] is computed.
    """

    W: list[Array]
    b: list[Array]
    factors: Array | None
    on_weight_gradient: Callable[[int], None] = _nothing


class Sums(Protocol):
    """The gradients of a step, micro-batch by micro-batch."""

    def into(self, j: int) -> Any:
        """Where `backprop.backward` writes the gradients of micro-batch j = 0, 1, … of a step."""

    def add(self, j: int) -> None:
        """Add the gradients of micro-batch j, after its backward pass."""


@dataclass
class Whole(Sums):
    """A minibatch that is not divided: its gradients are those of the step."""

    d: Any

    def into(self, j: int) -> Any:  # noqa: D102
        return self.d

    def add(self, j: int) -> None:  # noqa: D102
        pass


class Summed(Sums):
    """Micro-batches: the products add ∇W to the sum, and one launch per micro-batch adds ∇b.

    Args:
        W: the sums of ∇W, in θ's type, indexed by layer.
        total: (p − split,), in θ's type: the sum of ∇b.
        factors: the factors of a step's first micro-batch, see `Backend.weight_gradient`.
        on_weight_gradient: see `Sink`.
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
    """The number of micro-batches.

    Raises:
        ValueError, TypeError: it is not a whole number from 1 to `batch_size`.
    """
    parts = checks.positive_int(accumulate, "accumulate")
    if parts > batch_size:
        raise ValueError(
            f"accumulate={parts} micro-batches cannot be made of batch_size={batch_size} examples; "
            "pass at most as many"
        )
    return parts


def biases(layout: Layout, flat: Array) -> list[Array]:
    """The views b[k], k = 1 … L, of a buffer that holds the biases only; b[0] is None."""
    depth = len(layout.widths) - 1
    starts = [start - layout.split for start in layout.starts[depth:-1]]
    sizes = [prod(shape) for shape in layout.shapes[depth:]]
    return [None, *(flat[i : i + n] for i, n in zip(starts, sizes, strict=True))]
