"""The operations of norms over columns as calls of the library."""

from __future__ import annotations

from collections.abc import Iterator

from gpumlp.backends.cpu.calls import Calls
from gpumlp.backends.cpu.works import Work, partial_sums
from gpumlp.functions.stages import ColumnStage
from gpumlp.io.types import HostArray as Array


class ColumnLowering(Calls):
    """What `Lowering` inherits."""

    def column_mean(
        self, stage: ColumnStage, i: int, x: Array, s: Array | None, of: int, mean: Array
    ) -> Iterator[Work]:
        m, n = x.shape
        wide, sums = mean.shape[1], partial_sums(m, n, self._dtype.itemsize, n)
        before = mean if s is None else s  # of the first mean, none is read
        yield self._of(stage, "column_mean", x, before, mean, m, n, wide, i, of, sums)

    def column_moments(
        self, stage: ColumnStage, x: Array, moments: Array, running: Array | None
    ) -> Iterator[Work]:
        (m, n), wide = x.shape, moments.shape[1]
        sums = partial_sums(m, n, self._dtype.itemsize, 2 * n)
        yield self._of(stage, "column_moments", x, moments, m, n, wide, sums)
        if running is not None:
            yield from self.running_mean(stage, moments, m, running)

    def columns(
        self, stage: ColumnStage, x: Array, phi: Array, s: Array, y: Array
    ) -> Iterator[Work]:
        yield self._of(stage, "columns", x, phi, s, y, *x.shape, s.shape[1])

    def running_mean(self, stage: ColumnStage, s: Array, of: int, running: Array) -> Iterator[Work]:
        yield self._of(stage, "running_mean", s, running, running.shape[1], s.shape[1], of)

    def column_slopes(
        self, stage: ColumnStage, x: Array, phi: Array, gy: Array, s: Array, of: int,
        t: Array | None, dphi: Array,
    ) -> Iterator[Work]:  # fmt: skip
        (m, n), rows = x.shape, stage.slopes + len(stage.initial)
        sums = partial_sums(m, n, self._dtype.itemsize, rows * n)
        yield self._of(stage, "column_slopes", x, phi, gy, s, t, dphi, m, n, s.shape[1], of, sums)

    def columns_gradient(
        self, stage: ColumnStage, x: Array, phi: Array, gy: Array, s: Array, t: Array | None,
        skip: Array | None, gx: Array,
    ) -> Iterator[Work]:  # fmt: skip
        wide = s.shape[1]
        yield self._of(stage, "columns_gradient", x, phi, gy, s, t, skip, gx, *x.shape, wide)
