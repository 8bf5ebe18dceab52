"""The operations of embeddings: rows of tables in the place of category codes."""

from __future__ import annotations

from typing import Any, Protocol

from gpumlp.backends.declaration import operation
from gpumlp.functions.embeddings import Embeddings
from gpumlp.io.types import Array


def _embed_bytes(a: Any) -> int:
    rows = len(a.x) * a.embeddings.added * a.E.itemsize
    return int(a.x.nbytes + rows + a.h.nbytes)


def _gradient_bytes(a: Any) -> int:
    codes = len(a.x) * len(a.embeddings.each) * a.x.itemsize
    rows = len(a.x) * a.embeddings.added * a.g.itemsize
    return int(codes + 2 * rows + (a.dE.nbytes if a.factors is None else rows))


class Lookup(Protocol):
    """They stand beside those of `gpumlp.backends.operations`.

    x has θ's type, also in 16-bit precisions, so that its codes are not rounded.  E and dE have all
    tables, table i from its entry `embeddings.starts[i]` on.
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


def part_of(m: int) -> int:
    """The examples of a part, which are added one after the other: about √m, at least 32."""
    return max(32, 1 << (m - 1).bit_length() // 2)


def parts(m: int) -> int:
    """The number of parts of m examples."""
    return -(-m // part_of(m))
