"""Losses L(ŷ, y): the value of each example and the gradient ∇_ŷ L.

An elementwise entry has both for one output; the loss of an example is their mean over its outputs.
In the NumPy expressions y has the shape of ŷ: integer labels become rows of zeros and a one.
Cross-entropies take logits, so Algorithm 6.4 need not pair the last activation with the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from gpumlp.functions import activations
from gpumlp.functions.activations import Activation
from gpumlp.functions.entry import Array, Entry, table


@dataclass(frozen=True, repr=False)
class Loss(Entry):
    """One loss, with NumPy and CUDA expressions side by side.

    Attributes:
        value: ``value(y_hat, y, **params)``: elementwise, or (m,) if `rowwise`.
        gradient: ``gradient(y_hat, y, **params)``: ∇_ŷ of the value, (m, n).
        cuda_value: the expression of the value in `y_hat` and `y`.
        cuda_gradient: the expression of the gradient in `y_hat` and `y`.
        link: the function of ŷ that `predict` returns.
        total: the loss of an example is the sum over its outputs, not their mean.
        probabilities: ŷ must be probabilities, or at least positive.
        target: the kind of y: "real", "binary" (0 to 1), "count" (0 and up) or "class" (integer
            labels, or rows of probabilities).
        rowwise: the loss reads a whole row of ŷ.
        cuda_file: for a row-wise loss, the file in `kernels/` with its `loss` and `loss_gradient`.
    """

    value: Callable[..., Array]
    gradient: Callable[..., Array]
    cuda_value: str = ""
    cuda_gradient: str = ""
    link: Activation = activations.identity
    total: bool = False
    probabilities: bool = False
    target: str = "real"
    rowwise: bool = False
    cuda_file: str = "loss.cu"

    def examples(self, y_hat: Array, y: Array) -> Array:
        """Return the loss of each example, (m,), from ŷ (m, n) and y (m, n)."""
        value = self.value(y_hat, y, **self.params)
        if self.rowwise:
            return value
        return value.sum(axis=1) if self.total else value.mean(axis=1)

    def log_probabilities(self, y_hat: Array, labels: bool = False) -> Array:
        """Return log p of the classes, float64 (m, n), for ŷ (m, n); two classes for n = 1.

        The smaller of two probabilities keeps its digits, and no logarithm of a finite ŷ is −inf:
        in float32 the link σ(z) itself is 1 from z = 17 on.  A p of 0 in ŷ counts as the smallest
        normal number of ŷ's dtype.

        labels: the outputs are the probabilities of n labels, which need not add up to 1.
        """
        z, (_, n) = y_hat.astype(np.float64), y_hat.shape
        two = self.target == "binary" and n == 1 and not labels
        if self.link is activations.sigmoid:
            log_p = -np.logaddexp(0, np.hstack([z, -z]) if two else -z)
            if two:
                return log_p
        elif self.link is activations.softmax:
            log_p = z
        else:
            p = self.link.f(z, **self.link.params)
            least = np.finfo(np.float64 if y_hat.dtype == np.float64 else np.float32).tiny
            log_p = np.log(np.maximum(np.hstack([1 - p, p]) if two else p, least))
        if labels:
            return log_p
        below = activations.below_max(log_p)
        return below - np.log(np.exp(below).sum(axis=1, keepdims=True))

    def mean_output(self, outputs: Sequence[Array]) -> Array:
        """Return ŷ, float64 (m, n), whose link is the mean of the links of several ŷ (m, n).

        It is computed from logarithms, so that small probabilities and those near 1 keep their
        digits.

        ValueError: the link is none of identity, softmax, sigmoid and exponential.
        """
        each = [y_hat.astype(np.float64) for y_hat in outputs]
        if self.link is activations.identity:
            return reduce(np.add, each) / len(each)
        if self.link is activations.sigmoid:  # of p and of 1 − p
            p, q = (reduce(np.logaddexp, [-np.logaddexp(0, s * z) for z in each]) for s in (-1, 1))
            return p - q
        if self.link is activations.softmax:
            each = [self.log_probabilities(z) for z in each]
        elif self.link is not activations.exponential:
            raise ValueError(
                f"the loss {self.name!r} has the link {self.link.name!r}, whose mean is not a link "
                "of one ŷ; use predict, which needs none"
            )
        return reduce(np.logaddexp, each) - np.log(len(each))

    def output_scale(self, n: int) -> float:
        """Return the factor of one output in the loss of its example: 1, or 1/n for a mean."""
        return 1.0 if self.total or self.rowwise else 1.0 / n

    @property
    def smooths(self) -> bool:
        """Whether the targets are smoothed: mixed with the uniform distribution."""
        return self.target == "class" and self.params.get("smoothing", 0.0) > 0

    def weighted_targets(self, y: Array, factors: Array) -> Array:
        """Return y' (m, n) whose smoothed rows are the smoothed y times the factors (m, n).

        With factors weight_j / weight of the example each term −t_j log p_j counts weight_j times:
        in torch, too, the weights of the classes apply after the smoothing t = (1 − s) y + s / n.
        y: labels (m,), or rows (m, n) of probabilities.
        """
        smoothing, n = self.params["smoothing"], factors.shape[1]
        t = factors * _smooth(np.eye(n)[y] if y.ndim == 1 else y, smoothing)
        return (t - smoothing / n) / (1 - smoothing)

    def check_output(self, f: Activation) -> None:
        """Raise ValueError if ŷ must be probabilities and the output activation f gives others."""
        if self.probabilities and f.name in ("identity", "relu", "leaky_relu", "tanh"):
            raise ValueError(
                f"{self.name} takes probabilities but the output layer's activation is {f.name}; "
                'pass output_activation="softmax", or loss="softmax_cross_entropy", which takes '
                "logits"
            )

    def cuda(self) -> str:
        """Return CUDA source of ``real value(real y_hat, real y)`` and of ``gradient``."""
        if self.rowwise:
            constants = self.cuda_constants().split("; ")
            return "".join(f"__device__ {constant};\n" for constant in constants if constant)
        arguments = "(real y_hat, real y)"
        return self._device_functions(
            {"cuda_value": f"value{arguments}", "cuda_gradient": f"gradient{arguments}"}
        )


def _log_cosh(y_hat: Array, y: Array) -> Array:
    d = np.abs(y_hat - y)
    least = np.minimum(d, 20)  # beyond, log cosh(d) is d − log 2
    u = np.expm1(least)  # cosh(d) = 1 + u² / (2 (1 + u))
    return np.log1p(0.5 * u * (u / (1 + u))) + (d - least)


def _huber(y_hat: Array, y: Array, delta: float) -> Array:
    d = np.abs(y_hat - y)
    small = np.minimum(d, delta)
    return small * (d - 0.5 * small)


def times(a: Array, b: Array) -> Array:
    """Return a b, and 0 where a is 0, whatever b is: a target of 0 excludes its output."""
    return np.multiply(a, b, out=np.zeros_like(b), where=a != 0)


def _logistic(y_hat: Array, y: Array) -> Array:
    linear = times(np.where(y_hat > 0, 1 - y, -y), y_hat)  # max(ŷ, 0) − ŷ y, without cancellation
    return linear + np.log1p(np.exp(-np.abs(y_hat)))


def _smooth(y: Array, smoothing: float) -> Array:
    return y * (1 - smoothing) + smoothing / y.shape[1]


def _cross_entropy(y_hat: Array, y: Array, smoothing: float) -> Array:
    below = activations.below_max(y_hat)  # so that the result does not depend on an offset
    log_sum = np.log(np.exp(below).sum(axis=1, keepdims=True))
    return times(_smooth(y, smoothing), log_sum - below).sum(axis=1)


def _dcross_entropy(y_hat: Array, y: Array, smoothing: float) -> Array:
    t = _smooth(y, smoothing)
    p = activations.softmax.f(y_hat)
    return p * t.sum(axis=1, keepdims=True) - t


CUDA_LEAST = "fmin(fabs(y_hat - y), real(20))"  # see `_log_cosh`
CUDA_U = f"expm1({CUDA_LEAST})"

squared_error = Loss(
    "squared_error",
    value=lambda y_hat, y: np.square(y_hat - y),
    gradient=lambda y_hat, y: 2 * (y_hat - y),
    cuda_value="(y_hat - y) * (y_hat - y)",
    cuda_gradient="real(2) * (y_hat - y)",
)
absolute_error = Loss(
    "absolute_error",
    value=lambda y_hat, y: np.abs(y_hat - y),
    gradient=lambda y_hat, y: np.sign(y_hat - y),
    cuda_value="fabs(y_hat - y)",
    cuda_gradient="sign(y_hat - y)",
)
huber = Loss(
    "huber",  # Huber (1964)
    value=_huber,
    gradient=lambda y_hat, y, delta: np.clip(y_hat - y, -delta, delta),
    cuda_value=(
        "fmin(fabs(y_hat - y), delta)"
        " * (fabs(y_hat - y) - real(0.5) * fmin(fabs(y_hat - y), delta))"
    ),
    cuda_gradient="y_hat - y > delta ? delta : y_hat - y < -delta ? -delta : y_hat - y",
    params={"delta": 1.0},
    limits={"delta": "(0, inf)"},
)
log_cosh = Loss(
    "log_cosh",
    value=_log_cosh,
    gradient=lambda y_hat, y: np.tanh(y_hat - y),
    cuda_value=(
        f"log1p(real(0.5) * {CUDA_U} * ({CUDA_U} / (real(1) + {CUDA_U})))"
        f" + (fabs(y_hat - y) - {CUDA_LEAST})"
    ),
    cuda_gradient="tanh(y_hat - y)",
)
quantile = Loss(
    "quantile",  # the pinball loss, Koenker & Bassett (1978)
    value=lambda y_hat, y, q: np.where(y > y_hat, q * (y - y_hat), (1 - q) * (y_hat - y)),
    gradient=lambda y_hat, y, q: np.where(y > y_hat, -q, np.where(y < y_hat, 1 - q, 0)).astype(
        y_hat.dtype
    ),
    cuda_value="y > y_hat ? q * (y - y_hat) : one_minus_q * (y_hat - y)",
    cuda_gradient="y > y_hat ? -q : y < y_hat ? one_minus_q : real(0)",
    params={"q": 0.5},
    limits={"q": "(0, 1)"},
)
poisson = Loss(
    "poisson",  # ŷ is the logarithm of the rate; the constant log y! is left out
    value=lambda y_hat, y: np.exp(y_hat) - times(y, y_hat),
    gradient=lambda y_hat, y: np.exp(y_hat) - y,
    cuda_value="exp(y_hat) - times(y, y_hat)",
    cuda_gradient="exp(y_hat) - y",
    link=activations.exponential,
    target="count",
)
binary_cross_entropy = Loss(
    "binary_cross_entropy",  # of logits
    value=_logistic,
    gradient=lambda y_hat, y: activations.sigmoid.f(y_hat) - y,
    cuda_value="times(y_hat > real(0) ? real(1) - y : -y, y_hat) + log1p(exp(-fabs(y_hat)))",
    cuda_gradient="real(1) / (real(1) + exp(-y_hat)) - y",
    link=activations.sigmoid,
    target="binary",
)
softmax_cross_entropy = Loss(
    "softmax_cross_entropy",  # of logits; label smoothing: Szegedy et al. (2016)
    value=_cross_entropy,
    gradient=_dcross_entropy,
    link=activations.softmax,
    target="class",
    rowwise=True,
    cuda_file="cross_entropy.cu",
    params={"smoothing": 0.0},
    limits={"smoothing": "[0, 1)"},
)
negative_log_likelihood = Loss(
    "negative_log_likelihood",  # of probabilities, for a softmax output layer
    value=lambda y_hat, y: -y * np.log(np.maximum(y_hat, np.finfo(y_hat.dtype).tiny)),
    gradient=lambda y_hat, y: -y / np.maximum(y_hat, np.finfo(y_hat.dtype).tiny),
    cuda_value="-y * log(y_hat < tiny() ? tiny() : y_hat)",  # with this comparison NaN stays NaN
    cuda_gradient="-y / (y_hat < tiny() ? tiny() : y_hat)",
    total=True,
    probabilities=True,
    target="class",
)

LOSSES = table(
    squared_error, absolute_error, huber, log_cosh, quantile, poisson, binary_cross_entropy,
    softmax_cross_entropy, negative_log_likelihood,
)  # fmt: skip
