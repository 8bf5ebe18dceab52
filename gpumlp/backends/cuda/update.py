"""The CUDA backend's launches over all of θ: penalty, clipping, update, average.

`gpumlp.backends.operations` describes each of them, with its arrays and numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpumlp.backends.cuda import tiles
from gpumlp.backends.cuda.kernels import Kernels, i32, i64
from gpumlp.backends.cuda.protocol import Device
from gpumlp.functions import Optimizer, Regularizer
from gpumlp.functions.optimizers import LEAST_NORM, NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS
from gpumlp.io.types import Array

GROWTH_INTERVAL = 2000  # steps without an overflow after which the loss scale is doubled


def penalty(
    kernels: Kernels, regularizer: Regularizer, theta: Array, split: int, J: Array,
    dtheta: Array | None,
) -> None:  # fmt: skip
    add, gradient = (0, theta) if dtheta is None else (1, dtheta)
    regions = kernels.regions(regularizer, theta, split)
    kernels.launch(
        "penalty", "penalty.cu", kernels.flat(len(theta)),
        (theta, gradient, kernels.partial, kernels.arrived, J, *regions, i32(add)),
        regularizer, dtype=gradient.dtype.name,
    )  # fmt: skip


def clip(
    kernels: Kernels, regularizer: Regularizer, theta: Array, dtheta: Array, split: int,
    max_norm: float, scaling: Array, control: Array, rounded: Array | None, scales_loss: bool,
) -> None:  # fmt: skip
    kernels.launch(
        "clip", "penalty.cu", kernels.of_theta(theta),
        (theta, upper(theta, rounded), dtheta, scaling, control, kernels.partial, kernels.arrived,
         *kernels.regions(regularizer, theta, split), np.float64(max_norm),
         growth_interval(scales_loss), i64(control.shape[-1])),
        regularizer, gradient="" if dtheta.dtype == kernels.storage else dtheta.dtype.name,
        remainder=rounded is not None,
    )  # fmt: skip


def growth_interval(scales_loss: bool) -> np.int64:
    """The argument `interval` of `clip`: 0 for a loss scale that stays."""
    return i64(GROWTH_INTERVAL if scales_loss else 0)


def optimizer_step(
    kernels: Kernels, optimizer: Optimizer, regularizer: Regularizer, theta: Array, rounded: Array,
    dtheta: Array, slots: Array, split: int, scaling: Array, control: Array,
    part: tuple[int, int] | None, groups: Array | None, origin: int,
) -> None:  # fmt: skip
    begin, end = part or (0, theta.shape[-1])
    state = slots if optimizer.slots else kernels.partial  # a rule without slots does not touch it
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


def weight_update(
    device: Device, optimizer: Optimizer, regularizer: Regularizer, gz: Array, h_below: Array,
    theta: Array, rounded: Array, slots: Array, control: Array, part: tuple[int, int],
    factors: tuple[float, float],
) -> None:  # fmt: skip
    source = tiles.weight_update(optimizer)
    assert source is not None  # updates_in_product has said so
    kernel = device.tile_kernel(source)
    decay, shape = regularizer.weight_decay() or 0.0, (gz.shape[1], h_below.shape[1])
    W = slice(part[0], part[0] + math.prod(shape))
    state = (slots[:, W] if optimizer.slots else theta[W]).reshape(-1, *shape)
    numbers = source.arguments(optimizer, decay, *factors)
    blocks = math.prod(-(-n // tiles.TILE) for n in shape)
    kernel(blocks, (
        gz, h_below, theta[W].reshape(shape), rounded[W].reshape(shape), state, control,
        *map(np.float32, numbers),
    ))  # fmt: skip


def orthogonalize(
    kernels: Kernels, multiply: Callable[..., object], V: Array, scale: float, X: Array, A: Array,
    P: Array,
) -> None:  # fmt: skip
    """See `Backend.orthogonalize`.  multiply: `Device.gemm` with its precision.

    Each product is one batch of K, and each launch has a row of blocks for each of the K matrices.
    """
    (K, n_out, n_in), r, partial = X.shape, A.shape[-1], kernels.partial
    tall, size, apart = n_out > r, n_out * n_in, i64(V.shape[1])
    # as many blocks for each as a single matrix has, so that it gets the same sum
    (blocks, *_), threads = kernels.flat(size, 1)
    blocks = min(blocks, len(partial) // K)
    geometry, of_squares = ((blocks, K), threads), ((kernels.flat(r * r, 1)[0][0], K), threads)
    matrices = V[:, :size].reshape(X.shape)
    X, other = _matrices(X, kernels.storage) if kernels.storage != V.dtype else (X, matrices)
    A, P = (_matrices(each, kernels.storage)[0] for each in (A, P))
    kernels.launch("squares", "orthogonal.cu", geometry, (V, partial, i64(size), apart))
    arguments = V, partial, X, i64(size), apart, np.float64(LEAST_NORM)
    kernels.launch("normalize", "orthogonal.cu", geometry, arguments)
    for i in range(NEWTON_SCHULZ_STEPS):
        last = i == NEWTON_SCHULZ_STEPS - 1
        multiply(X, X, A, transpose_a=tall, transpose_b=not tall)
        multiply(A, A, P)
        numbers = map(kernels.dtype.type, (scale if last else 1.0, *NEWTON_SCHULZ))
        kernels.launch("quintic", "orthogonal.cu", of_squares, (A, P, i64(r), *numbers))
        multiply(*((X, A) if tall else (A, X)), matrices if last else other)
        X, other = other, X


def _matrices(buffer: Array, dtype: np.dtype[Any]) -> list[Array]:
    """As many matrices of this type as the memory of a buffer holds, each of the buffer's shape."""
    flat, n = buffer.reshape(-1).view(dtype), buffer.size
    return [flat[i : i + n].reshape(buffer.shape) for i in range(0, flat.size, n)]


def average(
    kernels: Kernels, theta: Array, mean: Array, decay: float, control: Array,
    rounded: Array | None,
) -> None:  # fmt: skip
    n, last, remainder = theta.shape[-1], control.shape[-1] - 1, rounded is not None
    arguments = theta, upper(theta, rounded), mean, control, i64(n), i64(last), np.float64(decay)
    kernels.launch("average", "average.cu", kernels.of_theta(theta), arguments, remainder=remainder)


def round_theta(kernels: Kernels, theta: Array, rounded: Array, remainder: Array | None) -> None:
    name, n = "round_theta" if remainder is None else "split_theta", len(theta)
    arrays = (theta, rounded) if remainder is None else (theta, rounded, remainder)
    kernels.launch(name, "round.cu", kernels.flat(n), (*arrays, i64(n)))


def restore(kernels: Kernels, theta: Array, rounded: Array, remainder: Array) -> None:
    n, arguments = len(theta), (theta, rounded, remainder, i64(len(theta)))
    kernels.launch("restore_theta", "round.cu", kernels.flat(n), arguments)


def upper(theta: Array, rounded: Array | None) -> Array:
    """`rounded` as 16-bit integers if θ is split; else an array of θ's type, which is not read."""
    return theta if rounded is None else rounded.view(theta.dtype)
