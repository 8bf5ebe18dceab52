"""The NumPy backend: BLAS for products, NumPy expressions on cache-sized blocks for the rest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends.feed import HostFeed
from gpumlp.backends.numpy.blas import numpy_blas
from gpumlp.backends.numpy.columns import NumpyColumns
from gpumlp.backends.numpy.members import one_by_one, one_by_one_if_large, product, transposed
from gpumlp.backends.numpy.sharing import NumpySharing
from gpumlp.backends.numpy.stages import NumpyStages
from gpumlp.backends.numpy.theta import NumpyTheta
from gpumlp.backends.operations import Backend
from gpumlp.functions import Activation, Loss
from gpumlp.functions.activations import identity
from gpumlp.io.threads import Threads, blas_threads
from gpumlp.io.types import HostArray as Array

ALIGNMENT = 256  # bytes


class NumpyBackend(NumpyColumns, NumpySharing, NumpyStages, NumpyTheta, Backend):
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
        self.branches = self.row_flops = 0
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
        size = math.prod(shape) * dtype.itemsize
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

    @one_by_one_if_large
    def affine_activation(
        self, h_below: Array, W: Array, b: Array, f: Activation, z: Array, h: Array
    ) -> None:
        product(h_below, transposed(W), z)

        def block(rows: slice) -> None:  # of examples, or of networks
            np.add(z[rows], b if z.ndim == 2 else b[rows, None], out=z[rows])
            if f is not identity or h is not z:
                np.copyto(h[rows], f.f(z[rows], **f.params))

        self._threads.over_rows(block, z)

    def activation(self, f: Activation, z: Array, h: Array) -> None:
        self._threads.over_rows(lambda rows: np.copyto(h[rows], f.f(z[rows], **f.params)), z)

    def loss(self, loss: Loss, y_hat: Array, y: Array, weights: Array, J: Array) -> None:
        def block(rows: slice) -> float:
            t = targets(y[rows], y_hat)
            return weighted_sum(weights[rows], loss.examples(y_hat[rows], t))

        J += sum(self._threads.over_rows(block, y_hat))

    # ---- Algorithm 6.4 ------------------------------------------------------------------------

    @one_by_one_if_large
    def output_gradient(
        self, loss: Loss, f: Activation, z: Array, h: Array, y: Array, weights: Array,
        scaling: Array, gh: Array, gz: Array, db: Array, J: Array,
    ) -> None:  # fmt: skip
        n = h.shape[-1]
        scale = h.dtype.type(loss.output_scale(n))

        def block(rows: slice) -> tuple[list[float], Array]:  # of examples, or of networks
            y_hat, w = h[rows].reshape(-1, n), weights[rows]
            t, each = targets(y[rows].reshape(-1, *y.shape[h.ndim - 1 :]), y_hat), w.reshape(-1)
            values = loss.examples(y_hat, t).reshape(w.shape)
            gradient = loss.gradient(y_hat, t, **loss.params)
            out = gh[rows].reshape(-1, n)
            np.multiply(gradient, (each * scale)[:, None], out=out)
            if not each.all():
                out[each == 0] = 0  # an example of weight 0 does not count, even if it is NaN
            pairs = [(w, values)] if w.ndim == 1 else zip(w, values, strict=True)
            costs = [weighted_sum(*pair) for pair in pairs]
            return costs, through_activation(f, z, h, gh, gz, rows)

        costs, sums = zip(*self._threads.over_rows(block, h), strict=True)
        if h.ndim == 2:
            J += sum(cost for (cost,) in costs)
            np.sum(sums, axis=0, out=db)
        else:
            J[:, 0] += np.concatenate(costs)
            np.concatenate(sums, out=db)

    def weight_gradient(self, gz: Array, h_below: Array, dW: Array, factors: Array | None) -> None:
        if factors is None:
            product(transposed(gz), h_below, dW)
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
        product(gz_above, W_above, gh)
        self.activation_gradient(f, z, h, gh, gz, db)

    @one_by_one_if_large
    def activation_gradient(
        self, f: Activation, z: Array, h: Array, gh: Array, gz: Array, db: Array
    ) -> None:
        sums = self._threads.over_rows(lambda rows: through_activation(f, z, h, gh, gz, rows), gh)
        np.sum(sums, axis=0, out=db) if gh.ndim == 2 else np.concatenate(sums, out=db)

    @one_by_one  # of a part of W, NumPy's product of K pairs has other last bits
    def input_gradient(self, gz: Array, W: Array, gx: Array) -> None:
        product(gz, W[:, W.shape[1] - gx.shape[1] :], gx)

    # ---- minibatches --------------------------------------------------------------------------

    def gather(self, source: Array, index: Array, out: Array) -> None:
        np.take(source, index, axis=0, out=out, mode="clip")  # "raise" would buffer the output

    def feed(self, source: Array, rows: int, dtype: npt.DTypeLike) -> HostFeed:
        return HostFeed(source, self._threads)

    def mean_weights(self, weights: Array, index: Array, out: Array) -> None:
        np.take(weights, index, out=out, mode="clip")
        for each in [out] if out.ndim == 1 else out:
            total = each.sum(dtype=np.float64)
            np.divide(each, total, out=each) if total > 0 else each.fill(0)

    # ---- a step as a whole --------------------------------------------------------------------

    def begin(
        self, position: Array, order: Array, controls: Array, size: int, index: Array,
        control: Array, factors: Array, J: Array,
    ) -> None:  # fmt: skip
        t = int(position[0])
        np.copyto(index, order[t * size : t * size + index.size].reshape(index.shape))
        np.copyto(control, controls[t, :-2].reshape(control.shape))
        np.copyto(factors, controls[t, -2:], casting="same_kind")
        J.fill(0)

    def end(self, position: Array, J: Array, costs: Array) -> None:
        costs[position] = J.reshape(-1)
        np.remainder(position + 1, len(costs), out=position)


def targets(y: Array, y_hat: Array) -> Array:
    """y (rows, n) in the dtype of ŷ: a label becomes a row of zeros with a single one."""
    if y.ndim == 2:
        return y
    t = np.zeros((len(y), y_hat.shape[1]), y_hat.dtype)
    t[np.arange(len(y)), y] = 1
    return t


def weighted_sum(weights: Array, values: Array) -> float:
    """Σ weights · values (m,); values of weight 0 do not count, even if they are NaN."""
    return float(np.dot(weights, values if weights.all() else np.where(weights == 0, 0, values)))


def through_activation(
    f: Activation, z: Array, h: Array, gh: Array, gz: Array, rows: slice
) -> Array:
    """gz ← gh ⊙ f'(z), or Jᵀ gh, for some rows, or networks.  Returns their column sums."""
    if f.df is None:
        assert f.vjp is not None  # Activation has one of the two
        np.copyto(gz[rows], f.vjp(z[rows], h[rows], gh[rows], **f.params))
    elif f is not identity:
        np.multiply(gh[rows], f.df(z[rows], h[rows], **f.params), out=gz[rows])
    elif gz is not gh:
        np.copyto(gz[rows], gh[rows])
    sums: Array = gz[rows].sum(axis=-2)
    return sums
