"""Blocks: what the layers of a network have beside their product and their activation."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.functions.activations import Activation, identity
from gpumlp.functions.entry import lookup
from gpumlp.functions.stages import GATES, NORMS, Stage, gate


@dataclass(frozen=True)
class Block:
    """The stages of one layer: h = s + D(f(W N(x) + b)), with any of s, D and N.

    Attributes:
        norm: N, of the layer's input; None for none.
        gate: takes the place of f and halves its input, so W has twice as many rows; None for none.
        dropout: the probability with which D sets an output to 0 in a training.
        skip: how many layers below the output is that s adds; 0 for no s.
        projects: whether s is a linear layer of that output, because its width differs.
    """

    norm: Stage | None = None
    gate: Stage | None = None
    dropout: float = 0.0
    skip: int = 0
    projects: bool = False

    @property
    def plain(self) -> bool:
        """Whether the layer has none of these."""
        return self == Block()


def blocks(
    widths: Sequence[int], norm: Any, dropout: Any, residual: Any, gated: Any
) -> tuple[Block, ...]:
    """The blocks of layers 1 … L, for the arguments of `MLP`, checked; empty if all are plain."""
    hidden = len(widths) - 2
    given = {"norm": norm, "dropout": dropout, "residual": residual, "gated": gated}
    for name, value in given.items() if hidden == 0 else ():
        if _says(value):
            raise ValueError(
                f"{name}={value!r} needs hidden layers, and widths {list(widths)} has none; leave "
                "it out, or give the width of a hidden layer between them"
            )
    norms = [None, *_each(norm, hidden, "norm", lambda each: lookup(NORMS, "norm", each))]
    gates = [*_each(gated, hidden, "gated", lambda each: gate(lookup(GATES, "gated", each)))]
    drops = [_probability(each) for each in _listed(dropout, hidden, "dropout")]
    skips = _skips(residual, hidden)
    found = []
    for k in range(1, len(widths)):
        inner = k <= hidden  # the output layer has only a norm
        skip = skips[k - 1] if inner else 0
        found.append(Block(
            norms[k - 1], gates[k - 1] if inner else None, drops[k - 1] if inner else 0.0, skip,
            bool(skip) and widths[k - skip] != widths[k],
        ))  # fmt: skip
    return () if all(each.plain for each in found) else tuple(found)


def _listed(value: Any, hidden: int, name: str) -> list[Any]:
    """One value for each hidden layer."""
    if not isinstance(value, (list, tuple)):
        return [value] * hidden
    if len(value) != hidden:
        raise ValueError(
            f"{name} has {len(value)} entries but there are {hidden} hidden layers; give one for "
            "all, or one for each"
        )
    return list(value)


def _each(value: Any, hidden: int, name: str, entry: Any) -> list[Any]:
    return [None if each is None else entry(each) for each in _listed(value, hidden, name)]


def _probability(value: Any) -> float:
    number = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
    if not number or not 0 <= value < 1:
        raise ValueError(f"dropout must be a number from 0 to below 1, as 0.1; got {value!r}")
    return float(value)


def _skips(residual: Any, hidden: int) -> list[int]:
    """How far each hidden layer's skip reaches; 0 for none.  The first layer has none."""
    if isinstance(residual, (list, tuple)):
        each = _listed(residual, hidden, "residual")
        if not all(isinstance(one, (bool, np.bool_)) for one in each) or (each and each[0]):
            raise ValueError(
                "residual as a list has True or False for each hidden layer, and False for the "
                f"first, whose input are the data; got {residual!r}"
            )
        return [int(one) for one in each]
    if isinstance(residual, (bool, np.bool_)) or residual is None:
        r = int(bool(residual))
    elif isinstance(residual, (int, np.integer)) and residual >= 0:
        r = int(residual)
        if 1 < r >= hidden:
            raise ValueError(
                f"residual={r} needs {r + 1} hidden layers or more, but there are {hidden}; pass "
                "residual=False, True for a skip over each, or a smaller number"
            )
    else:
        raise ValueError(
            "residual must be True, False, a number of layers that each skip spans, or a list with "
            f"one for each hidden layer; got {residual!r}"
        )
    return [r if r and k > r and (k - 1) % r == 0 else 0 for k in range(1, hidden + 1)]


def config(of: Sequence[Block]) -> dict[str, Any]:
    """The arguments of `MLP` for these blocks, in JSON types; empty if all are plain."""
    hidden, last = of[:-1], of[1:]
    skips = [each.skip for each in hidden]
    r = max(skips, default=0)
    found = {
        "norm": [each.norm and each.norm.spec() for each in last],
        "dropout": [each.dropout for each in hidden],
        "gated": [each.gate and each.gate.cuda_f.spec() for each in hidden],  # type: ignore[union-attr]
        "residual": r if r > 1 else [bool(each) for each in skips],
    }
    return {name: value for name, value in found.items() if _says(value)}


def _says(value: Any) -> bool:
    """Whether the value of an argument differs from its default."""
    return any(value) if isinstance(value, (list, tuple)) else bool(value)


def described(of: Sequence[Block]) -> list[str]:
    """What the layers have, for `repr`: "layer norm", "gate of silu", "dropout 0.1", "skips"."""
    norms = [f"{each.norm.name} norm" for each in of if each.norm]
    gates = [each.gate.name for each in of if each.gate]
    drops = [f"dropout {each.dropout:g}" for each in of if each.dropout]
    skips = ["skips" for each in of if each.skip]
    return list(dict.fromkeys([*norms, *gates, *drops, *skips]))


def activations(f: Sequence[Activation], of: Sequence[Block]) -> tuple[Activation, ...]:
    """f[0] … f[L]: the identity where a gate takes the place of f."""
    gated = [None, *(each.gate for each in of)] if of else [None] * len(f)
    return tuple(identity if g else one for one, g in zip(f, gated, strict=True))
