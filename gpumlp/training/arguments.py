"""What `Trainer` checks of its arguments, beside `gpumlp.checks`."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp import checks
from gpumlp.backends import Backend
from gpumlp.functions import Optimizer
from gpumlp.network import MLP, check_kind


def network(net: Any) -> MLP:
    """The argument `net`, if it is a network."""
    check_kind(net, "net", MLP)
    found: MLP = net
    return found


def slot_type(net: MLP, optimizer: Optimizer, precision: str | None) -> np.dtype[Any]:
    """The dtype of the optimizer's state, if the backend and the optimizer have this precision."""
    backend = net.backend
    if precision is None:
        return backend.dtype
    if precision != "bfloat16":
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
