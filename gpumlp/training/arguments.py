"""What `Trainer` checks of its arguments, beside `gpumlp.checks`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np

from gpumlp import checks
from gpumlp.backends import Backend
from gpumlp.errors import is_one_of
from gpumlp.functions import SCHEDULES, Optimizer, Regularizer
from gpumlp.functions.entry import lookup
from gpumlp.functions.trials import tried
from gpumlp.network import MLP, check_kind
from gpumlp.step.settings import Settings

FIXED = {each.name for each in fields(Settings)}
FIXED |= {"memory", "slot_precision", "world"}  # arguments that have other names there
ASSIGNED: dict[str, Callable[[Any], Any]] = {  # what may change between two fits
    "lr": partial(checks.positive_number, name="lr"),
    "lr_factor": partial(checks.positive_number, name="lr_factor", least=0),
    "batch_size": partial(checks.positive_int, name="batch_size"),
    "schedule": lambda value: tried(lookup(SCHEDULES, "schedule", value)),
    "seed": partial(checks.positive_int, name="seed", least=0),
    "shuffle": partial(checks.boolean, name="shuffle"),
    "stop": partial(checks.boolean, name="stop"),
}

OF_A_FIT = ("batch_size", "seed", "shuffle")  # what a fit reads when it begins
WITHIN_A_FIT = [name for name in ASSIGNED if name not in OF_A_FIT]  # what callbacks may assign
running: dict[int, int] = {}  # the thread of a fit, by the ids of its trainer and its network


class Arguments:
    """A trainer's arguments, each checked whenever it is assigned."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, unless the recorded step or a running fit has what it was."""
        if name in OF_A_FIT and id(self) in running:
            raise AttributeError(
                f"{name} of a trainer cannot change during a fit; assign it before the next one"
            )
        if name in FIXED and "_step" in vars(self):
            raise AttributeError(
                f"{name} of a trainer cannot change, since its step is recorded; make a new Trainer"
            )
        super().__setattr__(name, ASSIGNED[name](value) if name in ASSIGNED else value)


def network(net: Any) -> MLP:
    """The argument `net`, if it is a network whose functions can be trained."""
    check_kind(net, "net", MLP)
    found: MLP = net
    stages = [stage for block in net.blocks for stage in (block.norm, block.gate) if stage]
    functions = [getattr(stage, "cuda_f", None) or stage for stage in stages]
    for entry in (*net.f[1:], *functions, net.loss, net.regularizer):
        tried(entry)
    if net.f[-1].name == net.loss.link.name != "identity":
        name = net.f[-1].name
        warnings.warn(
            f"{net.loss.name} takes logits and applies {name} itself, so that it is applied twice; "
            f'build the network without output_activation="{name}"', stacklevel=3,
        )  # fmt: skip
    return found


def check_recorded(net: MLP, omega: Regularizer) -> None:
    """Raise ValueError unless the network has the Ω that a trainer has recorded in its step."""
    if net.regularizer != omega:
        raise ValueError(
            f"the network has the regularizer {net.regularizer!r}, but the recorded step of this "
            f"trainer has {omega!r}; make a new Trainer, or assign this one again"
        )


def slot_type(net: MLP, optimizer: Optimizer, precision: str | None) -> np.dtype[Any]:
    """The dtype of the optimizer's state, if the backend and the optimizer have this precision."""
    backend = net.backend
    if precision is None:
        return backend.dtype
    if not is_one_of(precision, ("bfloat16",)):
        raise ValueError(f'slot_precision must be None or "bfloat16", got {precision!r}')
    if not backend.rounds_slots:
        raise ValueError(
            f'slot_precision="bfloat16" does not go with {backend.name} and '
            f'{backend.precision}; use backend="cupy" and another precision than float64, or '
            "slot_precision=None"
        )
    if optimizer.orthogonal is not None and net.L > 1:
        raise ValueError(
            f"slot_precision={precision!r} does not go with {optimizer.name}, whose products are "
            "of θ's type; use slot_precision=None"
        )
    from gpumlp.backends.cuda.source import dtype_of

    return dtype_of(precision)


def remainder(backend: Backend, value: Any) -> bool:
    """The argument `remainder` of `Trainer`, if the backend can split θ."""
    if checks.boolean(value, "remainder") and not backend.keeps_remainder:
        raise ValueError(
            f"remainder=True does not go with {backend.name} and {backend.precision}; use "
            'backend="cupy" in bfloat16, or remainder=False'
        )
    return bool(value)


def parts(accumulate: Any, batch_size: int) -> int:
    """The argument `accumulate` of `Trainer`, a whole number from 1 to `batch_size`."""
    count = checks.positive_int(accumulate, "accumulate")
    if count > batch_size:
        raise ValueError(
            f"accumulate={count} micro-batches cannot be made of batch_size={batch_size} examples; "
            "pass at most as many"
        )
    return count
