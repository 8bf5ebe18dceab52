"""Networks with blocks, for tests: random ones, and the same function in torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp import MLP

ACTIVATIONS = ("relu", "gelu", "tanh", "silu")
GATES = ("silu", "gelu", "sigmoid")
MANY: dict[str, Any] = {
    "norm": ["layer", "rms", "layer"], "dropout": [0.2, 0.0, 0.5], "residual": True,
    "gated": [None, "silu", None],
}  # fmt: skip
WIDTHS = [6, 8, 8, 11, 3]  # with which MANY has a skip that keeps the width, and one that projects


def random_network(seed: int, backend: Any = "numpy", precision: str = "float64") -> MLP:
    """A network of random depth, odd widths and blocks, away from its first parameters."""
    rng = np.random.default_rng(seed)
    L = int(rng.integers(2, 13))
    widths = [*rng.integers(1, 10, L).tolist(), 3]
    blocks: dict[str, Any] = {}
    if rng.random() < 0.7:
        blocks["norm"] = [rng.choice(["layer", "rms", None]) for _ in range(L - 1)]
    if rng.random() < 0.7:
        blocks["residual"] = [True, 2, 3, [False, *(rng.random(L - 2) < 0.5).tolist()]][
            rng.integers(4)
        ]
    if rng.random() < 0.6:
        blocks["gated"] = [rng.choice([*GATES, None, None]) for _ in range(L - 1)]
    f = [str(rng.choice(ACTIVATIONS)) for _ in range(L - 1)]
    net = MLP(widths, f, backend=backend, precision=precision, seed=seed, **blocks)
    net.assign({k: v + 0.3 * rng.normal(size=v.shape) for k, v in net.tensors().items()})
    return net


def outputs_in_torch(net: MLP, p: dict[str, Any], x: Any) -> list[Any]:
    """h[0] … h[L] of tensors p by the names of `MLP.tensors`, in the functions of torch."""
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
            if block.norm.name == "layer":
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
