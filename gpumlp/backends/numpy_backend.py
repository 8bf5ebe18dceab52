"""The CPU room: BLAS for the products, NumPy expressions over cache-sized blocks for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends.base import Shared
from gpumlp.backends.blas import numpy_blas
from gpumlp.backends.host_feed import HostFeed
from gpumlp.backends.threads import Threads, blas_threads
from gpumlp.functions import Activation, Loss, Optimizer, Regularizer
from gpumlp.functions.activations import identity
from gpumlp.functions.optimizers import LEAST_NORM, NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS

Array = np.ndarray[Any, Any]

BLOCK_BYTES = 512 << 10  # of one operand: half of a core's L2 cache; see `Threads` for why not less
ALIGNMENT = 256  # bytes


class NumpyBackend(Shared):
    """The doors of `gpumlp.backends.base`, on NumPy."""

    name = "numpy"

    def __init__(self, precision: str = "float32") -> None:
        if precision not in ("float64", "float32"):
            raise ValueError(
                f'backend "numpy" has precision "float64" or "float32", got {precision!r}; '
                "the others need a GPU"
            )
        self.precision = precision
        self.dtype = self.storage = np.dtype(precision)
        self.scales_loss = self.rounds_slots = False
        self.folds = numpy_blas() is not None
        self._threads = Threads(blas_threads())

    def describe(self) -> str:
        return f"NumPy {np.__version__} on the CPU, {self._threads.count} threads, {self.precision}"

    def owns(self, a: object) -> bool:
        return isinstance(a, np.ndarray)

    def takes(self, a: object, dtype: np.dtype[Any]) -> bool:
        # an array at odd addresses NumPy would copy as a whole for every minibatch
        return (
            isinstance(a, np.ndarray) and a.dtype == dtype
            and a.flags.c_contiguous and a.flags.aligned
        )  # fmt: skip

    def asarray(
        self, a: npt.ArrayLike, dtype: npt.DTypeLike | None = None, out: Array | None = None
    ) -> Array:
        if out is None:
            a = np.asarray(a)
            out = self.empty(a.shape, dtype)
        np.copyto(out, a, casting="unsafe")
        return out

    def adopt(self, a: Any) -> Array:
        return np.asarray(a)

    def to_host(self, a: Array) -> Array:
        return a.copy()

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike | None = None) -> Array:
        dtype = self.dtype if dtype is None else np.dtype(dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        raw = np.empty(size + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        return raw[start : start + size].view(dtype).reshape(shape)

    def full(
        self, shape: tuple[int, ...], value: float, dtype: npt.DTypeLike | None = None
    ) -> Array:
        a = self.empty(shape, dtype)
        a.fill(value)
        return a

    def free_memory(self) -> int | None:
        return None

    # ---- Algorithm 6.3 ------------------------------------------------------------------------

    def pre_activation(
        self, f: Activation, m: int, n: int
    ) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        return ((m, n), self.storage) if "z" in f.reads else None

    def affine_activation(
        self, h_below: Array, W: Array, b: Array, f: Activation, z: Array, h: Array
    ) -> None:
        np.dot(h_below, W.T, out=z)

        def block(rows: slice) -> None:
            np.add(z[rows], b, out=z[rows])
            if f is not identity or h is not z:
                np.copyto(h[rows], f.f(z[rows], **f.params))

        self._over_rows(block, z)

    def activation(self, f: Activation, z: Array, h: Array) -> None:
        self._over_rows(lambda rows: np.copyto(h[rows], f.f(z[rows], **f.params)), z)

    def loss(self, loss: Loss, y_hat: Array, y: Array, weights: Array, J: Array) -> None:
        def block(rows: slice) -> float:
            t = _targets(y[rows], y_hat)
            return float(np.dot(weights[rows], loss.examples(y_hat[rows], t)))

        J += sum(self._over_rows(block, y_hat))

    # ---- Algorithm 6.4 ------------------------------------------------------------------------

    def output_gradient(
        self, loss: Loss, f: Activation, z: Array, h: Array, y: Array, weights: Array,
        scaling: Array, gh: Array, gz: Array, db: Array, J: Array,
    ) -> None:  # fmt: skip
        scale = h.dtype.type(loss.output_scale(h.shape[1]))

        def block(rows: slice) -> tuple[float, Array]:
            t = _targets(y[rows], h)
            value = float(np.dot(weights[rows], loss.examples(h[rows], t)))
            gradient = loss.gradient(h[rows], t, **loss.params)
            np.multiply(gradient, (weights[rows] * scale)[:, None], out=gh[rows])
            return value, _through_activation(f, z, h, gh, gz, rows)

        values, sums = zip(*self._over_rows(block, h), strict=True)
        J += sum(values)
        np.sum(sums, axis=0, out=db)

    def weight_gradient(self, gz: Array, h_below: Array, dW: Array, factors: Array | None) -> None:
        if factors is None:
            np.dot(gz.T, h_below, out=dW)
        else:
            blas, (alpha, beta) = numpy_blas(), factors.tolist()
            if blas is not None:
                blas.gemm(gz.T, h_below, dW, alpha, beta)
                return
            dW *= beta
            dW += alpha * np.dot(gz.T, h_below)

    def hidden_gradient(
        self, gz_above: Array, W_above: Array, f: Activation, z: Array, h: Array,
        gh: Array, gz: Array, db: Array,
    ) -> None:  # fmt: skip
        np.dot(gz_above, W_above, out=gh)
        self.activation_gradient(f, z, h, gh, gz, db)

    def activation_gradient(
        self, f: Activation, z: Array, h: Array, gh: Array, gz: Array, db: Array
    ) -> None:
        def block(rows: slice) -> Array:
            return _through_activation(f, z, h, gh, gz, rows)

        np.sum(self._over_rows(block, gh), axis=0, out=db)

    def input_gradient(self, gz: Array, W: Array, gx: Array) -> None:
        np.dot(gz, W, out=gx)

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

        J += sum(self._over_theta(block, theta, split, regularizer))

    # ---- the update ---------------------------------------------------------------------------

    def add(self, part: Array, total: Array, anew: bool) -> None:
        np.copyto(total, part) if anew else np.add(total, part, out=total)

    def clip(
        self, regularizer: Regularizer, theta: Array, dtheta: Array, split: int,
        max_norm: float, scaling: Array, control: Array,
    ) -> None:  # fmt: skip
        def block(part: slice, strength: float) -> float:
            g = _gradient(regularizer, theta[part], dtheta[part], strength).astype(np.float64)
            return float(np.dot(g, g))

        norm = np.sqrt(np.float64(sum(self._over_theta(block, theta, split, regularizer))))
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

        self._over_theta(block, theta, split, regularizer, part)

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
            self._threads.map(block, self._parts(0, len(theta), BLOCK_BYTES // theta.itemsize))

    def round(self, theta: Array, rounded: Array) -> None:
        pass

    # ---- minibatches --------------------------------------------------------------------------

    def gather(self, source: Array, index: Array, out: Array) -> None:
        np.take(source, index, axis=0, out=out, mode="clip")  # "raise" would buffer the output

    def feed(self, source: Array, rows: int, dtype: npt.DTypeLike) -> HostFeed:
        return HostFeed(source, self._threads)

    def feed_memory(self, source: Array, rows: int, dtype: np.dtype[Any]) -> int:
        return 0

    def mean_weights(self, weights: Array, index: Array, out: Array) -> None:
        np.take(weights, index, out=out, mode="clip")
        total = out.sum(dtype=np.float64)
        np.divide(out, total, out=out) if total > 0 else out.fill(0)

    # ---- a step as a whole --------------------------------------------------------------------

    def begin(
        self, position: Array, order: Array, controls: Array, size: int, index: Array,
        control: Array, factors: Array, J: Array,
    ) -> None:  # fmt: skip
        t = int(position[0])
        np.copyto(index, order[t * size : t * size + len(index)])
        np.copyto(control, controls[t, :-2])
        np.copyto(factors, controls[t, -2:], casting="same_kind")
        J.fill(0)

    def end(self, position: Array, J: Array, costs: Array) -> None:
        costs[position] = J
        np.remainder(position + 1, len(costs), out=position)

    def behind(self, work: Callable[[], None]) -> None:
        work()

    def record(
        self, work: Callable[[], None], name: str, at_once: Callable[[], None] | None = None
    ) -> Callable[[], None] | None:
        return None

    def synchronize(self) -> None:
        pass

    # ---- memory -------------------------------------------------------------------------------

    def own_memory(self, widest: int) -> int:
        return 0

    # ---- blocks -------------------------------------------------------------------------------

    def _over_rows(self, block: Callable[[slice], Any], a: Array) -> list[Any]:
        """block(rows) for blocks of a's rows, on all threads; the results in the rows' order."""
        rows = max(1, BLOCK_BYTES // max(1, a.shape[1] * a.itemsize))
        return self._threads.map(block, self._parts(0, len(a), rows))

    def _over_theta(
        self,
        block: Callable[[slice, float], Any],
        theta: Array,
        split: int,
        regularizer: Regularizer,
        part: tuple[int, int] | None = None,
    ) -> list[Any]:
        """block(entries, strength of λΩ there) for blocks of θ, first weights, then biases."""
        size, (begin, end) = BLOCK_BYTES // theta.itemsize, part or (0, len(theta))
        both = (begin, min(split, end)), (max(split, begin), end)
        regions = zip(both, regularizer.strengths(), strict=True)
        work = [(p, s) for (low, high), s in regions for p in self._parts(low, high, size)]
        return self._threads.map(lambda item: block(*item), work)

    @staticmethod
    def _parts(low: int, high: int, size: int) -> list[slice]:
        """[low, high) cut into parts of at most `size`.

        The cuts depend on the sizes alone, so that a run repeats bit for bit on any thread count.
        """
        return [slice(i, min(i + size, high)) for i in range(low, high, size)]


def _targets(y: Array, y_hat: Array) -> Array:
    """y as (rows, n) in ŷ's dtype: labels become rows of zeros and a one."""
    if y.ndim == 2:
        return y
    t = np.zeros((len(y), y_hat.shape[1]), y_hat.dtype)
    t[np.arange(len(y)), y] = 1
    return t


def _through_activation(
    f: Activation, z: Array, h: Array, gh: Array, gz: Array, rows: slice
) -> Array:
    """gz ← gh ⊙ f'(z), or Jᵀ gh, for some rows; returns their column sums."""
    if f.df is None:
        assert f.vjp is not None  # Activation has one of the two
        np.copyto(gz[rows], f.vjp(z[rows], h[rows], gh[rows], **f.params))
    elif f is not identity:
        np.multiply(gh[rows], f.df(z[rows], h[rows], **f.params), out=gz[rows])
    elif gz is not gh:
        np.copyto(gz[rows], gh[rows])
    sums: Array = gz[rows].sum(axis=0)
    return sums


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
