"""Optimizer: a rule that moves one parameter θ by its gradient g, elementwise over the flat θ.

A rule reads and writes θ and its slots in place.  It must leave θ = 0 with g = 0 and slots 0 as
it is, since the flat buffer has padding.  Whatever depends on the step number alone, such as
Adam's bias corrections, is computed once a step on the host by `scalars` and handed in.

The CUDA rule is the same statements over references `theta` and the slots' names, with `g`, `lr`,
the scalars, the entry's parameters and, for a parameter p, one_minus_p in scope, all `real`.

In groups of parameters `lr` is the group's own, and so is a parameter of the name weight_decay.
Muon is two rules in one entry: its own moves what is no hidden layer's matrix, `orthogonal` these.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from gpumlp.functions.entry import Entry

Scalars = dict[str, float]


def _no_scalars(t: int, **params: float) -> Scalars:
    return {}


def _plain(lr: float, decay: float, **params: float) -> tuple[float, float]:
    return 1.0, 0.0


@dataclass(frozen=True, repr=False)
class Optimizer(Entry):
    """One update rule, NumPy and CUDA side by side.

    Attributes:
        rule: ``rule(theta, g, lr, **slots, **scalars, **params)``, in place; g may be overwritten.
        cuda_rule: the same as CUDA statements.
        slots: names of the state kept for each parameter, all zero at first.
        scalars: ``scalars(t, **params)``: what depends on the step number t = 1, 2, … alone.
        scalar_names: the names that `scalars` returns, in order.
        lr: a usual learning rate, the default where none is given.
        fold: what g of the weights may be added to within the product that computes it, which is
            then the whole of the rule for it: "theta", or the slot that the rule is θ ← θ − lr slot
            of; "" where the rule must see g.
        factors: ``factors(lr, decay, **params)``: (α, β) of x ← α g + β x for the x that `fold`
            names; decay: λ of a regulariser whose gradient is λθ.
        orthogonal: None where the rule moves all of θ.  Else two rules that move the hidden layers'
            W in its place: the first leaves a direction in the last slot, which
            `Backend.orthogonalize` makes orthogonal and the second moves W by.  They have these
            slots, by names of their own, these scalars, and of these parameters what they name.
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
        """The two rules of `orthogonal`, with this entry's parameters."""
        rules = self.orthogonal or ()
        return [rule.set(**{key: self.params[key] for key in rule.params}) for rule in rules]

    def control(self, lr: float, t: int) -> tuple[float, ...]:
        """The step's numbers in the order that the kernel reads them: lr, the scalars, t."""
        scalars = self.scalars(t, **self.params)
        return (lr, *(scalars[name] for name in self.scalar_names), t)

    def cuda(self) -> str:
        """CUDA source of ``void rule(real& theta, real* slot, real g, const double* control,
        real lr_factor, real decay_factor)``; the factors are those of a group of parameters.
        """
        if not self.cuda_rule:
            raise ValueError(
                f"optimizer {self.name!r} has no CUDA rule; give cuda_rule, or use the NumPy backend"
            )
        words = set(re.findall(r"\w+", self.cuda_rule))  # a name that none reads is a warning
        slots = " ".join(
            f"real& {name} = slot[{i}];" for i, name in enumerate(self.slots) if name in words
        )
        names = ("lr", *self.scalar_names)
        factor = {"lr": "lr_factor * "}
        scalars = " ".join(
            f"const real {name} = {factor.get(name, '')}real(control[{i}]);"
            for i, name in enumerate(names)
            if name in words
        )
        unread = {key for key in self.params if key not in words}
        constants = self.cuda_constants(leave_out=[*unread, "weight_decay"])
        if "weight_decay" in words:
            decay = self.params["weight_decay"]
            constants += f"const real weight_decay = decay_factor * real({decay!r}); "
        # 1 − β loses half of float32's digits if it is taken there
        rests = " ".join(
            f"const real one_minus_{key} = real({1 - value!r});"
            for key, value in self.params.items()
            if f"one_minus_{key}" in words
        )
        return (
            f"enum {{ SLOTS = {len(self.slots)}, NUMBERS = {len(names)} }};\n"
            "__device__ void rule(real& theta, real* slot, real g, const double* control,\n"
            "                     real lr_factor, real decay_factor) {\n"
            f"    {slots} {scalars} {constants}{rests}\n    {self.cuda_rule}\n}}\n"
        )
