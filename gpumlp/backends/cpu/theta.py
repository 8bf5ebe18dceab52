"""What passes over the flat θ, as calls of the library."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpumlp.backends.cpu import source
from gpumlp.backends.cpu.calls import Calls
from gpumlp.backends.cpu.works import C_TYPES, Entrywise, Work, partial_sums
from gpumlp.functions import Optimizer, Regularizer
from gpumlp.functions.optimizers import LEAST_NORM, NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS
from gpumlp.io.types import HostArray as Array


class ThetaLowering(Calls):
    """What `Lowering` inherits."""

    def penalty(
        self, regularizer: Regularizer, theta: Array, split: int, J: Array, dtheta: Array | None
    ) -> Iterator[Work]:
        if regularizer.active:
            biases, sums = regularizer.strengths()[1], partial_sums(theta.size, 1)
            yield self._of(
                regularizer, "penalty", theta, theta.size, split, biases, J, dtheta,
                self._is_16_bit(dtheta), sums,
            )  # fmt: skip

    def add(self, part: Array, total: Array, overwrite: bool) -> Iterator[Work]:
        yield self._plain(
            "add", part, total, part.size, int(overwrite), real=C_TYPES[part.dtype.name]
        )

    def clip(
        self, regularizer: Regularizer, theta: Array, dtheta: Array, split: int,
        max_norm: float, scaling: Array, control: Array, rounded: Array | None = None,
    ) -> Iterator[Work]:  # fmt: skip
        biases, sums = regularizer.strengths()[1], partial_sums(theta.size, 1)
        yield self._of(
            regularizer, "clip", theta, dtheta, self._is_16_bit(dtheta), theta.size, split, biases,
            float(max_norm), control, sums,
        )  # fmt: skip

    def update(
        self, optimizer: Optimizer, regularizer: Regularizer, theta: Array, rounded: Array,
        dtheta: Array, slots: Array, split: int, scaling: Array, control: Array,
        part: tuple[int, int] | None = None, groups: Array | None = None, origin: int = 0,
    ) -> Iterator[Work]:  # fmt: skip
        name = f"{source.struct_name(regularizer)}_update"
        biases = regularizer.strengths()[1]
        begin, end = part or (0, theta.size)
        arguments = (
            theta, rounded if self._is_16_bit(rounded) else None, dtheta, self._is_16_bit(dtheta),
            slots, theta.size, split, biases, control, groups, begin, end,
        )  # fmt: skip
        of_part = self._of(optimizer, f"{name}_part", omega=regularizer).function
        how = Entrywise(of_part, dtheta, begin, end)
        yield self._of(optimizer, name, *arguments, omega=regularizer)._replace(how=how)

    def orthogonalize(self, V: Array, scale: float, X: Array, A: Array, P: Array) -> Iterator[Work]:
        for v, *buffers in zip(V, X, A, P, strict=True):
            yield from self._orthogonalize(v[: X[0].size].reshape(X[0].shape), scale, *buffers)

    def _orthogonalize(
        self, V: Array, scale: float, X: Array, A: Array, P: Array
    ) -> Iterator[Work]:
        r, tall = len(A), len(V) > len(A)
        factors = np.array(NEWTON_SCHULZ)
        yield self._plain("normalize", V, X, V.size, LEAST_NORM, partial_sums(V.size, 1))
        for i in range(NEWTON_SCHULZ_STEPS):
            yield self._product(*((X.T, X) if tall else (X, X.T)), A)
            yield self._product(A, A, P)
            last = float(scale) if i == NEWTON_SCHULZ_STEPS - 1 else 1.0
            yield self._plain("quintic", A, P, r, last, factors)
            yield self._product(*((X, A) if tall else (A, X)), V)
            X, V = V, X

    def average(
        self, theta: Array, mean: Array, decay: float, control: Array, rounded: Array | None = None
    ) -> Iterator[Work]:
        yield self._plain(
            "average", theta, mean, theta.size, float(decay), control, control.size - 1
        )

    def round(self, theta: Array, rounded: Array, remainder: Array | None = None) -> Iterator[Work]:
        if self._is_16_bit(rounded):
            yield self._plain("round", theta, rounded, theta.size, real="bfloat16")
