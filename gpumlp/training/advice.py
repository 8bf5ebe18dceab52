"""Advice when memory is short: the memory plan, and the settings that would fit."""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, TypeVar

from gpumlp.errors import OutOfMemoryError
from gpumlp.training.memory import MIB, Memory
from gpumlp.training.stepping import Stepping

T = TypeVar("T")
SPARE = 1 / 32  # of the free memory: allocations are rounded up, and kernels and graphs need some


def attempt(work: Callable[[], T], trainer: Stepping, plan: Callable[[Any], Memory]) -> T:
    """work(); if it needs too much memory, the error has the plan, and what would fit.

    plan(trainer) is what a trainer needs for the work.  The arrays of the failed attempt are freed.
    """
    trainer.net.backend.synchronize()
    free = trainer.net.backend.free_memory()
    try:
        return work()
    except OutOfMemoryError as error:
        drop_tracebacks(error)
        planned = plan(trainer)
        if free is None:
            raise OutOfMemoryError(f"{error}\n{planned}") from error
        usable = free - int(SPARE * free)

        def fits(**changes: Any) -> bool:
            changed = copy.copy(trainer)
            vars(changed).update(changes)
            return plan(changed).total - planned.held <= usable

        needed = f"{planned.missing / MIB:,.2f} MiB were to be allocated"
        sizes = f"{needed} and {free / MIB:,.2f} were free"
        advice = _advice(trainer, planned, fits)
        raise OutOfMemoryError(f"out of GPU memory: {sizes}\n{planned}\n{advice}") from error


def drop_tracebacks(error: BaseException) -> None:
    """Free the arrays that the tracebacks of an error would hold as long as the error lives."""
    each: BaseException | None = error
    while each is not None:
        each = each.with_traceback(None).__context__


def _advice(trainer: Stepping, planned: Memory, fits: Callable[..., bool]) -> str:
    """The settings that would fit; if no batch_size does, what else to change."""
    if fits():
        return (
            "so much was free, but in pieces, or another program or a callback has allocated it "
            "since: free it, or use a smaller batch_size"
        )

    def largest_size(most: int, of: Callable[[int], dict[str, Any]], **changes: Any) -> int:
        """The largest n of 1 … most whose settings of(n) fit; 0 if none do."""
        return bisect_right(range(1, most + 1), False, key=lambda n: not fits(**of(n), **changes))

    whole = trainer.batch_size
    rows = largest_size(trainer.at_a_time, lambda n: {"accumulate": -(-whole // n), "fold": None})
    options, largest = [f"accumulate={-(-whole // rows)}"] if rows else [], 0
    for low in sorted({trainer.low_memory, True}):
        size = largest_size(planned.batch_size, lambda n: {"batch_size": n}, low_memory=low)
        if size > largest:
            options.append(f"batch_size={size}" + ' and memory="low"' * (low > trainer.low_memory))
            largest = size
    if options:
        return f"use {', or '.join(options)}"
    return (
        f"no batch_size fits; use {', '.join([*_smaller(trainer, planned), 'a smaller network'])}"
    )


def _smaller(trainer: Stepping, planned: Memory) -> list[str]:
    """The settings that need less memory with every batch_size."""
    net, slots = trainer.net, len(trainer.optimizer.slots)
    rounds = net.backend.rounds_slots and trainer.optimizer.orthogonal is None
    options = {
        'precision="bfloat16"': net.backend.storage.itemsize > 2,
        'slot_precision="bfloat16"': slots and rounds and trainer.slot_type.itemsize > 2,
        "ema=None": trainer.ema is not None,
        "an optimizer with less state": slots > 1,
        'data="stream"': planned.data > planned.missing // 4,
    }
    return [option for option, helps in options.items() if helps]
