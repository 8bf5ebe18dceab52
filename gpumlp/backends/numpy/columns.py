"""The operations of `gpumlp.backends.columns` in NumPy."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from gpumlp.backends.columns import Columns
from gpumlp.backends.numpy.sharing import joined_moments
from gpumlp.functions.stages import ColumnStage
from gpumlp.io.threads import Threads
from gpumlp.io.types import HostArray as Array


class NumpyColumns(Columns):
    """What `NumpyBackend` inherits."""

    _threads: Threads

    def column_mean(
        self, stage: ColumnStage, i: int, x: Array, s: Array | None, of: int, mean: Array
    ) -> None:
        n = x.shape[1]
        before = s if s is None else s[:, :n]

        def block(rows: slice) -> Array:
            sums: Array = stage.means[i](x[rows], before, **stage.params).sum(axis=0)
            return sums

        np.divide(np.sum(self._threads.over_rows(block, x), axis=0), of, out=mean[0, :n])

    def column_moments(
        self, stage: ColumnStage, x: Array, moments: Array, running: Array | None
    ) -> None:
        n, first = x.shape[1], x[0]

        def block(rows: slice) -> Array:
            own: Array = np.subtract(x[rows], first, dtype=moments.dtype)
            mean = own.mean(axis=0)
            own -= mean
            variance = np.square(own, out=own).mean(axis=0)
            return np.stack([mean, variance, np.full_like(mean, len(own))])

        moments[:, :n] = reduce(joined_moments, self._threads.over_rows(block, x))
        moments[0, :n] += first
        if running is not None:
            self.running_mean(stage, moments[:2], len(x), running)

    def columns(self, stage: ColumnStage, x: Array, phi: Array, s: Array, y: Array) -> None:
        s = s[:, : x.shape[1]]

        def block(rows: slice) -> None:
            np.copyto(y[rows], stage.forward(x[rows], phi, s, **stage.params), casting="same_kind")

        self._threads.over_rows(block, x)

    def running_mean(self, stage: ColumnStage, s: Array, of: int, running: Array) -> None:
        for i in range(len(s)):
            kept, added = stage.averaged(i, of)
            running[i] = kept * running[i] + added * s[i, : running.shape[1]]

    def column_slopes(
        self, stage: ColumnStage, x: Array, phi: Array, gy: Array, s: Array, of: int,
        t: Array | None, dphi: Array,
    ) -> None:  # fmt: skip
        assert stage.sums is not None
        sums, n = stage.sums, x.shape[1]
        s = s[:, :n]

        def block(rows: slice) -> list[list[Array]]:
            both = sums(x[rows], phi, gy[rows], s, **stage.params)
            slopes = both[0] if t is not None else ()
            return [[a.sum(axis=0) for a in each] for each in (slopes, both[1])]

        slopes, own = zip(*self._threads.over_rows(block, x), strict=True)
        if t is not None:
            np.divide(np.sum(slopes, axis=0), of, out=t[:, :n])
        np.copyto(dphi, np.sum(own, axis=0), casting="same_kind")

    def columns_gradient(
        self, stage: ColumnStage, x: Array, phi: Array, gy: Array, s: Array, t: Array | None,
        skip: Array | None, gx: Array,
    ) -> None:  # fmt: skip
        n = x.shape[1]
        s, slopes = s[:, :n], np.zeros((stage.slopes, n), s.dtype) if t is None else t[:, :n]

        def block(rows: slice) -> None:
            g: Any = stage.vjp(x[rows], phi, gy[rows], s, slopes, **stage.params)
            np.copyto(gx[rows], g if skip is None else g + skip[rows], casting="same_kind")

        self._threads.over_rows(block, x)
