"""The operations of norms over the columns of a minibatch, such as batch norm.

The means s and t of a `ColumnStage` are those of the whole minibatch.  An operation computes the
part of some of its rows; the parts of all are joined by `Sharing.tree_sum` and `tree_moments`.
"""

from __future__ import annotations

from typing import Protocol

from gpumlp.backends.declaration import operation
from gpumlp.functions.stages import ColumnStage
from gpumlp.io.types import Array


class Columns(Protocol):
    """They stand beside those of `gpumlp.backends.operations`, and are for one network, not for K.

    x, y, gx and gy (m, n) are rows of a minibatch of `of` rows.  phi (p, n) is φ as products read
    it, and dphi like phi.  s (q, w) and t (r, w) are in θ's type, and have their values in the
    first n columns; w is n or more, so that `tree_sum` can add them.
    """

    @operation(writes="mean")
    def column_mean(
        self, stage: ColumnStage, i: int, x: Array, s: Array | None, of: int, mean: Array
    ) -> None:
        """mean ← the part of these rows in s[i]: their sum / of, in a fixed order.

        s: the means before, (i, w), or None for the first; mean (1, w) in θ's type.
        """

    @operation(writes="moments", updates="running")
    def column_moments(
        self, stage: ColumnStage, x: Array, moments: Array, running: Array | None
    ) -> None:
        """moments (3, w) ← the mean, the variance and the number of these rows, read once.

        Differences from the first row are added, so that the digits that all rows have in common
        are not lost.  The first two rows of moments are s.  running: None, or these are all rows
        of the minibatch, and it is updated as by `running_mean`.

        Source: Chan, Golub & LeVeque (1979), "Updating formulae and a pairwise algorithm".
        """

    @operation(writes="y", by_rows=True)
    def columns(self, stage: ColumnStage, x: Array, phi: Array, s: Array, y: Array) -> None:
        """y ← the stage of x, for the means s."""

    @operation(updates="running")
    def running_mean(self, stage: ColumnStage, s: Array, of: int, running: Array) -> None:
        """running (q, n) ← running + momentum (s − running); s without bias if so declared.

        of: the rows of the minibatch, 2 or more.
        """

    @operation(writes="t dphi")
    def column_slopes(
        self, stage: ColumnStage, x: Array, phi: Array, gy: Array, s: Array, of: int,
        t: Array | None, dphi: Array,
    ) -> None:  # fmt: skip
        """t ← the part of these rows in the means t, and dφ ← their sums, in a fixed order.

        t: None if it is 0, as outside of a training.
        """

    @operation(writes="gx", by_rows=True)
    def columns_gradient(
        self, stage: ColumnStage, x: Array, phi: Array, gy: Array, s: Array, t: Array | None,
        skip: Array | None, gx: Array,
    ) -> None:  # fmt: skip
        """gx ← the gradient of x, for that of y and the means s and t; None: t is 0.

        With a skip (m, n), gx is that + skip.
        """
