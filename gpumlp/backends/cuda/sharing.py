"""The operations of `gpumlp.backends.sharing` on a GPU."""

from __future__ import annotations

import numpy as np

from gpumlp.backends.cuda.kernels import ONE_BLOCK, OnDevice, i64
from gpumlp.backends.cuda.theta import growth_interval, upper
from gpumlp.backends.sharing import Sharing
from gpumlp.distributed.world import World
from gpumlp.functions import REGULARIZERS, Regularizer
from gpumlp.io.types import Array


class CudaSharing(OnDevice, Sharing):
    """The operations of several processes, for a GPU each."""

    def exchange(
        self, world: World, source: Array, counts: tuple[int, ...], received: Array
    ) -> None:
        self._device.exchange(world, source, counts, received)

    def tree_sum(self, parts: Array, total: Array) -> None:
        arguments = parts, total, i64(len(parts)), i64(len(total))
        self._kernels.launch("tree_sum", "reduce.cu", self._kernels.flat(len(total)), arguments)

    def tree_moments(self, parts: Array, total: Array) -> None:
        cols = len(total) // 3
        arguments = parts, total, i64(len(parts)), i64(cols)
        self._kernels.launch("tree_moments", "reduce.cu", self._kernels.flat(cols, 1), arguments)

    def collect(self, world: World, whole: Array, counts: tuple[int, ...]) -> None:
        self._device.collect(world, whole, counts)

    def square_sum(
        self, regularizer: Regularizer, theta: Array, dtheta: Array, split: int, scaling: Array,
        total: Array, rounded: Array | None = None,
    ) -> None:  # fmt: skip
        kernels = self._kernels
        kernels.launch(
            "square_sum", "penalty.cu", kernels.flat(len(theta)),
            (theta, upper(theta, rounded), dtheta, scaling, total, kernels.partial, kernels.arrived,
             *kernels.regions(regularizer, theta, split)),
            regularizer, gradient="" if dtheta.dtype == kernels.storage else dtheta.dtype.name,
            remainder=rounded is not None,
        )  # fmt: skip

    def clip_by(self, squares: Array, max_norm: float, scaling: Array, control: Array) -> None:
        arguments = (
            squares, scaling, control, i64(len(squares)), np.float64(max_norm),
            growth_interval(self.scales_loss),
        )  # fmt: skip
        self._kernels.launch("clip_by", "penalty.cu", ONE_BLOCK, arguments, REGULARIZERS["none"])
