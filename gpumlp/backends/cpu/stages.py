"""The operations of blocks as calls of the library."""

from __future__ import annotations

from collections.abc import Iterator

from gpumlp.backends.cpu.calls import Calls
from gpumlp.backends.cpu.works import Work, row_sums
from gpumlp.backends.stages import mask_numbers
from gpumlp.functions.stages import Stage
from gpumlp.io.types import HostArray as Array


class StageLowering(Calls):
    """What `Lowering` inherits."""

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
