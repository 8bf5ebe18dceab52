"""Optimizers, NumPy and CUDA side by side; `update_rule` says what a rule may read and write."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from gpumlp.functions.entry import Array, table
from gpumlp.functions.update_rule import Optimizer, Scalars, of_arrays


def _sgd(theta: Array, g: Array, lr: float) -> None:
    g *= lr
    theta -= g


def _momentum(theta: Array, g: Array, lr: float, v: Array, mu: float) -> None:
    v *= mu
    v += g
    theta -= lr * v


def _nesterov(theta: Array, g: Array, lr: float, v: Array, mu: float) -> None:
    v *= mu
    v += g
    g += mu * v
    theta -= lr * g


def _rmsprop(theta: Array, g: Array, lr: float, s: Array, rho: float, eps: float) -> None:
    s *= rho
    s += (1 - rho) * g * g
    theta -= lr * g / (np.sqrt(s) + eps)


def _adam(
    theta: Array, g: Array, lr: float, m: Array, v: Array,
    beta1: float, beta2: float, eps: float, c1: float, c2: float,
) -> None:  # fmt: skip
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    g *= g
    g *= 1 - beta2
    v += g
    np.multiply(v, c2, out=g)
    np.sqrt(g, out=g)
    g += eps
    np.divide(m, g, out=g)
    g *= lr * c1
    theta -= g


def _adam_epsilon_hat(
    theta: Array, g: Array, lr: float, c2: float, eps: float, **rest: Any
) -> None:
    _adam(theta, g, lr, c2=c2, eps=eps * math.sqrt(c2), **rest)


def _adamw(theta: Array, g: Array, lr: float, weight_decay: float, **adam: Any) -> None:
    # not θ ← (1 − lr·weight_decay) θ: float32 rounds that factor by up to 3e-8
    theta -= lr * weight_decay * theta
    _adam(theta, g, lr, **adam)


def _lion(
    theta: Array, g: Array, lr: float, m: Array, beta1: float, beta2: float, weight_decay: float
) -> None:
    direction = np.sign(beta1 * m + (1 - beta1) * g)
    m *= beta2
    m += (1 - beta2) * g
    theta -= lr * (direction + weight_decay * theta)


def _muon(theta: Array, g: Array, lr: float, rest: float, mu: float, **adamw: Any) -> None:
    _adamw(theta, g, rest * lr, **adamw)


def _collect(theta: Array, g: Array, lr: float, m: Array, o: Array, mu: float, **c: float) -> None:
    m *= mu
    m += g
    np.multiply(m, mu, out=o)
    o += g


def _apply_direction(
    theta: Array, g: Array, lr: float, m: Array, o: Array, weight_decay: float, **c: float
) -> None:
    theta -= lr * (o + weight_decay * theta)


@of_arrays
def _corrections(t: int, beta1: float, beta2: float, **rest: float) -> Scalars:
    return {"c1": 1 / (1 - beta1**t), "c2": 1 / (1 - beta2**t)}


ADAM_RULE = (
    "m = beta1 * m + one_minus_beta1 * g; v = beta2 * v + one_minus_beta2 * g * g; "
    "theta -= lr * c1 * m / (sqrt(v * c2) + eps);"
)
ADAMW_RULE = "theta -= lr * weight_decay * theta; " + ADAM_RULE
ADAM_PARAMS = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
ADAM_LIMITS = {"beta1": "[0, 1)", "beta2": "[0, 1)", "eps": "(0, inf)"}
COUNTED: dict[str, Any] = {"scalars": _corrections, "scalar_names": ("c1", "c2")}

sgd = Optimizer(
    "sgd",
    rule=_sgd,
    cuda_rule="theta -= lr * g;",
    lr=0.1,
    fold="theta",
    factors=lambda lr, decay: (-lr, 1 - lr * decay),
)
momentum = Optimizer(
    "momentum",  # Polyak (1964), in torch's form: v ← μv + g
    rule=_momentum,
    cuda_rule="v = mu * v + g; theta -= lr * v;",
    slots=("v",),
    params={"mu": 0.9},
    limits={"mu": "[0, 1]"},
    lr=0.05,
    fold="v",
    factors=lambda lr, decay, mu: (1.0, mu),
)
nesterov = Optimizer(
    "nesterov",  # Sutskever et al. (2013)
    rule=_nesterov,
    cuda_rule="v = mu * v + g; theta -= lr * (g + mu * v);",
    slots=("v",),
    params={"mu": 0.9},
    limits={"mu": "[0, 1]"},
    lr=0.05,
)
rmsprop = Optimizer(
    "rmsprop",  # Hinton (2012)
    rule=_rmsprop,
    cuda_rule=("s = rho * s + one_minus_rho * g * g; theta -= lr * g / (sqrt(s) + eps);"),
    slots=("s",),
    params={"rho": 0.99, "eps": 1e-8},
    limits={"rho": "[0, 1)", "eps": "(0, inf)"},
)
adam = Optimizer(
    "adam",  # Kingma & Ba (2015)
    rule=_adam,
    cuda_rule=ADAM_RULE,
    slots=("m", "v"),
    **COUNTED,
    params=ADAM_PARAMS,
    limits=ADAM_LIMITS,
)
adam_epsilon_hat = replace(  # scikit-learn's: eps is added to √v before v is corrected, section 2
    adam,
    name="adam_epsilon_hat",
    rule=_adam_epsilon_hat,
    cuda_rule=ADAM_RULE.replace("eps", "eps * sqrt(c2)"),
)
adamw = Optimizer(
    "adamw",  # Loshchilov & Hutter (2019)
    rule=_adamw,
    cuda_rule=ADAMW_RULE,
    slots=("m", "v"),
    **COUNTED,
    params={**ADAM_PARAMS, "weight_decay": 0.01},
    limits={**ADAM_LIMITS, "weight_decay": "[0, inf)"},
)
lion = Optimizer(
    "lion",  # Chen et al. (2023)
    rule=_lion,
    cuda_rule=(
        "const real direction = sign(beta1 * m + one_minus_beta1 * g); "
        "m = beta2 * m + one_minus_beta2 * g; "
        "theta -= lr * (direction + weight_decay * theta);"
    ),
    slots=("m",),
    params={"beta1": 0.9, "beta2": 0.99, "weight_decay": 0.0},
    limits={"beta1": "[0, 1)", "beta2": "[0, 1)", "weight_decay": "[0, inf)"},
    lr=1e-4,
)
muon = Optimizer(
    # Jordan (2024), https://kellerjordan.github.io/posts/muon: the W of each hidden layer moves by
    # O · lr · √max(1, n_out / n_in), O orthogonal; the other parameters by AdamW with rest · lr
    "muon",
    rule=_muon,
    cuda_rule=ADAMW_RULE.replace("lr *", "lr * rest *"),
    slots=("m", "v"),
    params={"mu": 0.95, **ADAM_PARAMS, "weight_decay": 0.01, "rest": 0.1},
    limits={"mu": "[0, 1)", **ADAM_LIMITS, "weight_decay": "[0, inf)", "rest": "[0, inf)"},
    lr=0.02,
    orthogonal=(
        Optimizer(
            "collect",  # Nesterov's direction, o
            rule=_collect,
            cuda_rule="m = mu * m + g; o = g + mu * m;",
            slots=("m", "o"),
            params={"mu": 0.95},
            **COUNTED,
        ),
        Optimizer(
            "apply_direction",
            rule=_apply_direction,
            cuda_rule="theta -= lr * (o + weight_decay * theta);",
            slots=("m", "o"),
            params={"weight_decay": 0.01},
            **COUNTED,
        ),
    ),
    **COUNTED,
)


def _follow(theta: Array, g: Array, lr: float) -> None:
    theta -= lr * g


# W ← W − η v for a velocity that is still needed: unlike the rule of sgd, this one keeps it
FOLLOW = Optimizer("follow", rule=_follow, cuda_rule="theta -= lr * g;")
UNLISTED = (FOLLOW, adam_epsilon_hat)  # rules that are compiled, but that no table lists
OPTIMIZERS = table(sgd, momentum, nesterov, rmsprop, adam, adamw, lion, muon)
NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)  # Jordan's: σ ← aσ + bσ³ + cσ⁵, steepest at 0
NEWTON_SCHULZ_STEPS = 5  # odd, so that the result is in the buffer of the matrix
LEAST_NORM = 1e-7  # a matrix is divided by its norm or by this number, as in torch
