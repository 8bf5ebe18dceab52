"""The CUDA backend's operations of the update: how θ moves, and what looks at all of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.backends.cuda import launch
from gpumlp.backends.cuda.kernels import Kernels, i32, i64
from gpumlp.backends.cuda.protocol import Device, DeviceArray
from gpumlp.functions import Optimizer, Regularizer
from gpumlp.functions.optimizers import LEAST_NORM, NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS

STEADY = 2000  # steps without an overflow after which the loss scale is doubled


class CudaUpdate:
    """The operations of `gpumlp.backends.operations` from `add` to `round`, on a device."""

    precision: str
    dtype: np.dtype[Any]
    storage: np.dtype[Any]
    scales_loss: bool
    _device: Device
    _kernels: Kernels
    _branches: bool

    def add(self, part: DeviceArray, total: DeviceArray, anew: bool) -> None:
        grid, block = launch.flat(len(part), self._kernels.pack, self._device.multiprocessors)
        kernel = self._kernels.kernel("add", "reduce.cu")
        kernel(grid, block, (part, total, i64(len(part)), i32(anew)))

    def clip(
        self, regularizer: Regularizer, theta: DeviceArray, dtheta: DeviceArray, split: int,
        max_norm: float, scaling: DeviceArray, control: DeviceArray,
    ) -> None:  # fmt: skip
        self._joined()
        on = self._kernels
        (blocks, _), block = launch.flat(len(theta), on.pack, self._device.multiprocessors)
        gradient = "" if dtheta.dtype == self.storage else dtheta.dtype.name
        on.kernel("squared_norm", "penalty.cu", regularizer, gradient=gradient)(
            (blocks, 1), block,
            (theta, dtheta, scaling, on.partial, *on.regions(regularizer, theta, split)),
        )  # fmt: skip
        interval = i64(STEADY if self.scales_loss else 0)
        on.kernel("clip", "penalty.cu", regularizer)(
            *launch.ONE_BLOCK,
            (on.partial, scaling, control, i64(blocks), np.float64(max_norm), interval),
        )

    def update(
        self, optimizer: Optimizer, regularizer: Regularizer, theta: DeviceArray,
        rounded: DeviceArray, dtheta: DeviceArray, slots: DeviceArray, split: int,
        scaling: DeviceArray, control: DeviceArray, part: tuple[int, int] | None = None,
        groups: DeviceArray | None = None,
    ) -> None:  # fmt: skip
        self._joined()
        begin, end = part or (0, len(theta))
        grid, block = launch.flat(end - begin, self._kernels.pack, self._device.multiprocessors)
        state = slots if optimizer.slots else theta  # which a rule without slots does not touch
        kernel = self._kernels.kernel(
            "update", "update.cu", optimizer, regularizer,
            slots="" if state.dtype == self.dtype else state.dtype.name,
            gradient="" if dtheta.dtype == self.storage else dtheta.dtype.name,
            grouped=groups is not None,
        )  # fmt: skip
        kernel(
            grid, block,
            (theta, rounded, dtheta, state, control, scaling,
             control if groups is None else groups,  # which it does not read
             *self._kernels.regions(regularizer, theta, split), i64(begin), i64(end)),
        )  # fmt: skip

    def orthogonalize(
        self, V: DeviceArray, scale: float, X: DeviceArray, A: DeviceArray, P: DeviceArray
    ) -> None:
        tall = len(V) > len(A)
        compute = "tf32" if self.storage.itemsize == 2 else self.precision
        self._kernels.normalize(V, X, LEAST_NORM)
        for i in range(NEWTON_SCHULZ_STEPS):
            self._device.gemm(X, X, A, transpose_a=tall, transpose_b=not tall, compute=compute)
            self._device.gemm(A, A, P, compute=compute)
            last = i == NEWTON_SCHULZ_STEPS - 1
            self._kernels.quintic(A, P, scale if last else 1.0, NEWTON_SCHULZ)
            self._device.gemm(*((X, A) if tall else (A, X)), V, compute=compute)
            X, V = V, X

    def average(
        self, theta: DeviceArray, mean: DeviceArray, decay: float, control: DeviceArray
    ) -> None:
        n = len(theta)
        grid, block = launch.flat(n, self._kernels.pack, self._device.multiprocessors)
        self._kernels.kernel("average", "average.cu")(
            grid, block, (theta, mean, control, i64(n), i64(len(control) - 1), np.float64(decay))
        )

    def round(self, theta: DeviceArray, rounded: DeviceArray) -> None:
        if rounded.dtype == theta.dtype:
            return
        grid, block = launch.flat(len(theta), self._kernels.pack, self._device.multiprocessors)
        self._kernels.kernel("round_theta", "round.cu")(
            grid, block, (theta, rounded, i64(len(theta)))
        )

    def _joined(self) -> None:
        """All gradients are there."""
        if self._branches:
            self._device.join()
