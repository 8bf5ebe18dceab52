"""The operations over all of θ on a GPU: penalty, clipping, update, average."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from gpumlp.backends.cuda import tiles
from gpumlp.backends.cuda.kernels import OnDevice, i32, i64
from gpumlp.functions import Optimizer, Regularizer
from gpumlp.functions.optimizers import LEAST_NORM, NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS
from gpumlp.io.types import Array

GROWTH_INTERVAL = 2000  # steps without an overflow after which the loss scale is doubled


class CudaTheta(OnDevice):
    """What `CudaBackend` inherits."""

    def penalty(
        self, regularizer: Regularizer, theta: Array, split: int, J: Array, dtheta: Array | None
    ) -> None:
        if not regularizer.active:
            return
        kernels, (add, gradient) = self._kernels, (0, theta) if dtheta is None else (1, dtheta)
        regions = kernels.regions(regularizer, theta, split)
        kernels.launch(
            "penalty", "penalty.cu", kernels.flat(len(theta)),
            (theta, gradient, kernels.partial, kernels.arrived, J, *regions, i32(add)),
            regularizer, dtype=gradient.dtype.name,
        )  # fmt: skip

    def add(self, part: Array, total: Array, overwrite: bool) -> None:
        n, arguments = len(part), (part, total, i64(len(part)), i32(overwrite))
        self._kernels.launch("add", "reduce.cu", self._kernels.flat(n), arguments)

    def clip(
        self, regularizer: Regularizer, theta: Array, dtheta: Array, split: int, max_norm: float,
        scaling: Array, control: Array, rounded: Array | None = None,
    ) -> None:  # fmt: skip
        kernels = self._kernels
        kernels.launch(
            "clip", "penalty.cu", kernels.of_theta(theta),
            (theta, upper(theta, rounded), dtheta, scaling, control, kernels.partial,
             kernels.arrived, *kernels.regions(regularizer, theta, split), np.float64(max_norm),
             growth_interval(self.scales_loss), i64(control.shape[-1])),
            regularizer, gradient="" if dtheta.dtype == kernels.storage else dtheta.dtype.name,
            remainder=rounded is not None,
        )  # fmt: skip

    def update(
        self, optimizer: Optimizer, regularizer: Regularizer, theta: Array, rounded: Array,
        dtheta: Array, slots: Array, split: int, scaling: Array, control: Array,
        part: tuple[int, int] | None = None, groups: Array | None = None, origin: int = 0,
    ) -> None:  # fmt: skip
        kernels, (begin, end) = self._kernels, part or (0, theta.shape[-1])
        state = slots if optimizer.slots else kernels.partial  # a rule without slots leaves it
        kernels.launch(
            "update", "update.cu", kernels.of_theta(theta, part),
            (theta, rounded, dtheta, state, control, scaling,
             control if groups is None else groups,  # without groups, the kernel does not read it
             *kernels.regions(regularizer, theta, split), i64(begin), i64(end), i64(origin)),
            optimizer, regularizer,
            slots="" if state.dtype == kernels.dtype else state.dtype.name,
            gradient="" if dtheta.dtype == kernels.storage else dtheta.dtype.name,
            grouped=groups is not None, remainder=theta.dtype != kernels.dtype,
        )  # fmt: skip

    def updates_in_product(
        self, optimizer: Optimizer, regularizer: Regularizer, slot_type: np.dtype[Any],
        shape: tuple[int, int],
    ) -> bool:  # fmt: skip
        return (
            self.precision == "bfloat16"
            and slot_type == self.dtype
            and regularizer.weight_decay() is not None
            and not any(width % tiles.ALIGNED for width in shape)
            and (source := tiles.weight_update(optimizer)) is not None
            and tiles.machine_code(source, self._device.capability) is not None
        )

    def weight_update(
        self, optimizer: Optimizer, regularizer: Regularizer, gz: Array, h_below: Array,
        theta: Array, rounded: Array, slots: Array, control: Array, part: tuple[int, int],
        factors: tuple[float, float],
    ) -> None:  # fmt: skip
        source = tiles.weight_update(optimizer)
        assert source is not None  # updates_in_product has said so
        kernel = self._device.tile_kernel(source)
        decay, shape = regularizer.weight_decay() or 0.0, (gz.shape[1], h_below.shape[1])
        W = slice(part[0], part[0] + math.prod(shape))
        state = (slots[:, W] if optimizer.slots else theta[W]).reshape(-1, *shape)
        numbers = source.arguments(optimizer, decay, *factors)
        blocks = math.prod(-(-n // tiles.TILE) for n in shape)
        kernel(blocks, (
            gz, h_below, theta[W].reshape(shape), rounded[W].reshape(shape), state, control,
            *map(np.float32, numbers),
        ))  # fmt: skip

    def orthogonalize(self, V: Array, scale: float, X: Array, A: Array, P: Array) -> None:
        """Each product is one batch of K, and each launch has a row of blocks for each matrix."""
        kernels, multiply = self._kernels, partial(self._device.gemm, compute=self.precision)
        (K, n_out, n_in), r, sums = X.shape, A.shape[-1], kernels.partial
        tall, size, apart = n_out > r, n_out * n_in, i64(V.shape[1])
        # as many blocks for each as a single matrix has, so that it gets the same sum
        (blocks, *_), threads = kernels.flat(size, 1)
        blocks = min(blocks, len(sums) // K)
        geometry, of_squares = ((blocks, K), threads), ((kernels.flat(r * r, 1)[0][0], K), threads)
        matrices = V[:, :size].reshape(X.shape)
        X, other = _matrices(X, kernels.storage) if kernels.storage != V.dtype else (X, matrices)
        A, P = (_matrices(each, kernels.storage)[0] for each in (A, P))
        kernels.launch("squares", "orthogonal.cu", geometry, (V, sums, i64(size), apart))
        arguments = V, sums, X, i64(size), apart, np.float64(LEAST_NORM)
        kernels.launch("normalize", "orthogonal.cu", geometry, arguments)
        for i in range(NEWTON_SCHULZ_STEPS):
            last = i == NEWTON_SCHULZ_STEPS - 1
            multiply(X, X, A, transpose_a=tall, transpose_b=not tall)
            multiply(A, A, P)
            numbers = map(kernels.dtype.type, (scale if last else 1.0, *NEWTON_SCHULZ))
            kernels.launch("quintic", "orthogonal.cu", of_squares, (A, P, i64(r), *numbers))
            multiply(*((X, A) if tall else (A, X)), matrices if last else other)
            X, other = other, X

    def average(
        self, theta: Array, mean: Array, decay: float, control: Array, rounded: Array | None = None
    ) -> None:
        kernels, n, last = self._kernels, theta.shape[-1], control.shape[-1] - 1
        numbers = i64(n), i64(last), np.float64(decay)
        arguments = theta, upper(theta, rounded), mean, control, *numbers
        geometry, remainder = kernels.of_theta(theta), rounded is not None
        kernels.launch("average", "average.cu", geometry, arguments, remainder=remainder)

    def round(self, theta: Array, rounded: Array, remainder: Array | None = None) -> None:
        if rounded.dtype == theta.dtype:
            return
        name, n = "round_theta" if remainder is None else "split_theta", len(theta)
        arrays = (theta, rounded) if remainder is None else (theta, rounded, remainder)
        self._kernels.launch(name, "round.cu", self._kernels.flat(n), (*arrays, i64(n)))

    def restore(self, theta: Array, rounded: Array, remainder: Array) -> None:
        n, arguments = len(theta), (theta, rounded, remainder, i64(len(theta)))
        self._kernels.launch("restore_theta", "round.cu", self._kernels.flat(n), arguments)


def growth_interval(scales_loss: bool) -> np.int64:
    """The argument `interval` of `clip`: 0 for a loss scale that stays."""
    return i64(GROWTH_INTERVAL if scales_loss else 0)


def _matrices(buffer: Array, dtype: np.dtype[Any]) -> list[Array]:
    """As many matrices of this type as the memory of a buffer holds, each of the buffer's shape."""
    flat, n = buffer.reshape(-1).view(dtype), buffer.size
    return [flat[i : i + n].reshape(buffer.shape) for i in range(0, flat.size, n)]


def upper(theta: Array, rounded: Array | None) -> Array:
    """`rounded` as 16-bit integers if θ is split; else an array of θ's type, which is not read."""
    return theta if rounded is None else rounded.view(theta.dtype)
