"""The NumPy backend's operations of the update: how θ moves, and what looks at all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from gpumlp.backends.numpy.blocks import over_flat, over_theta
from gpumlp.functions import Optimizer, Regularizer
from gpumlp.functions.optimizers import LEAST_NORM, NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS
from gpumlp.io.threads import Threads
from gpumlp.io.types import HostArray as Array


class NumpyUpdate:
    """The operations of `gpumlp.backends.operations` from `add` to `round`, on NumPy."""

    _threads: Threads

    def add(self, part: Array, total: Array, anew: bool) -> None:
        np.copyto(total, part) if anew else np.add(total, part, out=total)

    def clip(
        self, regularizer: Regularizer, theta: Array, dtheta: Array, split: int,
        max_norm: float, scaling: Array, control: Array,
    ) -> None:  # fmt: skip
        def block(part: slice, strength: float) -> float:
            g = _gradient(regularizer, theta[part], dtheta[part], strength).astype(np.float64)
            return float(np.dot(g, g))

        norm = np.sqrt(np.float64(sum(over_theta(self._threads, block, theta, split, regularizer))))
        # control[0] is NaN for a norm of NaN or inf: the step must not look like a healthy one
        control[0] = 1.0 if norm <= max_norm else max_norm / norm if norm < np.inf else np.nan

    def update(
        self, optimizer: Optimizer, regularizer: Regularizer, theta: Array, rounded: Array,
        dtheta: Array, slots: Array, split: int, scaling: Array, control: Array,
        part: tuple[int, int] | None = None, groups: Array | None = None,
    ) -> None:  # fmt: skip
        scale, lr, *rest, _ = (float(number) for number in control)
        scalars = dict(zip(optimizer.scalar_names, rest, strict=True))

        def move(at: slice, strength: float, lr: float, params: Mapping[str, float]) -> None:
            g = _gradient(regularizer, theta[at], dtheta[at], strength)
            if scale != 1:
                g *= scale
            named = {name: slots[i, at] for i, name in enumerate(optimizer.slots)}
            optimizer.rule(theta[at], g, lr, **named, **scalars, **params)

        def block(at: slice, strength: float) -> None:
            if groups is None:
                move(at, strength, lr, optimizer.params)
                return
            for own, rate, decay in _by_group(at, groups):
                move(own, strength, rate * lr, _decayed(optimizer.params, decay))

        over_theta(self._threads, block, theta, split, regularizer, part)

    def orthogonalize(self, V: Array, scale: float, X: Array, A: Array, P: Array) -> None:
        (a, b, c), r, tall = NEWTON_SCHULZ, len(A), len(V) > len(A)
        norm = float(np.sqrt(np.vdot(V, V)))
        # as with `clip`, a norm that is not finite must not look like a healthy step's
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

    def average(self, theta: Array, mean: Array, decay: float, control: Array) -> None:
        scale, t = float(control[0]), float(control[-1])
        d = min(decay, (t - 1) / (t + 8))

        def block(at: slice) -> None:  # from the nearer end, so that d = 0 gives θ itself
            way = theta[at] - mean[at]
            if d > 0.5:
                way *= 1 - d
                mean[at] += way
            else:
                way *= d
                np.subtract(theta[at], way, out=mean[at])

        if scale != 0:
            over_flat(self._threads, block, theta)

    def round(self, theta: Array, rounded: Array) -> None:
        pass


def _gradient(regularizer: Regularizer, theta: Array, dtheta: Array, strength: float) -> Array:
    """dθ + strength · λ∇Ω(θ): dθ itself or a new block, so that only `update` may overwrite it."""
    if not regularizer.active or strength == 0:
        return dtheta
    g: Array = regularizer.gradient(theta, **regularizer.arguments())
    g *= strength
    g += dtheta
    return g


def _by_group(at: slice, groups: Array) -> Iterator[tuple[slice, float, float]]:
    """A block's parts in the regions of `groups`, each with the two multipliers there."""
    start = at.start
    for end, rate, decay in groups.tolist():
        stop = min(int(end), at.stop)
        if start < stop:
            yield slice(start, stop), rate, decay
            start = stop


def _decayed(params: Mapping[str, float], decay: float) -> Mapping[str, float]:
    """A rule's parameters in a group that multiplies the weight decay."""
    own = {"weight_decay": decay * params["weight_decay"]} if "weight_decay" in params else {}
    return {**params, **own}
