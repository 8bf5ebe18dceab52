"""Stages: what a layer does to rows beside product and activation, such as a norm or a gate.

A stage maps rows x (m, n) to rows y and may have parameters φ, (p, n): p rows like x.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gpumlp.functions.activations import ACTIVATIONS, Activation
from gpumlp.functions.entry import Array, Entry, table


@dataclass(frozen=True, repr=False)
class Stage(Entry):
    """One stage, with NumPy expressions and the name of its CUDA file side by side.

    Attributes:
        forward: ``forward(x, phi, **params) -> y``: each row of y depends on that row of x alone.
        vjp: ``vjp(x, phi, gy, **params) -> (gx, dphi)``: the products of gy = ∂J/∂y with the
            Jacobians; dphi, (p, n), is a sum over the rows, or None without φ.
        initial: the value with which each row of φ begins; empty without φ.
        halves: y has half the columns of x.
        cuda_file: the file in `kernels/` with its kernels `stage` and `stage_gradient`.
        cuda_f: of a gate, the entry of the activation f in a ⊙ f(b).
    """

    forward: Callable[..., Array]
    vjp: Callable[..., tuple[Array, Array | None]]
    initial: tuple[float, ...] = ()
    halves: bool = False
    cuda_file: str = ""
    cuda_f: Activation | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return super().__reduce__() if self.cuda_f is None else (gate, (self.cuda_f,))

    def cuda(self) -> str:
        """Return CUDA source of what the kernels of `cuda_file` call."""
        if self.cuda_f is not None:
            return self.cuda_f.cuda()
        constants = self.cuda_constants().replace("const real", "constexpr real")
        return f"{constants}enum {{ PARAMETERS = {len(self.initial)} }};\n"


def _normalized(x: Array, eps: float, centred: bool) -> tuple[Array, Array]:
    """x̂ and 1/σ (m, 1), in x's type; the statistics are computed in float32 or wider."""
    wide = x.astype(np.promote_types(x.dtype, np.float32), copy=False)
    if centred:
        wide = wide - wide.mean(axis=-1, keepdims=True)
    scale = 1 / np.sqrt(np.square(wide).mean(axis=-1, keepdims=True) + eps)
    return wide * scale, scale


def _norm(centred: bool) -> tuple[Callable[..., Array], Callable[..., tuple[Array, Array]]]:
    def forward(x: Array, phi: Array, eps: float) -> Array:
        y = _normalized(x, eps, centred)[0] * phi[0]
        return y + phi[1] if centred else y

    def vjp(x: Array, phi: Array, gy: Array, eps: float) -> tuple[Array, Array]:
        normal, scale = _normalized(x, eps, centred)
        g = gy * phi[0]
        gx = g - normal * (g * normal).mean(axis=-1, keepdims=True)
        if centred:
            gx -= g.mean(axis=-1, keepdims=True)
        sums = [(gy * normal).sum(axis=-2)] + [gy.sum(axis=-2)] * centred
        return gx * scale, np.stack(sums)

    return forward, vjp


NORM = {"params": {"eps": 1e-5}, "limits": {"eps": "(0, inf)"}, "cuda_file": "norm.cu"}
layer_norm = Stage(
    "layer",  # Ba, Kiros & Hinton (2016): (x − mean) / √(variance + ε) ⊙ γ + β
    *_norm(centred=True),
    initial=(1.0, 0.0),
    **NORM,  # type: ignore[arg-type]
)
rms_norm = Stage(
    "rms",  # Zhang & Sennrich (2019): x / √(mean of x² + ε) ⊙ γ
    *_norm(centred=False),
    initial=(1.0,),
    **NORM,  # type: ignore[arg-type]
)
NORMS = table(layer_norm, rms_norm)


@cache
def gate(f: Activation) -> Stage:
    """The gated linear unit a ⊙ f(b) of rows (a | b), Dauphin et al. (2017), Shazeer (2020).

    ValueError: f is not elementwise.
    """
    if not f.elementwise:
        raise ValueError(f"a gate must be elementwise, and {f.name} is not; use silu, for example")
    df = f.df
    assert df is not None

    def forward(x: Array, phi: None) -> Array:
        a, b = np.split(x, 2, axis=-1)
        return a * f.f(b, **f.params)

    def vjp(x: Array, phi: None, gy: Array) -> tuple[Array, None]:
        a, b = np.split(x, 2, axis=-1)
        h = f.f(b, **f.params)
        return np.concatenate([gy * h, gy * a * df(b, h, **f.params)], axis=-1), None

    return Stage(f"gate of {f.name}", forward, vjp, halves=True, cuda_file="gate.cu", cuda_f=f)


GATES = {name: f for name, f in ACTIVATIONS.items() if f.elementwise}
