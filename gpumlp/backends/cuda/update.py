"""The CUDA backend's launches over all of θ: penalty, clipping, update, average, rounding.

`gpumlp.backends.operations` describes the arrays and numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpumlp.backends.cuda import launch
from gpumlp.backends.cuda.kernels import Kernels, i32, i64
from gpumlp.functions import Optimizer, Regularizer
from gpumlp.functions.optimizers import LEAST_NORM, NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS
from gpumlp.io.types import Array

GROWTH_INTERVAL = 2000  # steps without an overflow after which the loss scale is doubled


def penalty(
    kernels: Kernels, regularizer: Regularizer, theta: Array, split: int, J: Array,
    dtheta: Array | None,
) -> None:  # fmt: skip
    """J ← J + λΩ(θ) and, if dtheta is given, dθ ← dθ + λ∇Ω(θ)."""
    grid, block = kernels.flat(len(theta))
    add, gradient = (0, theta) if dtheta is None else (1, dtheta)
    regions = kernels.regions(regularizer, theta, split)
    kernel = kernels.kernel("penalty", "penalty.cu", regularizer, dtype=gradient.dtype.name)
    kernel(grid, block, (theta, gradient, kernels.partial, *regions, i32(add)))
    kernels.total(grid[0], J)


def clip(
    kernels: Kernels, regularizer: Regularizer, theta: Array, dtheta: Array, split: int,
    max_norm: float, scaling: Array, control: Array, scales_loss: bool,
) -> None:  # fmt: skip
    """control[0] ← min(1, max_norm / ‖dθ/S + λ∇Ω(θ)‖₂)."""
    grid, block = kernels.flat(len(theta))
    regions = kernels.regions(regularizer, theta, split)
    gradient = "" if dtheta.dtype == kernels.storage else dtheta.dtype.name
    kernel = kernels.kernel("squared_norm", "penalty.cu", regularizer, gradient=gradient)
    kernel(grid, block, (theta, dtheta, scaling, kernels.partial, *regions))
    interval = i64(GROWTH_INTERVAL if scales_loss else 0)
    kernels.kernel("clip", "penalty.cu", regularizer)(
        *launch.ONE_BLOCK,
        (kernels.partial, scaling, control, i64(grid[0]), np.float64(max_norm), interval),
    )


def optimizer_step(
    kernels: Kernels, optimizer: Optimizer, regularizer: Regularizer, theta: Array, rounded: Array,
    dtheta: Array, slots: Array, split: int, scaling: Array, control: Array,
    part: tuple[int, int] | None, groups: Array | None,
) -> None:  # fmt: skip
    """θ, rounded and slots ← one step of the optimizer's rule."""
    begin, end = part or (0, len(theta))
    state = slots if optimizer.slots else theta  # a rule without slots does not touch it
    kernel = kernels.kernel(
        "update", "update.cu", optimizer, regularizer,
        slots="" if state.dtype == kernels.dtype else state.dtype.name,
        gradient="" if dtheta.dtype == kernels.storage else dtheta.dtype.name,
        grouped=groups is not None,
    )  # fmt: skip
    kernel(
        *kernels.flat(end - begin),
        (theta, rounded, dtheta, state, control, scaling,
         control if groups is None else groups,  # without groups, the kernel does not read it
         *kernels.regions(regularizer, theta, split), i64(begin), i64(end)),
    )  # fmt: skip


def orthogonalize(
    kernels: Kernels, multiply: Callable[..., object], V: Array, scale: float, X: Array, A: Array,
    P: Array,
) -> None:  # fmt: skip
    """V ← scale · O, where O is close to the orthogonal matrix nearest to V.

    multiply: `Device.gemm` with its precision.
    """
    tall = len(V) > len(A)
    _normalize(kernels, V, X)
    for i in range(NEWTON_SCHULZ_STEPS):
        multiply(X, X, A, transpose_a=tall, transpose_b=not tall)
        multiply(A, A, P)
        _quintic(kernels, A, P, scale if i == NEWTON_SCHULZ_STEPS - 1 else 1.0)
        multiply(*((X, A) if tall else (A, X)), V)
        X, V = V, X


def average(kernels: Kernels, theta: Array, mean: Array, decay: float, control: Array) -> None:
    """mean ← d mean + (1 − d) θ, where d = min(decay, (t − 1) / (t + 8))."""
    n, numbers = len(theta), i64(len(control) - 1)
    kernel = kernels.kernel("average", "average.cu")
    kernel(*kernels.flat(n), (theta, mean, control, i64(n), numbers, np.float64(decay)))


def _normalize(kernels: Kernels, V: Array, X: Array) -> None:
    """X ← V / max(‖V‖, LEAST_NORM)."""
    grid, block = kernels.flat(V.size, pack=1)
    n, partial = i64(V.size), kernels.partial
    kernels.kernel("squares", "orthogonal.cu")(grid, block, (V, partial, n))
    kernels.kernel("normalize", "orthogonal.cu")(
        grid, block, (V, partial, X, n, i64(grid[0]), np.float64(LEAST_NORM))
    )


def _quintic(kernels: Kernels, A: Array, P: Array, scale: float) -> None:
    """A ← scale (a I + b A + c P)."""
    numbers = (kernels.dtype.type(x) for x in (scale, *NEWTON_SCHULZ))
    kernel = kernels.kernel("quintic", "orthogonal.cu")
    kernel(*kernels.flat(A.size, pack=1), (A, P, i64(len(A)), *numbers))
