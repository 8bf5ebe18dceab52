"""Networks with embeddings, their data, and what they compute in torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp import MLP
from gpumlp.functions.embeddings import Embedding, Embeddings
from gpumlp.parameters import Layout

WIDTHS, EMBED = [6, 9, 8, 3], {4: (11, 5), 1: (7, 3)}


def network(backend: Any = "numpy", precision: str = "float64", **more: Any) -> MLP:
    """Two columns of codes and four others."""
    settings = {"embed": EMBED, "seed": 1} | more
    return MLP(WIDTHS, "gelu", backend=backend, precision=precision, **settings)


def examples(m: int, embed: Any = None, n_0: int = 6, seed: int = 0) -> tuple[Any, Any]:
    """x (m, n_0), with codes in the embedded columns, and labels of three classes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(m, n_0))
    for j, (c, _) in (EMBED if embed is None else embed).items():
        x[:, j] = rng.integers(0, c, m)
    return x, rng.integers(0, 3, m)


def with_places(columns: int, embed: dict[int, tuple[int, int]]) -> Embeddings:
    """Embeddings with the places that their tables have in θ."""
    each = tuple(Embedding(j, *embed[j]) for j in sorted(embed))
    found = Layout((columns, 1), 8, embed=Embeddings(columns, each)).embeddings
    assert found is not None
    return found


def input_in_torch(net: MLP, p: dict[str, Any], x: Any) -> Any:
    """The input of layer 1, of torch's own embeddings, for tensors p by the names of `tensors`."""
    import torch

    assert net.embed is not None
    parts = [x[:, [j for j in range(net.widths[0]) if j not in net.embed.coded]]]
    for j in sorted(net.embed.coded):
        parts.append(torch.nn.functional.embedding(x[:, j].long(), p[f"embed.{j}.weight"]))
    return torch.cat(parts, dim=1)
