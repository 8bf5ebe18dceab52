"""Networks with blocks, for tests: random ones, and the same function in torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gpumlp import MLP
from gpumlp.functions.stages import NORMS, ColumnStage, Stage

ACTIVATIONS = ("relu", "gelu", "tanh", "silu")
GATES = ("silu", "gelu", "sigmoid")
ROW_NORMS = {name: norm for name, norm in NORMS.items() if not isinstance(norm, ColumnStage)}
MANY: dict[str, Any] = {
    "norm": ["layer", "rms", "layer"], "dropout": [0.2, 0.0, 0.5], "residual": True,
    "gated": [None, "silu", None],
}  # fmt: skip
WIDTHS = [6, 8, 8, 11, 3]  # with which MANY has a skip that keeps the width, and one that projects


def batch_network(seed: int, backend: Any = "numpy", precision: str = "float64") -> MLP:
    """A `random_network` with batch norm before its output layer and perhaps others.

    Of few layers with several columns: others multiply rounding errors, in torch as here.
    """
    norms = ("batch", "batch", "layer", None)
    net = random_network(seed, backend, precision, norms, layers=6, least=3)
    tensors = net.tensors()
    net.assign({k: abs(a) + 0.1 if k.endswith("_var") else a for k, a in tensors.items()})
    return net


def random_network(
    seed: int, backend: Any = "numpy", precision: str = "float64",
    norms: Sequence[str | None] = ("layer", "rms", None), layers: int = 13, least: int = 1,
) -> MLP:  # fmt: skip
    """A network of random depth, odd widths and blocks, away from its first parameters."""
    rng = np.random.default_rng(seed)
    L = int(rng.integers(2, layers))
    widths = [*rng.integers(least, 10, L).tolist(), 3]
    blocks: dict[str, Any] = {}
    if rng.random() < 0.7:
        blocks["norm"] = [rng.choice(norms) for _ in range(L - 1)]
    if "batch" in norms:
        blocks["norm"] = [*blocks.get("norm", [None] * (L - 1))[:-1], "batch"]
    if rng.random() < 0.7:
        each = [True, 2, 3, [False, *(rng.random(L - 2) < 0.5).tolist()]][rng.integers(4)]
        blocks["residual"] = True if each in (2, 3) and each >= L - 1 else each
    if rng.random() < 0.6:
        blocks["gated"] = [rng.choice([*GATES, None, None]) for _ in range(L - 1)]
    f = [str(rng.choice(ACTIVATIONS)) for _ in range(L - 1)]
    net = MLP(widths, f, backend=backend, precision=precision, seed=seed, **blocks)
    net.assign({k: v + 0.3 * rng.normal(size=v.shape) for k, v in net.tensors().items()})
    return net


def outputs_in_torch(net: MLP, p: dict[str, Any], x: Any, training: bool = False) -> list[Any]:
    """h[0] … h[L] of tensors p by the names of `MLP.tensors`, in the functions of torch.

    training: batch norm reads means over x, and changes the running ones.
    """
    import torch
    from torch.nn import functional as F  # noqa: N812  (torch's own documentation)

    f = {
        "relu": torch.relu, "gelu": lambda z: F.gelu(z, approximate="tanh"), "tanh": torch.tanh,
        "silu": F.silu, "sigmoid": torch.sigmoid, "identity": lambda z: z,
    }  # fmt: skip
    h = [x]
    for k, block in enumerate(net.blocks or [None] * net.L, 1):
        name, below = str(2 * (k - 1)), h[-1]
        if block and block.norm is not None:
            w, shape = p[f"{name}.norm.weight"], below.shape[-1:]
            if block.norm.name == "batch":
                own = (p[f"{name}.norm.{each}"] for each in ("running_mean", "running_var"))
                eps, momentum = block.norm.params["eps"], block.norm.params["momentum"]
                b = p[f"{name}.norm.bias"]
                below = F.batch_norm(below, *own, w, b, training, momentum, eps)
            elif block.norm.name == "layer":
                below = F.layer_norm(below, shape, w, p[f"{name}.norm.bias"], 1e-5)
            else:
                below = F.rms_norm(below, shape, w, 1e-5)
        z = F.linear(below, p[f"{name}.weight"], p[f"{name}.bias"])
        if block and block.gate is not None:
            a, b = z.chunk(2, dim=-1)
            out = a * f[block.gate.cuda_f.name](b)
        else:
            out = f[net.f[k].name](z)
        if block and block.skip:
            skip = h[k - block.skip]
            if block.projects:
                skip = F.linear(skip, p[f"{name}.skip.weight"], p[f"{name}.skip.bias"])
            out = out + skip
        h.append(out)
    return h


def _dyt(x: Any, phi: Any) -> Any:
    return phi[1] * np.tanh(phi[0] * x) + phi[2]


def _dyt_vjp(x: Any, phi: Any, gy: Any) -> tuple[Any, Any]:
    a = np.tanh(phi[0] * x)
    slope = gy * phi[1] * (1 - a * a)
    return slope * phi[0], np.stack([(each).sum(axis=-2) for each in (slope * x, gy * a, gy)])


DYT = Stage(  # Zhu et al. (2025): γ ⊙ tanh(α ⊙ x) + β
    "dynamic tanh", _dyt, _dyt_vjp, initial=(0.5, 1.0, 0.0),
    cuda_y="phi[1] * tanh(phi[0] * x) + phi[2]",
    cuda_gx="gy * phi[1] * phi[0] * (1 - tanh(phi[0] * x) * tanh(phi[0] * x))",
    cuda_dphi=(
        "gy * phi[1] * (1 - tanh(phi[0] * x) * tanh(phi[0] * x)) * x", "gy * tanh(phi[0] * x)",
        "gy",
    ),
)  # fmt: skip


def _unit(x: Any, phi: None, eps: float) -> Any:
    return x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + eps)


def _unit_vjp(x: Any, phi: None, gy: Any, eps: float) -> tuple[Any, None]:
    scale = 1 / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + eps)
    return scale * (gy - x * scale**2 * (gy * x).mean(axis=-1, keepdims=True)), None


UNIT_NORM = Stage(  # a row of length √n, without parameters
    "unit", _unit, _unit_vjp, cuda_means=("x * x",), cuda_y="x / sqrt(s[0] + eps)",
    cuda_slopes=("gy * x",),
    cuda_gx="(gy - x * t[0] / (s[0] + eps)) / sqrt(s[0] + eps)",
    params={"eps": 1e-3}, limits={"eps": "(0, inf)"},
)  # fmt: skip


def _column_scale(x: Any, s: Any, eps: float) -> Any:
    return x / np.sqrt(s[0] + eps)


COLUMN_RMS = ColumnStage(  # each column over its root mean square, times γ; of a user's own kind
    "column rms", lambda x, phi, s, eps, momentum: _column_scale(x, s, eps) * phi[0],
    lambda x, phi, gy, s, t, eps, momentum: (
        (gy * phi[0] - x * t[0] / (s[0] + eps)) / np.sqrt(s[0] + eps)
    ),
    initial=(1.0,),
    cuda_means=("x * x",), cuda_y="x / sqrt(s[0] + eps) * phi[0]", cuda_slopes=("gy * phi[0] * x",),
    cuda_gx="(gy * phi[0] - x * t[0] / (s[0] + eps)) / sqrt(s[0] + eps)",
    cuda_dphi=("gy * x / sqrt(s[0] + eps)",),
    means=(lambda x, s, eps, momentum: np.square(x),),
    sums=lambda x, phi, gy, s, eps, momentum: (
        (gy * phi[0] * x,), (gy * _column_scale(x, s, eps),)
    ),
    slopes=1, running=(("running_square", 1.0, False),),
    params={"eps": 1e-3, "momentum": 0.2}, limits={"eps": "(0, inf)", "momentum": "[0, 1]"},
)  # fmt: skip

BATCH_BY_MEANS = replace(  # batch norm by two means, as of a user who does not know moments
    NORMS["batch"], name="batch by means", cuda_means=NORMS["layer"].cuda_means,
    means=(lambda x, s, eps, momentum: x, lambda x, s, eps, momentum: np.square(x - s[0])),
)  # fmt: skip
