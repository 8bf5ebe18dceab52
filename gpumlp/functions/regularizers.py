"""Regularisers λΩ(θ): a sum over all parameters, times the strength of weights or of biases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gpumlp.functions.entry import Array, Entry, table


@dataclass(frozen=True, repr=False)
class Regularizer(Entry):
    """One regulariser, with NumPy and CUDA expressions side by side.

    Ω(0) and its gradient there must be 0, because the flat θ has padding.  The parameter "biases"
    is the strength for biases, relative to weights: 1 treats both equally, 0 excludes biases.

    Attributes:
        omega: ``omega(theta, **params)``: λΩ of each parameter, elementwise.
        gradient: ``gradient(theta, **params)``: the derivative of λΩ, elementwise.
        cuda_omega: the expression of λΩ in `theta`.
        cuda_gradient: the expression of its derivative in `theta`.
        decay: ``decay(**params)``: λ if the derivative is λθ, else None; None if it never is.
    """

    omega: Callable[..., Array]
    gradient: Callable[..., Array]
    cuda_omega: str = "real(0)"
    cuda_gradient: str = "real(0)"
    decay: Callable[..., float | None] | None = None

    @property
    def active(self) -> bool:
        """Whether λΩ can be other than 0."""
        return self.name != "none"

    def strengths(self) -> tuple[float, float]:
        """Return the factors of λΩ in the two regions of θ: weights, biases."""
        return 1.0, self.params.get("biases", 1.0)

    def arguments(self) -> dict[str, float]:
        """Return the parameters that the expressions use."""
        return {key: value for key, value in self.params.items() if key != "biases"}

    def weight_decay(self) -> float | None:
        """Return λ if the gradient on the weights is λθ, else None."""
        return None if self.decay is None else self.decay(**self.arguments())

    def cuda(self) -> str:
        """Return CUDA source of ``real omega(real theta)`` and ``real domega(real theta)``."""
        signatures = {"cuda_omega": "omega(real theta)", "cuda_gradient": "domega(real theta)"}
        return self._device_functions(signatures, leave_out=["biases"])


none = Regularizer("none", omega=np.zeros_like, gradient=np.zeros_like, decay=lambda: 0.0)
elastic_net = Regularizer(
    "elastic_net",  # l1·Σ|θ| + l2/2·Σθ², Zou & Hastie (2005)
    omega=lambda theta, l1, l2: l1 * np.abs(theta) + 0.5 * l2 * theta * theta,
    gradient=lambda theta, l1, l2: l1 * np.sign(theta) + l2 * theta,
    cuda_omega="l1 * fabs(theta) + real(0.5) * l2 * theta * theta",
    cuda_gradient="l1 * sign(theta) + l2 * theta",
    decay=lambda l1, l2: l2 if l1 == 0 else None,
    params={"l1": 0.0, "l2": 1e-4, "biases": 1.0},
    limits={"l1": "[0, inf)", "l2": "[0, inf)", "biases": "[0, inf)"},
)
l1 = Regularizer(
    "l1",
    omega=lambda theta, lam: lam * np.abs(theta),
    gradient=lambda theta, lam: lam * np.sign(theta),
    cuda_omega="lam * fabs(theta)",
    cuda_gradient="lam * sign(theta)",
    params={"lam": 1e-4, "biases": 1.0},
    limits={"lam": "[0, inf)", "biases": "[0, inf)"},
)
l2 = Regularizer(
    "l2",
    omega=lambda theta, lam: 0.5 * lam * theta * theta,
    gradient=lambda theta, lam: lam * theta,
    cuda_omega="real(0.5) * lam * theta * theta",
    cuda_gradient="lam * theta",
    decay=lambda lam: lam,
    params={"lam": 1e-4, "biases": 1.0},
    limits={"lam": "[0, inf)", "biases": "[0, inf)"},
)

REGULARIZERS = table(none, l1, l2, elastic_net)


def ElasticNet(  # noqa: N802  (public names: L1, L2, ElasticNet)
    l1: float = 0.0, l2: float = 1e-4, biases: bool | float = True
) -> Regularizer:
    """λΩ(θ) = l1·Σ|θ| + l2/2·Σθ²; `biases`: True, False, or the strength for biases."""
    return elastic_net.set(l1=l1, l2=l2, biases=_strength(biases))


def L1(lam: float = 1e-4, biases: bool | float = True) -> Regularizer:  # noqa: N802
    """λΩ(θ) = lam·Σ|θ|."""
    return l1.set(lam=lam, biases=_strength(biases))


def L2(lam: float = 1e-4, biases: bool | float = True) -> Regularizer:  # noqa: N802
    """λΩ(θ) = lam/2·Σθ²."""
    return l2.set(lam=lam, biases=_strength(biases))


def _strength(biases: bool | float) -> float:
    return float(biases) if isinstance(biases, (bool, np.bool_)) else biases
