"""Activations f: h = f(z), and what back-propagation needs of them.

An elementwise entry has f and its derivative: gz = gh ⊙ f'(z).  A row-wise entry has f and the
product with its Jacobian: gz = Jᵀ gh.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gpumlp.functions.entry import Array, Entry, table


@dataclass(frozen=True, repr=False)
class Activation(Entry):
    """One activation, with NumPy and CUDA expressions side by side.

    Attributes:
        f: ``f(z, **params) -> h``; elementwise, or over the last axis if `vjp` is given.
        df: ``df(z, h, **params) -> f'(z)``, elementwise; None if `vjp` is given.
        vjp: ``vjp(z, h, gh, **params) -> gz`` for a row-wise f, else None.
        reads: the arrays that the derivative is computed from, which are therefore stored: "z", the
            pre-activation; "h", the output; "zh", both; or "".
        cuda_f: the expression of f in `z`.
        cuda_df: the expression of f' in those of `z` and `h` that `reads` names.
        cuda_file: for a row-wise f, the file in `kernels/` with its `forward` and `vjp`.
        epilogue: the epilogue of cublasLt's products that computes f: "relu", "gelu", "bias" for
            the identity, or "" for none.
    """

    f: Callable[..., Array]
    df: Callable[..., Array] | None = None
    cuda_f: str = ""
    cuda_df: str = ""
    reads: str = "zh"
    vjp: Callable[..., Array] | None = None
    cuda_file: str = ""
    epilogue: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epilogue not in ("", "bias", "relu", "gelu"):
            raise ValueError(
                f'{self.name}: epilogue must be "", "bias", "relu" or "gelu", got {self.epilogue!r}'
            )
        if self.reads not in ("", "z", "h", "zh"):
            raise ValueError(f'{self.name}: reads must be "", "z", "h" or "zh", got {self.reads!r}')
        if (self.df is None) == (self.vjp is None):
            raise TypeError(
                f"{self.name}: give df (elementwise f) or vjp (row-wise f), and not both"
            )

    @property
    def elementwise(self) -> bool:
        """Whether h[i, j] depends on z[i, j] alone."""
        return self.vjp is None

    def cuda(self) -> str:
        """Return CUDA source of ``real f(real z)`` and ``df(real z, real h)``; "" if row-wise."""
        if not self.elementwise:
            return ""
        return self._device_functions({"cuda_f": "f(real z)", "cuda_df": "df(real z, real h)"})


def erf(x: Array) -> Array:
    """Return the error function of x, elementwise, in the dtype of x; by SciPy if installed."""
    value = _erf()(x)  # x may be an object that is no array but calls ufuncs: no np.asarray
    value = np.asarray(value) if isinstance(value, float) else value
    return value.astype(x.dtype, copy=False)


@cache
def _erf() -> Any:
    try:
        from scipy.special import erf as scipy_erf
    except ImportError:
        return np.frompyfunc(math.erf, 1, 1)  # exact, about 100 times slower than SciPy's
    return scipy_erf


def _sigmoid(z: Array) -> Array:
    e = np.exp(-np.abs(z))  # ≤ 1; by tanh, σ(−20) would be 0 in float32
    return np.where(z < 0, e, 1) / (1 + e)


def _softplus(z: Array) -> Array:
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def below_max(z: Array) -> Array:
    """Return z − max z, row by row: exact where exp of it matters, and NaN for an infinite max."""
    with np.errstate(invalid="ignore", over="ignore"):
        return z - z.max(axis=-1, keepdims=True)


def _softmax(z: Array) -> Array:
    h = np.exp(below_max(z))
    h /= h.sum(axis=-1, keepdims=True)
    return h


def _dgelu(z: Array, h: Array) -> Array:
    t = np.tanh(GELU_SLOPE * (z + GELU_CUBIC * z * z * z))
    return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * GELU_SLOPE * (1 + 3 * GELU_CUBIC * z * z)


def _mish_terms(z: Array) -> tuple[Array, Array, Array]:
    """min(z, 20), e = exp of it, and n = e (e + 2), with which tanh(softplus(z)) = n / (n + 2)."""
    e = np.exp(least := np.minimum(z, 20))
    return least, e, e * (e + 2)


def _mish(z: Array) -> Array:
    n = _mish_terms(z)[2]
    return z * (n / (n + 2))


def _dmish(z: Array, h: Array) -> Array:
    least, e, n = _mish_terms(z)
    return n / (n + 2) + 4 * (least * e) * (1 + e) / np.square(n + 2)


def _dsilu(z: Array, h: Array) -> Array:
    s = _sigmoid(z)
    return s * (1 + z * (1 - s))


GELU_SLOPE, GELU_CUBIC = 0.7978845608028654, 0.044715  # √(2/π); Hendrycks & Gimpel (2016)
SQRT_HALF, INV_SQRT_2PI = 0.7071067811865476, 0.3989422804014327
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. (2017)

CUDA_SIGMOID = "(real(1) / (real(1) + exp(-z)))"  # exp(−z) = inf gives 0, as it should
CUDA_SOFTPLUS = "(fmax(z, real(0)) + log1p(exp(-fabs(z))))"
CUDA_LEAST = "(z > real(20) ? real(20) : z)"  # also if z is NaN; see `_mish_terms`
CUDA_EXP = f"exp({CUDA_LEAST})"
CUDA_N = f"({CUDA_EXP} * ({CUDA_EXP} + real(2)))"
CUDA_FAST_SIGMOID = "fast_sigmoid(z)"  # fast_…: in bfloat16 with an error of 2⁻¹¹
CUDA_GELU_TANH = f"fast_tanh(real({GELU_SLOPE!r}) * (z + real({GELU_CUBIC!r}) * z * z * z))"
CUDA_GELU_ERF = f"(real(0.5) * (real(1) + erf(z * real({SQRT_HALF!r}))))"

identity = Activation(
    "identity",
    f=lambda z: z,
    df=lambda z, h: np.ones_like(h),
    cuda_f="z",
    cuda_df="real(1)",
    reads="",
    epilogue="bias",
)
relu = Activation(
    "relu",
    f=lambda z: np.maximum(z, 0),
    df=lambda z, h: h > 0,
    cuda_f="z < real(0) ? real(0) : z",  # with this comparison NaN stays NaN
    cuda_df="h > real(0) ? real(1) : real(0)",
    reads="h",
    epilogue="relu",
)
leaky_relu = Activation(
    "leaky_relu",
    f=lambda z, slope: np.where(z > 0, z, slope * z),
    df=lambda z, h, slope: np.where(h > 0, h.dtype.type(1), h.dtype.type(slope)),
    cuda_f="z > real(0) ? z : slope * z",
    cuda_df="h > real(0) ? real(1) : slope",
    reads="h",
    params={"slope": 0.01},
    limits={"slope": "[0, inf)"},
)
elu = Activation(
    "elu",
    f=lambda z, alpha: np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0))),
    df=lambda z, h, alpha: np.where(h > 0, h.dtype.type(1), h + alpha),
    cuda_f="z > real(0) ? z : alpha * expm1(z)",
    cuda_df="h > real(0) ? real(1) : h + alpha",
    reads="h",
    params={"alpha": 1.0},
    limits={"alpha": "[0, inf)"},
)
selu = Activation(
    "selu",
    f=lambda z, alpha, scale: scale * np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0))),
    df=lambda z, h, alpha, scale: np.where(h > 0, h.dtype.type(scale), h + scale * alpha),
    cuda_f="scale * (z > real(0) ? z : alpha * expm1(z))",
    cuda_df="h > real(0) ? scale : h + scale * alpha",
    reads="h",
    params={"alpha": SELU_ALPHA, "scale": SELU_SCALE},
    limits={"alpha": "[0, inf)", "scale": "(0, inf)"},
)
sigmoid = Activation(
    "sigmoid",
    f=_sigmoid,
    df=lambda z, h: h * (1 - h),
    cuda_f=CUDA_SIGMOID,
    cuda_df="h * (real(1) - h)",
    reads="h",
)
tanh = Activation(
    "tanh",
    f=np.tanh,
    df=lambda z, h: 1 - h * h,
    cuda_f="tanh(z)",
    cuda_df="real(1) - h * h",
    reads="h",
)
softplus = Activation(
    "softplus",
    f=_softplus,
    df=lambda z, h: -np.expm1(-h),  # σ(z) = 1 − exp(−softplus(z))
    cuda_f=CUDA_SOFTPLUS,
    cuda_df="-expm1(-h)",
    reads="h",
)
softsign = Activation(
    "softsign",
    f=lambda z: z / (1 + np.abs(z)),
    df=lambda z, h: np.square(1 - np.abs(h)),
    cuda_f="z / (real(1) + fabs(z))",
    cuda_df="(real(1) - fabs(h)) * (real(1) - fabs(h))",
    reads="h",
)
silu = Activation(
    "silu",
    f=lambda z: z * _sigmoid(z),
    df=_dsilu,
    cuda_f=f"z * {CUDA_FAST_SIGMOID}",
    cuda_df=f"{CUDA_FAST_SIGMOID} * (real(1) + z * (real(1) - {CUDA_FAST_SIGMOID}))",
    reads="z",
)
gelu = Activation(
    "gelu",  # the tanh form
    f=lambda z: 0.5 * z * (1 + np.tanh(GELU_SLOPE * (z + GELU_CUBIC * z * z * z))),
    df=_dgelu,
    cuda_f=f"real(0.5) * z * (real(1) + {CUDA_GELU_TANH})",
    cuda_df=(
        f"real(0.5) * (real(1) + {CUDA_GELU_TANH}) + real(0.5) * z"
        f" * (real(1) - {CUDA_GELU_TANH} * {CUDA_GELU_TANH})"
        f" * real({GELU_SLOPE!r}) * (real(1) + real({3 * GELU_CUBIC!r}) * z * z)"
    ),
    reads="z",
    epilogue="gelu",
)
gelu_erf = Activation(
    "gelu_erf",
    f=lambda z: 0.5 * z * (1 + erf(SQRT_HALF * z)),
    df=lambda z, h: 0.5 * (1 + erf(SQRT_HALF * z)) + z * np.exp(-0.5 * z * z) * INV_SQRT_2PI,
    cuda_f=f"z * {CUDA_GELU_ERF}",
    cuda_df=f"{CUDA_GELU_ERF} + z * exp(real(-0.5) * z * z) * real({INV_SQRT_2PI!r})",
    reads="z",
)
mish = Activation(
    "mish",
    f=_mish,
    df=_dmish,
    cuda_f=f"z * ({CUDA_N} / ({CUDA_N} + real(2)))",
    cuda_df=(
        f"{CUDA_N} / ({CUDA_N} + real(2)) + real(4) * ({CUDA_LEAST} * {CUDA_EXP})"
        f" * (real(1) + {CUDA_EXP}) / (({CUDA_N} + real(2)) * ({CUDA_N} + real(2)))"
    ),
    reads="z",
)
hard_swish = Activation(
    "hard_swish",
    f=lambda z: z * np.clip(z + 3, 0, 6) / 6,
    df=lambda z, h: np.where(z <= -3, 0, np.where(z >= 3, 1, (2 * z + 3) / 6)).astype(z.dtype),
    cuda_f="z * fmin(fmax(z + real(3), real(0)), real(6)) * (real(1) / real(6))",
    cuda_df=(
        "z <= real(-3) ? real(0) : z >= real(3) ? real(1)"
        " : (real(2) * z + real(3)) * (real(1) / real(6))"
    ),
    reads="z",
)
exponential = Activation(
    "exponential",  # the link of a Poisson regression
    f=np.exp,
    df=lambda z, h: h,
    cuda_f="exp(z)",
    cuda_df="h",
    reads="h",
)
softmax = Activation(
    "softmax",
    f=_softmax,
    vjp=lambda z, h, gh: h * (gh - (h * gh).sum(axis=-1, keepdims=True)),
    reads="h",
    cuda_file="softmax.cu",
)

ACTIVATIONS = table(
    identity, relu, leaky_relu, elu, selu, sigmoid, tanh, softplus, softsign, silu, gelu, gelu_erf,
    mish, hard_swish, exponential, softmax,
)  # fmt: skip
