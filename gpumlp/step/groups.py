"""Groups of parameters with their own learning rate and weight decay: regions of the flat θ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from gpumlp import checks
from gpumlp.errors import did_you_mean
from gpumlp.functions import OPTIMIZERS, Optimizer
from gpumlp.io.types import HostArray
from gpumlp.parameters import WEIGHTS, Layout

NAMES = ("weights", "biases", "embeddings", "first", "last")


@dataclass(frozen=True)
class Group:
    """The factors of the learning rate and the weight decay in a group of parameters.

    Args:
        lr: the factor of the learning rate, schedule included; 0 leaves the group unchanged.
        decay: the factor of the optimizer's weight_decay, which adamw and lion, for example, have.

    Raises:
        ValueError, TypeError: one of them is not a number of 0 or more.
    """

    lr: float = 1.0
    decay: float = 1.0

    def __post_init__(self) -> None:
        for name in ("lr", "decay"):
            value = checks.positive_number(getattr(self, name), name, least=0)
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Region:
    """The entries from `begin` to `end` of the flat θ, and the factors of their group."""

    begin: int
    end: int
    lr: float
    decay: float


def checked(groups: Any, optimizer: Optimizer, layout: Layout) -> dict[str, Group]:
    """The groups that change anything, by name.

    In a network with blocks, "biases" has no weight decay unless `groups` has "biases": to shrink
    what multiplies a normalised input only makes the network slower to learn.

    Raises:
        ValueError, TypeError: `groups` is not a mapping from `NAMES` to groups, or the optimizer
            has no weight decay to multiply.
    """
    decays = "weight_decay" in optimizer.params
    default = {"biases": Group(decay=0.0)} if layout.blocks and decays else {}
    groups = {} if groups is None else groups
    if not isinstance(groups, Mapping):
        example = 'groups={"biases": gpumlp.Group(lr=2.0)}'
        raise TypeError(f"groups must be a mapping, e.g. {example}, got {type(groups).__name__}")
    for name, group in groups.items():
        if name not in NAMES:
            hint = did_you_mean(str(name), NAMES)
            raise ValueError(f"unknown group {name!r}; {hint}known: {', '.join(NAMES)}")
        if name == "embeddings" and layout.embed is None:
            raise ValueError(
                'this network has no embeddings; leave out groups["embeddings"], or build the '
                "network with embed={…}"
            )
        if not isinstance(group, Group):
            raise TypeError(
                f"groups[{name!r}] must be a gpumlp.Group, got {type(group).__name__}; pass "
                "gpumlp.Group(lr=…, decay=…)"
            )
        if group.decay != 1 and not decays:
            having = ", ".join(n for n, o in OPTIMIZERS.items() if "weight_decay" in o.params)
            raise ValueError(
                f"groups[{name!r}] multiplies weight_decay, which {optimizer.name} does not have; "
                f"use one of {having}, or the network's regularizer"
            )
    return {name: group for name, group in {**default, **groups}.items() if group != Group()}


def spec(groups: Mapping[str, Group]) -> dict[str, float]:
    """The factors as JSON can hold them: "biases.lr", "biases.decay", …"""
    factors = {name: asdict(group) for name, group in groups.items()}
    return {f"{name}.{of}": value for name in factors for of, value in factors[name].items()}


def regions(layout: Layout, groups: Mapping[str, Group]) -> list[Region]:
    """θ from its first part to its last: neighbours with the same factors are one region.

    P belongs to "weights", φ and c to "biases", and the tables of embeddings to "embeddings" alone.
    """
    depth = len(layout.widths) - 1
    found: list[Region] = []
    for part, (begin, end) in zip(layout.parts, pairwise(layout.starts), strict=True):
        if part.name == "s":
            continue
        names = ["embeddings"]
        if part.name != "E":
            names = ["weights" if part.name in WEIGHTS else "biases"]
            names += [name for name, k in (("first", 1), ("last", depth)) if part.k == k]
        own = [groups[name] for name in names if name in groups]
        lr, decay = (1.0 * math.prod(getattr(g, a) for g in own) for a in ("lr", "decay"))
        if found and (found[-1].lr, found[-1].decay) == (lr, decay):
            begin = found.pop().begin
        found.append(Region(begin, end, lr, decay))
    return found


def table(layout: Layout, groups: Mapping[str, Group], begin: int, end: int) -> HostArray | None:
    """The groups of θ[begin:end] for `Backend.update`: rows (end, lr, decay); None if all are 1."""
    rows = [
        (min(r.end, end) - begin, r.lr, r.decay)
        for r in regions(layout, groups) if begin < r.end and r.begin < end
    ]  # fmt: skip
    if all(row[1:] == (1.0, 1.0) for row in rows):
        return None
    return np.array(rows)
