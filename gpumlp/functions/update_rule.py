"""Optimizer: a rule that moves one parameter θ by its gradient g, elementwise over the flat θ.

A rule reads and writes θ and its slots in place.  If θ, g and the slots are 0, they must stay 0,
because the flat buffer has padding.

The CUDA rule has the same statements over the references `theta` and the slots' names.  It can read
`g`, `lr`, the scalars, the entry's parameters and, for a parameter p, one_minus_p, all `real`.
In groups of parameters, `lr` is that of the group, and so is a parameter named weight_decay.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from gpumlp.functions.entry import Entry

Scalars = dict[str, float]
BLOCK = 256  # steps whose scalars are computed together


_OF_ARRAYS: set[Callable[..., Any]] = set()


def of_arrays(scalars: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function `scalars` that also takes an array of steps t."""
    _OF_ARRAYS.add(scalars)
    return scalars


def _no_scalars(t: int, **params: float) -> Scalars:
    return {}


def _plain(lr: float, decay: float, **params: float) -> tuple[float, float]:
    return 1.0, 0.0


@dataclass(frozen=True, repr=False)
class Optimizer(Entry):
    """One update rule, with NumPy and CUDA statements side by side.

    Attributes:
        rule: ``rule(theta, g, lr, **slots, **scalars, **params)``, in place; g may be overwritten.
        cuda_rule: the same in CUDA statements.
        slots: names of the state of each parameter; all are zero at first.
        scalars: ``scalars(t, **params)``: numbers that depend only on the step t = 1, 2, …, such
            as Adam's bias corrections, computed once per step on the host.
        scalar_names: the names that `scalars` returns, in order.
        lr: the default learning rate.
        fold: the array to which the product that computes g of the weights may add it, which is
            then their whole update: "theta", or the slot of a rule θ ← θ − lr slot; "" if the rule
            must read g.
        factors: ``factors(lr, decay, **params)``: (α, β) of x ← α g + β x for the x that `fold`
            names; decay: λ of a regulariser whose gradient is λθ.
        orthogonal: None if the rule moves all of θ.  Else two rules for the W of the hidden layers:
            the first writes a direction to the last slot, `Backend.orthogonalize` makes it
            orthogonal, and the second moves W along it.  They have as many slots, by their own
            names, the same scalars, and a subset of the parameters.
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
        """Return the two rules of `orthogonal`, with the parameters of this entry."""
        rules = self.orthogonal or ()
        return [rule.set(**{key: self.params[key] for key in rule.params}) for rule in rules]

    def squares(self) -> list[str]:
        """The slots that are never negative: of a negative number there the rule makes NaN.

        None with `orthogonal`, whose rules write something else to the slots of their W.
        """
        found = []
        for name in () if self.orthogonal else self.slots:
            theta, g = np.zeros(1), np.zeros(1)
            slots = {each: np.full(1, -1.0 if each == name else 0.0) for each in self.slots}
            with np.errstate(invalid="ignore"):
                self.rule(
                    theta, g, lr=1.0, **slots, **self.scalars(1, **self.params), **self.params
                )
            found += [name] * bool(np.isnan(theta[0]))
        return found

    def control(self, lr: float, t: int) -> tuple[float, ...]:
        """Return the numbers of a step in the order of the kernel: lr, the scalars, t."""
        scalars = self.scalars(t, **self.params)
        return (lr, *(scalars[name] for name in self.scalar_names), t)

    def scalars_of(self, steps: range) -> np.ndarray[Any, Any]:
        """The scalars of some steps, float64, (len(steps), len(scalar_names))."""
        names, params = self.scalar_names, self.params
        if not (names and steps):
            return np.empty((len(steps), len(names)))
        if self.scalars in _OF_ARRAYS:
            known, last = tuple(params.items()), steps.stop - 1
            blocks = range(steps.start // BLOCK, last // BLOCK + 1)
            whole = [_block(self.scalars, names, known, i) for i in blocks]
            start = steps.start % BLOCK
            table = whole[0] if len(whole) == 1 else np.concatenate(whole)
            return table[start : start + len(steps)]
        table = np.empty((len(steps), len(names)))
        for row, t in zip(table, steps, strict=True):
            scalars = self.scalars(t, **params)
            row[:] = [scalars[name] for name in names]
        return table

    def cuda(self) -> str:
        """Return CUDA source of ``void rule(real& theta, real* slot, real g, const real* control,
        real lr_factor, real decay_factor)``; the factors are those of a group of parameters.
        """
        if not self.cuda_rule:
            raise ValueError(
                f'optimizer {self.name!r} has no CUDA rule; give cuda_rule, or use backend="numpy"'
            )
        numbers = ("lr", *self.scalar_names)
        values = {name: f"control[{i}]" for i, name in enumerate(numbers)}
        for key, value in self.params.items():
            values[key] = f"real({value!r})"
            # in float32, 1 − β would lose half of the digits
            values[f"one_minus_{key}"] = f"real({1 - value!r})"
        factors = {"lr": "lr_factor * ", "weight_decay": "decay_factor * "}
        lines = {name: f"real& {name} = slot[{i}];" for i, name in enumerate(self.slots)}
        for name, expression in values.items():
            lines[name] = f"const real {name} = {factors.get(name, '')}{expression};"
        words = set(re.findall(r"\w+", self.cuda_rule))  # the compiler warns of unused names
        definitions = " ".join(line for name, line in lines.items() if name in words)
        return (
            f"enum {{ SLOTS = {len(self.slots)}, NUMBERS = {len(numbers)} }};\n"
            "__device__ void rule(real& theta, real* slot, real g, const real* control,\n"
            "                     real lr_factor, real decay_factor) {\n"
            f"    {definitions}\n    {self.cuda_rule}\n}}\n"
        )


@lru_cache(maxsize=64)
def _block(
    scalars: Callable[..., Any],
    names: tuple[str, ...],
    params: tuple[tuple[str, float], ...],
    i: int,
) -> np.ndarray[Any, Any]:
    """The scalars of the steps i BLOCK, …; fits of several networks, and all epochs, share them."""
    # integers of Python, for equal bits; of step 0, which does not occur, those of step 1
    steps = [max(1, t) for t in range(i * BLOCK, (i + 1) * BLOCK)]
    columns = scalars(np.array(steps, object), **dict(params))
    table = np.array([columns[name] for name in names], float).T
    table.flags.writeable = False
    return table
