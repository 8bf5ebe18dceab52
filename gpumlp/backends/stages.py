"""The operations of blocks: norms and gates, dropout, and skips."""

from __future__ import annotations

from typing import Protocol

from gpumlp.backends.declaration import operation
from gpumlp.functions.stages import Stage
from gpumlp.io.types import Array

UNIT = 1 << 16  # of the probabilities of dropout


def mask_numbers(rate: float) -> tuple[int, float]:
    """2¹⁶ p, the least of 16 bits with which an entry is kept, and 1 / (1 − p)."""
    threshold = min(round(rate * UNIT), UNIT - 1)
    return threshold, UNIT / (UNIT - threshold)


class Stages(Protocol):
    """They stand beside those of `gpumlp.backends.operations`, with the same dtypes and shapes."""

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
