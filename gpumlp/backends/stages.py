"""The operations of embeddings, and of blocks: norms and gates, dropout, and skips."""

from __future__ import annotations

from typing import Any, Protocol

from gpumlp.backends.declaration import operation
from gpumlp.functions.embeddings import Embeddings
from gpumlp.functions.stages import Stage
from gpumlp.io.types import Array

UNIT = 1 << 16  # of the probabilities of dropout


def _embed_bytes(a: Any) -> int:
    rows = len(a.x) * a.embeddings.added * a.E.itemsize
    return int(a.x.nbytes + rows + a.h.nbytes)


def _gradient_bytes(a: Any) -> int:
    codes = len(a.x) * len(a.embeddings.each) * a.x.itemsize
    rows = len(a.x) * a.embeddings.added * a.g.itemsize
    return int(codes + 2 * rows + (a.dE.nbytes if a.factors is None else rows))


class Stages(Protocol):
    """They stand beside those of `gpumlp.backends.operations`, with the same dtypes and shapes.

    But x of embeddings has θ's type, also in 16-bit precisions, so that its codes are not rounded.
    E and dE have all tables, table i from its entry `embeddings.starts[i]` on.
    """

    @operation(writes="h", moves=_embed_bytes, by_rows=True)
    def embed(self, x: Array, E: Array, embeddings: Embeddings, h: Array) -> None:
        """h ← the columns of x without codes, and then the row of each code in its table.

        x (m, n_0), whose codes are in range; E (q,), as products read it; h (m, width).
        """

    @operation(writes="order sums dE", moves=_gradient_bytes)
    def embed_gradient(
        self, x: Array, g: Array, embeddings: Embeddings, order: Array, sums: Array, dE: Array,
        factors: Array | None = None,
    ) -> None:  # fmt: skip
        """Row r of each dE ← the sum of g over the examples with code r, in a fixed order; or 0.

        x (m, n_0); g (m, n), whose last columns are ∂J/∂h of the embedded ones; dE (q,).  Sums are
        computed in θ's type.
        factors (2,) in θ's type, where dE is E itself, of that type, too: the rows of codes that
        occur ← themselves + factors[0] Σ g; the others stay.
        Buffers: order (2, embeddings, m) int64 and sums (`parts` of m, 2, added), in θ's type.
        """

    @operation(writes="y", by_rows=True)
    def stage(self, stage: Stage, x: Array, phi: Array | None, y: Array) -> None:
        """y ← the stage of each row of x.

        x (m, n); phi (p, n), as products read it, or None; y (m, n), or (m, n / 2) if the stage
        halves it.
        """

    @operation(writes="gx dphi", by_rows=True)
    def stage_gradient(
        self, stage: Stage, x: Array, phi: Array | None, gy: Array, skip: Array | None,
        gx: Array, dphi: Array | None,
    ) -> None:  # fmt: skip
        """gx ← Jᵀ gy, and dφ ← the sum of its products over the rows, in a fixed order.

        With a skip, gx is that + skip, where skip is like x; stages that halve have none.
        x, phi and gy as in `stage`, of which gy is the gradient of y; gx like x, dphi like phi.
        Of a stage that halves, dphi (n,) are the column sums of gx: ∇b of the layer.
        """

    @operation(writes="y", by_rows=True)
    def dropout(
        self, x: Array, rate: float, layer: int, row: int, seed: Array, control: Array,
        skip: Array | None, y: Array,
    ) -> None:  # fmt: skip
        """y ← x ⊙ mask / (1 − p), for the mask of a step and a layer; with a skip, that + skip.

        x, skip, y (m, n): rows row … row + m of the minibatch; y may be x or skip.  seed (1,)
        int64; the last number of control is the step.  p: `rate` in units of 2⁻¹⁶.

        The mask is a function of these numbers alone: entry e of the minibatch, counted row by row,
        reads 16 bits of Philox4x64-10 (Salmon et al., 2011) with the key (seed, layer) and the
        counter (1 + e / 16, step, 0, 0), and is kept unless they are below 2¹⁶ p.
        """

    @operation(writes="y", by_rows=True)
    def join(self, x: Array, skip: Array, y: Array) -> None:
        """y ← x + skip.  All (m, n)."""


def mask_numbers(rate: float) -> tuple[int, float]:
    """2¹⁶ p, the least of 16 bits with which an entry is kept, and 1 / (1 − p)."""
    threshold = min(round(rate * UNIT), UNIT - 1)
    return threshold, UNIT / (UNIT - threshold)


def part_of(m: int) -> int:
    """The examples of a part, whose rows `embed_gradient` adds in order: about √m, at least 32."""
    return max(32, 1 << (m - 1).bit_length() // 2)


def parts(m: int) -> int:
    """The number of such parts of m examples."""
    return -(-m // part_of(m))
