"""Stages: what a layer does to rows beside product and activation, such as a norm or a gate.

A stage maps rows x (m, n) to rows y and may have parameters φ, (p, n): p rows like x.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gpumlp.functions.activations import ACTIVATIONS, Activation
from gpumlp.functions.entry import Array, Entry, table


@dataclass(frozen=True, repr=False)
class Stage(Entry):
    """One stage, with NumPy and CUDA expressions side by side.

    The CUDA expressions are those of an entry x of a row, and of gy = ∂J/∂y.  They may read means
    over the row, s and t, and the parameters of the column, phi[0] … phi[p − 1].

    Attributes:
        forward: ``forward(x, phi, **params) -> y``: each row of y depends on that row of x alone.
        vjp: ``vjp(x, phi, gy, **params) -> (gx, dphi)``: the products of gy with the Jacobians;
            dphi, (p, n), is a sum over the rows, or None without φ.  Of a gate, it is that of gx,
            (n,), for the biases of its layer.
        initial: the value with which each row of φ begins; empty without φ.
        cuda_means: s[0], s[1], … are the means of these, in x and the s before: ("x * x",).
        cuda_y: y, in x, s and phi.
        cuda_slopes: t[0], t[1], … are the means of these, in x, gy, s and phi.
        cuda_gx: gx, in x, gy, s, t and phi.
        cuda_dphi: of each row of φ, what an entry adds to its gradient, in x, gy, s and phi.
        halves: y has half the columns of x, as that of a gate.
        cuda_f: of a gate, the entry of the activation f in a ⊙ f(b), in place of the others.
    """

    forward: Callable[..., Array]
    vjp: Callable[..., tuple[Array, Array | None]]
    initial: tuple[float, ...] = ()
    cuda_means: tuple[str, ...] = ()
    cuda_y: str = ""
    cuda_slopes: tuple[str, ...] = ()
    cuda_gx: str = ""
    cuda_dphi: tuple[str, ...] = ()
    halves: bool = False
    cuda_f: Activation | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return super().__reduce__() if self.cuda_f is None else (gate, (self.cuda_f,))

    @property
    def cuda_file(self) -> str:
        """The file in `kernels/` with its kernels `stage` and `stage_gradient`."""
        return "stage.cu" if self.cuda_f is None else "gate.cu"

    def row_functions(self) -> dict[str, str]:
        """The signatures of the functions of stage.cu and their bodies; none without CUDA."""
        if not (self.cuda_y and self.cuda_gx and len(self.cuda_dphi) == len(self.initial)):
            return {}
        of_column = "const real* s, const real* phi"
        several = {
            "row_mean(real x, const real* s)": self.cuda_means,
            f"row_slope(real x, real gy, {of_column})": self.cuda_slopes,
            f"row_dphi(real x, real gy, {of_column})": self.cuda_dphi,
        }
        found = {
            f"row_y(real x, {of_column})": f"return {self.cuda_y};",
            "row_gx(real x, real gy, const real* s, const real* t, const real* phi)":
                f"return {self.cuda_gx};",
        }  # fmt: skip
        for signature, expressions in several.items():
            each = (f"if constexpr (I == {i}) return {e}; else" for i, e in enumerate(expressions))
            found[f"template <int I> {signature}"] = " ".join([*each, "return real(0);"])
        return found

    def row_numbers(self) -> str:
        """The numbers of stage.cu as an enum."""
        numbers = len(self.initial), self.number_of_means, len(self.cuda_slopes)
        return "enum {{ PARAMETERS = {}, MEANS = {}, SLOPES = {} }};\n".format(*numbers)

    @property
    def number_of_means(self) -> int:
        """The number of s."""
        return len(self.cuda_means)

    def cuda(self) -> str:
        """Return CUDA source of what the kernels of `cuda_file` call.

        ValueError: the entry has no CUDA expressions.
        """
        if self.cuda_f is not None:
            return self.cuda_f.cuda()
        functions = self.row_functions()
        if not functions:
            raise ValueError(
                f"stage {self.name!r} has no CUDA expressions; give cuda_y, cuda_gx and, for each "
                'row of φ, cuda_dphi, for each of means cuda_means, or use backend="numpy"'
            )
        constants = self.cuda_constants(text=" ".join(functions.values()))
        constants = constants.replace("const real", "constexpr real")
        made = (_device(signature, body) for signature, body in functions.items())
        return "".join([constants, self.row_numbers(), *made])


def _device(signature: str, body: str) -> str:
    template, _, rest = signature.rpartition("> ")
    return f"{template}{'> ' if template else ''}__device__ real {rest} {{ {body} }}\n"


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


EPS: dict[str, Any] = {"params": {"eps": 1e-5}, "limits": {"eps": "(0, inf)"}}
CENTRED = "((x - s[0]) * (real(1) / sqrt(s[1] + eps)))"
SCALED = "(x * (real(1) / sqrt(s[0] + eps)))"
layer_norm = Stage(
    "layer",  # Ba, Kiros & Hinton (2016): (x − mean) / √(variance + ε) ⊙ γ + β
    *_norm(centred=True),
    initial=(1.0, 0.0),
    cuda_means=("x", "(x - s[0]) * (x - s[0])"),
    cuda_y=f"{CENTRED} * phi[0] + phi[1]",
    cuda_slopes=(f"gy * phi[0] * {CENTRED}", "gy * phi[0]"),
    cuda_gx=f"(gy * phi[0] - {CENTRED} * t[0] - t[1]) * (real(1) / sqrt(s[1] + eps))",
    cuda_dphi=(f"gy * {CENTRED}", "gy"),
    **EPS,
)
rms_norm = Stage(
    "rms",  # Zhang & Sennrich (2019): x / √(mean of x² + ε) ⊙ γ
    *_norm(centred=False),
    initial=(1.0,),
    cuda_means=("x * x",),
    cuda_y=f"{SCALED} * phi[0]",
    cuda_slopes=(f"gy * phi[0] * {SCALED}",),
    cuda_gx=f"(gy * phi[0] - {SCALED} * t[0]) * (real(1) / sqrt(s[0] + eps))",
    cuda_dphi=(f"gy * {SCALED}",),
    **EPS,
)


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

    def vjp(x: Array, phi: None, gy: Array) -> tuple[Array, Array]:
        a, b = np.split(x, 2, axis=-1)
        h = f.f(b, **f.params)
        gx = np.concatenate([gy * h, gy * a * df(b, h, **f.params)], axis=-1)
        return gx, gx.sum(axis=-2)

    return Stage(f"gate of {f.name}", forward, vjp, halves=True, cuda_f=f)


@dataclass(frozen=True, repr=False)
class ColumnStage(Stage):
    """A stage whose means are over the rows of a minibatch, one of each column.

    In a training step s and t are the means over the whole minibatch, (q, n) and (r, n).  Running
    averages of s are kept beside θ.  They take the place of s in everything else, where t is 0.

    Attributes:
        forward: ``forward(x, phi, s, **params) -> y``.
        vjp: ``vjp(x, phi, gy, s, t, **params) -> gx``.
        means: s[i] is the mean of ``means[i](x, s, **params)``, which may read the s before; x is
            read once for each, as for `cuda_means`.  Without any, s is the mean and the variance
            of each column, (2, n), for which x is read once.
        sums: ``sums(x, phi, gy, s, **params) -> (slopes, dphi)``: arrays like x; t has the means
            of the first ones, and dφ the sums of the others.
        slopes: r, the number of t.
        running: of each s its name in files, the value with which its running average begins, and
            whether that is of an estimate without bias, s m / (m − 1).
        params: with `momentum`: a step adds momentum (s − running average) to a running average.

    Raises:
        ValueError: `running` does not have each s.
    """

    means: tuple[Callable[..., Array], ...] = ()
    sums: Callable[..., tuple[tuple[Array, ...], tuple[Array, ...]]] | None = None
    slopes: int = 0
    running: tuple[tuple[str, float, bool], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.running) != (len(self.means) or 2):
            what = f"{len(self.means)} means" if self.means else "a mean and a variance"
            raise ValueError(
                f"stage {self.name!r} has {what} of columns, and running has {len(self.running)} "
                "entries; give running one entry (name, first value, unbiased) for each of them"
            )

    @property
    def number_of_means(self) -> int:
        """The number of s."""
        return len(self.running)

    @property
    def moments(self) -> bool:
        """Whether s is the mean and the variance of each column."""
        return not self.means

    @property
    def cuda_file(self) -> str:
        """The file in `kernels/` with its kernels."""
        return "columns.cu"

    def row_numbers(self) -> str:
        """Those of stage.cu, and the bits of what has no bias, as an enum."""
        bits = sum(unbiased << i for i, (*_, unbiased) in enumerate(self.running))
        return f"{super().row_numbers()}enum {{ UNBIASED = {bits} }};\n"

    def row_functions(self) -> dict[str, str]:
        """Those of stage.cu; none without CUDA, or without that of a mean."""
        missing = self.means and len(self.cuda_means) != len(self.means)
        return {} if missing else super().row_functions()

    def averaged(self, i: int, m: int) -> tuple[float, float]:
        """The factors of the running average i and of s[i], for a minibatch of m rows."""
        momentum, unbiased = self.params["momentum"], self.running[i][2]
        return 1 - momentum, momentum * (m / (m - 1) if unbiased else 1.0)


def _batch_normal(x: Array, s: Array, eps: float) -> tuple[Array, Array]:
    """x̂ and 1/σ (n,)."""
    scale = 1 / np.sqrt(s[1] + eps)
    return (x - s[0]) * scale, scale


def _batch_sums(
    x: Array, phi: Array, gy: Array, s: Array, eps: float, momentum: float
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    normal = _batch_normal(x, s, eps)[0]
    g = gy * phi[0]
    return (g * normal, g), (gy * normal, gy)


def _batch_vjp(
    x: Array, phi: Array, gy: Array, s: Array, t: Array, eps: float, momentum: float
) -> Array:
    normal, scale = _batch_normal(x, s, eps)
    return (gy * phi[0] - normal * t[0] - t[1]) * scale


batch_norm = ColumnStage(
    "batch",  # Ioffe & Szegedy (2015): (x − mean) / √(variance + ε) ⊙ γ + β of each column
    lambda x, phi, s, eps, momentum: _batch_normal(x, s, eps)[0] * phi[0] + phi[1],
    _batch_vjp,
    initial=layer_norm.initial,
    cuda_y=layer_norm.cuda_y,
    cuda_slopes=layer_norm.cuda_slopes,
    cuda_gx=layer_norm.cuda_gx,
    cuda_dphi=layer_norm.cuda_dphi,
    sums=_batch_sums,
    slopes=len(layer_norm.cuda_slopes),
    running=(("running_mean", 0.0, False), ("running_var", 1.0, True)),
    params={"eps": 1e-5, "momentum": 0.1},
    limits={"eps": "(0, inf)", "momentum": "[0, 1]"},
)
NORMS: Mapping[str, Stage] = table(layer_norm, rms_norm, batch_norm)
GATES = {name: f for name, f in ACTIVATIONS.items() if f.elementwise}
