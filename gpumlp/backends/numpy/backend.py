"""The NumPy backend: BLAS for products, NumPy expressions on cache-sized blocks for the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends.feed import HostFeed
from gpumlp.backends.numpy import update
from gpumlp.backends.numpy.blas import numpy_blas
from gpumlp.backends.numpy.sharing import NumpySharing
from gpumlp.backends.operations import Backend
from gpumlp.functions import Activation, Loss, Optimizer, Regularizer
from gpumlp.functions.activations import identity
from gpumlp.io.threads import Threads, blas_threads
from gpumlp.io.types import HostArray as Array

ALIGNMENT = 256  # bytes


class NumpyBackend(NumpySharing, Backend):
    """The operations of `gpumlp.backends.operations` in NumPy.  A pickle holds the precision."""

    name = "numpy"
    on_host = True

    def __init__(self, precision: str = "float32") -> None:
        if precision not in ("float64", "float32"):
            raise ValueError(
                f'backend "{self.name}" has precision "float64" or "float32", got {precision!r}; '
                "the others need a GPU"
            )
        self.precision = precision
        self.dtype = self.storage = np.dtype(precision)
        self.scales_loss = self.rounds_slots = self.keeps_remainder = self.compiles = False
        self.branches = 0
        self.folds = numpy_blas() is not None
        self._threads = Threads(blas_threads())

    def __reduce__(self) -> tuple[Any, ...]:
        return NumpyBackend, (self.precision,)

    def describe(self) -> str:
        return f"NumPy {np.__version__} on the CPU, {self._threads.count} threads, {self.precision}"

    def owns(self, a: object) -> bool:
        return isinstance(a, np.ndarray)

    def accepts(self, a: object, dtype: np.dtype[Any]) -> bool:
        # NumPy would copy an unaligned array as a whole for every minibatch
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

        self._threads.over_rows(block, z)

    def activation(self, f: Activation, z: Array, h: Array) -> None:
        self._threads.over_rows(lambda rows: np.copyto(h[rows], f.f(z[rows], **f.params)), z)

    def loss(self, loss: Loss, y_hat: Array, y: Array, weights: Array, J: Array) -> None:
        def block(rows: slice) -> float:
            t = _targets(y[rows], y_hat)
            return _weighted_sum(weights[rows], loss.examples(y_hat[rows], t))

        J += sum(self._threads.over_rows(block, y_hat))

    # ---- Algorithm 6.4 ------------------------------------------------------------------------

    def output_gradient(
        self, loss: Loss, f: Activation, z: Array, h: Array, y: Array, weights: Array,
        scaling: Array, gh: Array, gz: Array, db: Array, J: Array,
    ) -> None:  # fmt: skip
        scale = h.dtype.type(loss.output_scale(h.shape[1]))

        def block(rows: slice) -> tuple[float, Array]:
            t = _targets(y[rows], h)
            w = weights[rows]
            value = _weighted_sum(w, loss.examples(h[rows], t))
            gradient = loss.gradient(h[rows], t, **loss.params)
            np.multiply(gradient, (w * scale)[:, None], out=gh[rows])
            if not w.all():
                gh[rows][w == 0] = 0  # an example of weight 0 does not count, even if it is NaN
            return value, _through_activation(f, z, h, gh, gz, rows)

        values, sums = zip(*self._threads.over_rows(block, h), strict=True)
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
        sums = self._threads.over_rows(lambda rows: _through_activation(f, z, h, gh, gz, rows), gh)
        np.sum(sums, axis=0, out=db)

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

        J += sum(update.over_theta(self._threads, block, theta, split, regularizer))

    # ---- the update ---------------------------------------------------------------------------

    def add(self, part: Array, total: Array, overwrite: bool) -> None:
        np.copyto(total, part) if overwrite else np.add(total, part, out=total)

    def clip(
        self, regularizer: Regularizer, theta: Array, dtheta: Array, split: int,
        max_norm: float, scaling: Array, control: Array, rounded: Array | None = None,
    ) -> None:  # fmt: skip
        squares = update.square_sum(self._threads, regularizer, theta, dtheta, split)
        control[0] = update.clip_factor(float(np.sqrt(squares)), max_norm)

    def update(
        self, optimizer: Optimizer, regularizer: Regularizer, theta: Array, rounded: Array,
        dtheta: Array, slots: Array, split: int, scaling: Array, control: Array,
        part: tuple[int, int] | None = None, groups: Array | None = None, origin: int = 0,
    ) -> None:  # fmt: skip
        update.optimizer_step(
            self._threads, optimizer, regularizer, theta, dtheta, slots, split, control, part,
            groups,
        )  # fmt: skip

    def weight_update(
        self, optimizer: Optimizer, regularizer: Regularizer, gz: Array, h_below: Array,
        theta: Array, rounded: Array, slots: Array, control: Array, part: tuple[int, int],
        factors: tuple[float, float],
    ) -> None:  # fmt: skip
        dW = np.dot(gz.T, h_below).reshape(-1)
        W, n = slice(part[0], part[0] + dW.size), dW.size
        update.optimizer_step(
            self._threads, optimizer, regularizer, theta[W], dW, slots[:, W], n, control, None,
            np.array([(n, *factors)]),
        )  # fmt: skip

    def orthogonalize(self, V: Array, scale: float, X: Array, A: Array, P: Array) -> None:
        update.orthogonalize(V, scale, X, A, P)

    def average(
        self, theta: Array, mean: Array, decay: float, control: Array, rounded: Array | None = None
    ) -> None:
        if control[0] != 0:
            update.average(self._threads, theta, mean, decay, float(control[-1]))

    def round(self, theta: Array, rounded: Array, remainder: Array | None = None) -> None:
        if remainder is not None:
            update.split(theta, rounded, remainder)

    def restore(self, theta: Array, rounded: Array, remainder: Array) -> None:
        update.restore(theta, rounded, remainder)

    # ---- minibatches --------------------------------------------------------------------------

    def gather(self, source: Array, index: Array, out: Array) -> None:
        np.take(source, index, axis=0, out=out, mode="clip")  # "raise" would buffer the output

    def feed(self, source: Array, rows: int, dtype: npt.DTypeLike) -> HostFeed:
        return HostFeed(source, self._threads)

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


def _targets(y: Array, y_hat: Array) -> Array:
    """y (rows, n) in the dtype of ŷ: a label becomes a row of zeros with a single one."""
    if y.ndim == 2:
        return y
    t = np.zeros((len(y), y_hat.shape[1]), y_hat.dtype)
    t[np.arange(len(y)), y] = 1
    return t


def _weighted_sum(weights: Array, values: Array) -> float:
    """Σ weights · values (m,); values of weight 0 do not count, even if they are NaN."""
    return float(np.dot(weights, values if weights.all() else np.where(weights == 0, 0, values)))


def _through_activation(
    f: Activation, z: Array, h: Array, gh: Array, gz: Array, rows: slice
) -> Array:
    """gz ← gh ⊙ f'(z), or Jᵀ gh, for some rows.  Returns their column sums."""
    if f.df is None:
        assert f.vjp is not None  # Activation has one of the two
        np.copyto(gz[rows], f.vjp(z[rows], h[rows], gh[rows], **f.params))
    elif f is not identity:
        np.multiply(gh[rows], f.df(z[rows], h[rows], **f.params), out=gz[rows])
    elif gz is not gh:
        np.copyto(gz[rows], gh[rows])
    sums: Array = gz[rows].sum(axis=0)
    return sums
