"""The operations over all of θ in NumPy: in blocks, on threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from gpumlp.backends.numpy.members import runs
from gpumlp.functions import Optimizer, Regularizer
from gpumlp.functions.optimizers import LEAST_NORM, NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS
from gpumlp.io.threads import Threads, blocks
from gpumlp.io.types import HostArray as Array


class NumpyTheta:
    """What `NumpyBackend` inherits."""

    _threads: Threads

    def penalty(
        self, regularizer: Regularizer, theta: Array, split: int, J: Array, dtheta: Array | None
    ) -> None:
        if not regularizer.active:
            return
        arguments = regularizer.arguments()

        def block(part: slice, strength: float) -> float:
            if dtheta is not None:
                dtheta[part] += strength * regularizer.gradient(theta[part], **arguments)
            omega = regularizer.omega(theta[part], **arguments)
            return strength * float(omega.sum(dtype=np.float64))

        J += sum(_over_theta(self._threads, block, theta, split, regularizer))

    def add(self, part: Array, total: Array, overwrite: bool) -> None:
        np.copyto(total, part) if overwrite else np.add(total, part, out=total)

    def clip(
        self, regularizer: Regularizer, theta: Array, dtheta: Array, split: int,
        max_norm: float, scaling: Array, control: Array, rounded: Array | None = None,
    ) -> None:  # fmt: skip
        for one in [...] if theta.ndim == 1 else np.flatnonzero(control[:, 0]):
            squares = square_sum(self._threads, regularizer, theta[one], dtheta[one], split)
            control[one][0] = clip_factor(float(np.sqrt(squares)), max_norm)

    def update(
        self, optimizer: Optimizer, regularizer: Regularizer, theta: Array, rounded: Array,
        dtheta: Array, slots: Array, split: int, scaling: Array, control: Array,
        part: tuple[int, int] | None = None, groups: Array | None = None, origin: int = 0,
    ) -> None:  # fmt: skip
        for which, numbers in runs(control):
            self._move(
                optimizer, regularizer, theta[which], dtheta[which], slots[which], split, numbers,
                part, groups,
            )  # fmt: skip

    def weight_update(
        self, optimizer: Optimizer, regularizer: Regularizer, gz: Array, h_below: Array,
        theta: Array, rounded: Array, slots: Array, control: Array, part: tuple[int, int],
        factors: tuple[float, float],
    ) -> None:  # fmt: skip
        dW = np.dot(gz.T, h_below).reshape(-1)
        W, n = slice(part[0], part[0] + dW.size), dW.size
        groups = np.array([(n, *factors)])
        self._move(optimizer, regularizer, theta[W], dW, slots[:, W], n, control, None, groups)

    def _move(
        self, optimizer: Optimizer, regularizer: Regularizer, theta: Array, dtheta: Array,
        slots: Array, split: int, control: Array, part: tuple[int, int] | None,
        groups: Array | None,
    ) -> None:  # fmt: skip
        """A step of one network, or of all K if these have the same numbers in `control`."""
        scale, lr, *rest, _ = (float(number) for number in control)
        scalars = dict(zip(optimizer.scalar_names, rest, strict=True))

        def move(at: slice, strength: float, lr: float, params: Mapping[str, float]) -> None:
            theta_at = theta[..., at]
            g = _gradient(regularizer, theta_at, dtheta[..., at], strength)
            if scale != 1:
                g *= scale
            named = {name: slots[..., i, at] for i, name in enumerate(optimizer.slots)}
            optimizer.rule(theta_at, g, lr, **named, **scalars, **params)

        def block(at: slice, strength: float) -> None:
            if groups is None:
                move(at, strength, lr, optimizer.params)
                return
            for own, rate, decay in _by_group(at, groups):
                move(own, strength, rate * lr, _decayed(optimizer.params, decay))

        _over_theta(self._threads, block, theta, split, regularizer, part)

    def orthogonalize(self, V: Array, scale: float, X: Array, A: Array, P: Array) -> None:
        for v, *buffers in zip(V, X, A, P, strict=True):
            _orthogonalize(v[: X[0].size].reshape(X[0].shape), scale, *buffers)

    def average(
        self, theta: Array, mean: Array, decay: float, control: Array, rounded: Array | None = None
    ) -> None:
        for which, numbers in runs(control):
            if numbers[0] != 0:
                t = float(numbers[-1])
                _average(self._threads, theta[which], mean[which], min(decay, (t - 1) / (t + 8)))

    def round(self, theta: Array, rounded: Array, remainder: Array | None = None) -> None:
        if remainder is None:
            return
        bits, upper = theta.view(np.uint32), rounded.view(np.uint16)
        nan = np.isnan(theta)
        # rounding would carry some NaN to 0 or infinity: NaN stays a NaN, without its lower bits
        upper[...] = np.where(nan, bits >> 16 | 0x40, (bits + np.uint32(0x8000)) >> 16)
        remainder[...] = np.where(nan, 0, bits).astype(np.uint16).view(np.int16)

    def restore(self, theta: Array, rounded: Array, remainder: Array) -> None:
        upper = rounded.view(np.uint16).astype(np.uint32) << 16
        np.add(upper, remainder.astype(np.uint32), out=theta.view(np.uint32))


def _over_theta(
    threads: Threads, block: Callable[[slice, float], Any], theta: Array, split: int,
    regularizer: Regularizer, part: tuple[int, int] | None = None,
) -> list[Any]:  # fmt: skip
    """The results of block(entries, strength) for blocks of θ, first of weights, then of biases.

    strength: the factor of λΩ for weights or for biases.
    part: (first, end), to visit only these entries of θ.  theta: (p,), or (K, p) of K networks.
    """
    begin, end = part or (0, theta.shape[-1])
    regions = (begin, min(split, end)), (max(split, begin), end)
    items = [
        (entries, strength)
        for (low, high), strength in zip(regions, regularizer.strengths(), strict=True)
        for entries in blocks(low, high, theta.itemsize * (len(theta) if theta.ndim == 2 else 1))
    ]
    return threads.map(lambda item: block(*item), items)


def square_sum(
    threads: Threads, regularizer: Regularizer, theta: Array, dtheta: Array, split: int
) -> float:
    """‖dθ + λ∇Ω(θ)‖₂², summed in float64."""

    def block(part: slice, strength: float) -> float:
        g = _gradient(regularizer, theta[part], dtheta[part], strength).astype(np.float64)
        return float(np.square(g, out=g).sum())  # a dot product's bits depend on BLAS's threads

    return float(sum(_over_theta(threads, block, theta, split, regularizer)))


def clip_factor(norm: float, max_norm: float) -> float:
    """The factor of the gradient: see `Backend.clip`.

    It is NaN for a norm of NaN or inf, so that the step cannot look like a healthy one.
    """
    return 1.0 if norm <= max_norm else max_norm / norm if norm < np.inf else np.nan


def _orthogonalize(V: Array, scale: float, X: Array, A: Array, P: Array) -> None:
    (a, b, c), r, tall = NEWTON_SCHULZ, len(A), len(V) > len(A)
    norm = float(np.sqrt(np.vdot(V, V)))
    # a norm that is not finite gives NaN, so that the step cannot look like a healthy one
    inverse = 1 / max(norm, LEAST_NORM) if norm < np.inf else np.nan
    np.multiply(V, V.dtype.type(inverse), out=X)
    for i in range(NEWTON_SCHULZ_STEPS):
        np.dot(X.T, X, out=A) if tall else np.dot(X, X.T, out=A)
        np.dot(A, A, out=P)
        P *= c
        A *= b
        A += P
        A.reshape(-1)[:: r + 1] += a
        if i == NEWTON_SCHULZ_STEPS - 1:
            A *= scale
        np.dot(X, A, out=V) if tall else np.dot(A, X, out=V)
        X, V = V, X


def _average(threads: Threads, theta: Array, mean: Array, d: float) -> None:
    def block(at: slice) -> None:  # starts from the nearer end, so that d = 0 gives θ itself
        difference = theta[at] - mean[at]
        if d > 0.5:
            difference *= 1 - d
            mean[at] += difference
        else:
            difference *= d
            np.subtract(theta[at], difference, out=mean[at])

    threads.over_rows(block, theta)


def _gradient(regularizer: Regularizer, theta: Array, dtheta: Array, strength: float) -> Array:
    """dθ + strength · λ∇Ω(θ): dθ itself or a new block, so only `update` may overwrite it."""
    if not regularizer.active or strength == 0:
        return dtheta
    g: Array = regularizer.gradient(theta, **regularizer.arguments())
    g *= strength
    g += dtheta
    return g


def _by_group(at: slice, groups: Array) -> Iterator[tuple[slice, float, float]]:
    """The parts of a block in each region of `groups`, with the two factors of the region."""
    start = at.start
    for end, rate, decay in groups.tolist():
        stop = min(int(end), at.stop)
        if start < stop:
            yield slice(start, stop), rate, decay
            start = stop


def _decayed(params: Mapping[str, float], decay: float) -> Mapping[str, float]:
    """A rule's parameters for a group that multiplies the weight decay."""
    own = {"weight_decay": decay * params["weight_decay"]} if "weight_decay" in params else {}
    return {**params, **own}
