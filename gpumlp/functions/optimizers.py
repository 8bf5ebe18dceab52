"""Optimizers: rules that move one parameter θ by its gradient g, elementwise over the flat θ.

A rule reads and writes θ and its slots in place.  It must leave θ = 0 with g = 0 and slots 0 as
it is, since the flat buffer has padding.  Whatever depends on the step number alone, such as
Adam's bias corrections, is computed once a step on the host by `scalars` and handed in.

The CUDA rule is the same statements over references `theta` and the slots' names, with `g`, `lr`,
the scalars, the entry's parameters and, for a parameter p, one_minus_p in scope, all `real`.

In groups of parameters `lr` is the group's own, and so is a parameter of the name weight_decay.
Muon is two rules in one entry: its own moves what is no hidden layer's matrix, `orthogonal` these.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.functions.entry import Array, Entry, table

Scalars = dict[str, float]


def _no_scalars(t: int, **params: float) -> Scalars:
    return {}


def _plain(lr: float, decay: float, **params: float) -> tuple[float, float]:
    return 1.0, 0.0


@dataclass(frozen=True, repr=False)
class Optimizer(Entry):
    """One update rule, NumPy and CUDA side by side.

    Attributes:
        rule: ``rule(theta, g, lr, **slots, **scalars, **params)``, in place; g may be overwritten.
        cuda_rule: the same as CUDA statements.
        slots: names of the state kept for each parameter, all zero at first.
        scalars: ``scalars(t, **params)``: what depends on the step number t = 1, 2, … alone.
        scalar_names: the names that `scalars` returns, in order.
        lr: a usual learning rate, the default where none is given.
        fold: what g of the weights may be added to within the product that computes it, which is
            then the whole of the rule for it: "theta", or the slot that the rule is θ ← θ − lr slot
            of; "" where the rule must see g.
        factors: ``factors(lr, decay, **params)``: (α, β) of x ← α g + β x for the x that `fold`
            names; decay: λ of a regulariser whose gradient is λθ.
        orthogonal: None where the rule moves all of θ.  Else two rules that move the hidden layers'
            W in its place: the first leaves a direction in the last slot, which
            `Backend.orthogonalize` makes orthogonal and the second moves W by.  They have these
            slots, by names of their own, these scalars, and of these parameters what they name.
    """

    rule: Callable[..., None]
    cuda_rule: str = ""
    slots: tuple[str, ...] = ()
    scalars: Callable[..., Scalars] = _no_scalars
    scalar_names: tuple[str, ...] = ()
    lr: float = 1e-3
    fold: str = ""
    factors: Callable[..., tuple[float, float]] = _plain
    orthogonal: tuple[Optimizer, Optimizer] | None = None

    def of_matrices(self) -> list[Optimizer]:
        """The two rules of `orthogonal`, with this entry's parameters."""
        rules = self.orthogonal or ()
        return [rule.set(**{key: self.params[key] for key in rule.params}) for rule in rules]

    def control(self, lr: float, t: int) -> tuple[float, ...]:
        """The step's numbers in the order that the kernel reads them: lr, the scalars, t."""
        scalars = self.scalars(t, **self.params)
        return (lr, *(scalars[name] for name in self.scalar_names), t)

    def cuda(self) -> str:
        """CUDA source of ``void rule(real& theta, real* slot, real g, const double* control,
        real lr_factor, real decay_factor)``; the factors are those of a group of parameters.
        """
        if not self.cuda_rule:
            raise ValueError(
                f"optimizer {self.name!r} has no CUDA rule; give cuda_rule, or use the NumPy room"
            )
        words = set(re.findall(r"\w+", self.cuda_rule))  # a name that none reads is a warning
        slots = " ".join(
            f"real& {name} = slot[{i}];" for i, name in enumerate(self.slots) if name in words
        )
        names = ("lr", *self.scalar_names)
        factor = {"lr": "lr_factor * "}
        scalars = " ".join(
            f"const real {name} = {factor.get(name, '')}real(control[{i}]);"
            for i, name in enumerate(names)
            if name in words
        )
        unread = {key for key in self.params if key not in words}
        constants = self.cuda_constants(leave_out=[*unread, "weight_decay"])
        if "weight_decay" in words:
            decay = self.params["weight_decay"]
            constants += f"const real weight_decay = decay_factor * real({decay!r}); "
        # 1 − β loses half of float32's digits if it is taken there
        rests = " ".join(
            f"const real one_minus_{key} = real({1 - value!r});"
            for key, value in self.params.items()
            if f"one_minus_{key}" in words
        )
        return (
            f"enum {{ SLOTS = {len(self.slots)}, NUMBERS = {len(names)} }};\n"
            "__device__ void rule(real& theta, real* slot, real g, const double* control,\n"
            "                     real lr_factor, real decay_factor) {\n"
            f"    {slots} {scalars} {constants}{rests}\n    {self.cuda_rule}\n}}\n"
        )


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


def _adamw(theta: Array, g: Array, lr: float, weight_decay: float, **adam: Any) -> None:
    # not θ ← (1 − lr·weight_decay) θ: float32 holds that factor to no more than 3e-8
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


def _turn(
    theta: Array, g: Array, lr: float, m: Array, o: Array, weight_decay: float, **c: float
) -> None:
    theta -= lr * (o + weight_decay * theta)


def _corrections(t: int, beta1: float, beta2: float, **rest: float) -> Scalars:
    return {"c1": 1 / (1 - beta1**t), "c2": 1 / (1 - beta2**t)}


ADAM_RULE = (
    "m = beta1 * m + one_minus_beta1 * g; v = beta2 * v + one_minus_beta2 * g * g; "
    "theta -= lr * c1 * m / (sqrt(v * c2) + eps);"
)
ADAMW_RULE = "theta -= lr * weight_decay * theta; " + ADAM_RULE
ADAM_PARAMS = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
ADAM_LIMITS = {"beta1": "[0, 1)", "beta2": "[0, 1)", "eps": "(0, inf)"}

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
    limits={"mu": "[0, 1)"},
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
    limits={"mu": "[0, 1)"},
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
    scalars=_corrections,
    scalar_names=("c1", "c2"),
    params=ADAM_PARAMS,
    limits=ADAM_LIMITS,
)
adamw = Optimizer(
    "adamw",  # Loshchilov & Hutter (2019)
    rule=_adamw,
    cuda_rule=ADAMW_RULE,
    slots=("m", "v"),
    scalars=_corrections,
    scalar_names=("c1", "c2"),
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
COUNTED: dict[str, Any] = {"scalars": _corrections, "scalar_names": ("c1", "c2")}
muon = Optimizer(
    # Jordan (2024), https://kellerjordan.github.io/posts/muon: every layer's W but the last one's
    # moves by O · lr · √max(1, n_out / n_in), O orthogonal; the rest as by AdamW with rest · lr
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
            "turn",
            rule=_turn,
            cuda_rule="theta -= lr * (o + weight_decay * theta);",
            slots=("m", "o"),
            params={"weight_decay": 0.01},
            **COUNTED,
        ),
    ),
    **COUNTED,
)

OPTIMIZERS = table(sgd, momentum, nesterov, rmsprop, adam, adamw, lion, muon)
NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)  # Jordan's: σ ← aσ + bσ³ + cσ⁵, steepest at 0
NEWTON_SCHULZ_STEPS = 5  # odd, so that the result is where the matrix was
LEAST_NORM = 1e-7  # of a matrix that is made orthogonal, as in torch
