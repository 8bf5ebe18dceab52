"""Groups of parameters with their own learning rate and weight decay: regions of the flat θ."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from gpumlp import checks
from gpumlp.backends import Backend
from gpumlp.functions import OPTIMIZERS, Optimizer
from gpumlp.io.types import Array
from gpumlp.parameters import Layout

NAMES = ("weights", "biases", "first", "last")


@dataclass(frozen=True)
class Group:
    """What the learning rate and the weight decay are multiplied by in a group of parameters.

    Args:
        lr: of the learning rate, the schedule's included; 0 leaves the group as it is.
        decay: of the optimizer's weight_decay, such as adamw and lion have.

    Raises:
        ValueError, TypeError: one of them is no number from 0 up.
    """

    lr: float = 1.0
    decay: float = 1.0

    def __post_init__(self) -> None:
        for name in ("lr", "decay"):
            value = checks.positive_number(getattr(self, name), name, least=0)
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Region:
    """The entries from `begin` to `end` of the flat θ, and their group's multipliers."""

    begin: int
    end: int
    lr: float
    decay: float


def checked(groups: Any, optimizer: Optimizer) -> dict[str, Group]:
    """The groups that say anything, by name.

    Raises:
        ValueError, TypeError: `groups` is no mapping of `NAMES` to groups, or the optimizer has no
            weight decay to multiply.
    """
    if groups is None:
        return {}
    if not isinstance(groups, Mapping):
        example = 'groups={"biases": gpumlp.Group(lr=2.0)}'
        raise TypeError(f"groups must be a mapping, e.g. {example}, got {type(groups).__name__}")
    for name, group in groups.items():
        if name not in NAMES:
            close = difflib.get_close_matches(str(name), NAMES, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"unknown group {name!r}; {hint}known: {', '.join(NAMES)}")
        if not isinstance(group, Group):
            raise TypeError(
                f"groups[{name!r}] must be a gpumlp.Group, got {type(group).__name__}; pass "
                "gpumlp.Group(lr=…, decay=…)"
            )
        if group.decay != 1 and "weight_decay" not in optimizer.params:
            having = ", ".join(n for n, o in OPTIMIZERS.items() if "weight_decay" in o.params)
            raise ValueError(
                f"groups[{name!r}] multiplies weight_decay, which {optimizer.name} does not have; "
                f"use one of {having}, or the network's regularizer"
            )
    return {name: group for name, group in groups.items() if group != Group()}


def regions(layout: Layout, groups: Mapping[str, Group]) -> list[Region]:
    """θ from W[1] to b[L], neighbours with the same multipliers as one: six at most."""
    depth = len(layout.widths) - 1
    found: list[Region] = []
    for i, (begin, end) in enumerate(pairwise(layout.starts)):
        of = ["weights" if i < depth else "biases"]
        of += [name for name, k in (("first", 0), ("last", depth - 1)) if i % depth == k]
        here = [groups[name] for name in of if name in groups]
        lr, decay = (1.0 * math.prod(getattr(g, a) for g in here) for a in ("lr", "decay"))
        if found and (found[-1].lr, found[-1].decay) == (lr, decay):
            begin = found.pop().begin
        found.append(Region(begin, end, lr, decay))
    return found


def rates(layout: Layout, groups: Mapping[str, Group]) -> set[float]:
    """What the learning rate of the weights is multiplied by."""
    return {region.lr for region in regions(layout, groups) if region.begin < layout.split}


def table(backend: Backend, within: list[Region], begin: int, end: int) -> Array | None:
    """What `Backend.update` takes for θ[begin:end]: rows of (end, lr, decay), or None for all 1."""
    rows = [
        (min(r.end, end) - begin, r.lr, r.decay) for r in within if begin < r.end and r.begin < end
    ]
    if all(row[1:] == (1.0, 1.0) for row in rows):
        return None
    return backend.asarray(np.array(rows), dtype=np.float64)
