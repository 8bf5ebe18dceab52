"""The operations of embeddings, of blocks, and of norms over columns as calls of the library."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpumlp.backends.cpu.calls import Calls
from gpumlp.backends.cpu.works import Work, partial_sums, row_sums
from gpumlp.backends.stages import mask_numbers
from gpumlp.functions.embeddings import Embeddings
from gpumlp.functions.stages import ColumnStage, Stage
from gpumlp.io.types import HostArray as Array


class StageLowering(Calls):
    """What `Lowering` inherits."""

    def embed(self, x: Array, E: Array, embeddings: Embeddings, h: Array) -> Iterator[Work]:
        plain = np.array(embeddings.plain, np.int64)
        tables = embeddings.numbers(h.shape[1])
        yield self._plain(
            "embed", x, E, h, *x.shape, h.shape[1], plain, len(plain), tables, len(tables),
            real=self._stored,
        )  # fmt: skip

    def embed_gradient(
        self, x: Array, g: Array, embeddings: Embeddings, order: Array, sums: Array, dE: Array,
        factors: Array | None = None,
    ) -> Iterator[Work]:  # fmt: skip
        tables = embeddings.numbers(g.shape[1])
        yield self._plain(
            "embed_gradient", x, g, dE, dE.size, *x.shape, g.shape[1], tables, len(tables), order,
            factors,
            real=self._stored,
        )  # fmt: skip

    def stage(self, stage: Stage, x: Array, phi: Array | None, y: Array) -> Iterator[Work]:
        if stage.cuda_f is not None:
            yield self._of(stage.cuda_f, "gate", x, y, *y.shape)
        else:
            yield self._of(stage, "rows", x, x if phi is None else phi, y, *x.shape)

    def stage_gradient(
        self, stage: Stage, x: Array, phi: Array | None, gy: Array, skip: Array | None,
        gx: Array, dphi: Array | None,
    ) -> Iterator[Work]:  # fmt: skip
        if stage.cuda_f is not None:
            m, n = gy.shape
            sums = row_sums(m, self._dtype.itemsize, 2 * n)
            yield self._of(stage.cuda_f, "gate_gradient", x, gy, gx, dphi, m, n, sums)
        else:
            m, n = x.shape
            phi = x if phi is None else phi  # without φ it is not read
            size = len(stage.initial) * n
            sums = row_sums(m, self._dtype.itemsize, size)
            yield self._of(stage, "rows_gradient", x, phi, gy, skip, gx, dphi, m, n, size, sums)

    def dropout(
        self, x: Array, rate: float, layer: int, row: int, seed: Array, control: Array,
        skip: Array | None, y: Array,
    ) -> Iterator[Work]:  # fmt: skip
        threshold, scale = mask_numbers(rate)
        yield self._plain(
            "dropout", x, skip, y, *x.shape, row, seed, control, control.size - 1, layer, threshold,
            scale, real=self._stored,
        )  # fmt: skip

    def join(self, x: Array, skip: Array, y: Array) -> Iterator[Work]:
        yield self._plain("join", x, skip, y, *x.shape, real=self._stored)

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
