"""The operations of a step that is cut into shards, which several processes compute.

`gpumlp.step.sharding` says how.  Shapes and dtypes are those of `gpumlp.backends.operations`.
"""

from __future__ import annotations

from typing import Protocol

from gpumlp.backends.declaration import operation
from gpumlp.distributed.world import World
from gpumlp.functions import Regularizer
from gpumlp.io.types import Array


class Sharing(Protocol):
    """What a backend does for several processes."""

    @operation(writes="received", moves=lambda a: a.source.nbytes + a.received.nbytes)
    def exchange(
        self, world: World, source: Array, counts: tuple[int, ...], received: Array
    ) -> None:
        """received[r] ← the piece of rank r's source that is for this rank.

        source (n,): its first counts[0] entries are for rank 0, the next counts[1] for rank 1, …;
        received (size, counts[rank]).
        """

    @operation(writes="total")
    def tree_sum(self, parts: Array, total: Array) -> None:
        """total ← Σᵢ partsᵢ, added in pairs: ((p₀ + p₁) + (p₂ + p₃)) + …

        So neighbours can be added before, as parts of a tree of their own, with the same bits.
        parts (r, n) and total (n,), in θ's type.  total may be a row of parts.
        """

    @operation(writes="total")
    def tree_moments(self, parts: Array, total: Array) -> None:
        """total ← the means, variances and numbers of rows of all parts, joined in pairs.

        Each part, and total, is what `Columns.column_moments` writes, (3, w), in the shape of
        `tree_sum`, whose order this is.
        """

    @operation(updates="whole", moves=lambda a: a.whole.nbytes)
    def collect(self, world: World, whole: Array, counts: tuple[int, ...]) -> None:
        """The piece of `whole` that each rank has goes to all ranks.

        whole (n,): its first counts[0] entries are those of rank 0, the next counts[1] of rank 1, …
        """

    @operation(writes="total")
    def square_sum(
        self, regularizer: Regularizer, theta: Array, dtheta: Array, split: int, scaling: Array,
        total: Array, rounded: Array | None = None,
    ) -> None:  # fmt: skip
        """total ← ‖dθ/S + λ∇Ω(θ)‖₂², the first half of `clip`, for a piece of θ.

        theta, dtheta (n,) in θ's type; split as in `clip`, 0 to n; total (1,) float64.  rounded: of
        the piece, only where θ is split.
        """

    @operation(updates="scaling control")
    def clip_by(self, squares: Array, max_norm: float, scaling: Array, control: Array) -> None:
        """control[0] ← min(1, max_norm / √(Σ squares)), the second half of `clip`.

        squares (pieces,) float64, added in order; scaling and control as in `clip`.
        """
