"""The memory plan of a fit, and the advice when memory is short.

A trainer on a `DryRunBackend` allocates what a fit would allocate, and the bytes are counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from gpumlp import checks
from gpumlp.arrays import as_backend_array
from gpumlp.backends import Backend
from gpumlp.errors import OutOfMemoryError
from gpumlp.loader.examples import Examples, streams
from gpumlp.network import MLP
from gpumlp.training.callbacks import watching
from gpumlp.training.dry_run import DryRunBackend
from gpumlp.training.memory import MIB, Memory
from gpumlp.training.metrics import columns, evaluations
from gpumlp.training.stepping import Stepping

T = TypeVar("T")
INTEGERS = (int, np.integer)
SPARE = 1 / 32  # of the free memory: allocations are rounded up, and kernels and graphs need some


def memory(
    trainer: Stepping, x: Any, y: Any = None, *, allocated: bool = True, validation: Any = None,
    sample_weight: Any = None, class_weight: Any = None, early_stopping: Any = None,
    metric: Any = "auto", train_metric: bool = False, data: str = "auto", **changes: Any,
) -> Memory:  # fmt: skip
    """The plan of `Trainer.fit` with these arguments, which `Trainer.memory` documents.

    `allocated` says whether the trainer has its arrays already.  `changes` replace attributes of
    the trainer.
    """
    backend = trainer.net.backend
    dry_run = DryRunBackend(backend)
    net = trainer.net.on_other_backend(cast(Backend, dry_run))
    theta, rounded = dry_run.count([net.theta.flat]), dry_run.count([net.rounded.flat])
    of_net = dry_run.count_rest()
    planned = trainer.with_network(net, **changes)
    slots = dry_run.count([planned.slots])
    average = dry_run.count(planned.average.arrays) if planned.average is not None else 0
    work = dry_run.count(planned.updating.work)
    gradient = dry_run.count_rest()
    held = theta + rounded + of_net + backend.own_memory(0)
    held += (slots + average + work + gradient) * allocated
    weighted = sample_weight is not None or class_weight is not None
    placement = data, planned.at_a_time
    examples = _data(dry_run, trainer.net, x, y, weighted, *placement)
    validated = _validation(dry_run, trainer.net, validation, *placement)
    of_data = dry_run.count_rest()
    measured = evaluations(net, examples, validated, metric, train_metric)
    evaluation = dry_run.count_rest()
    watching(early_stopping, net, columns(measured))
    best = dry_run.count_rest()
    s = planned.batches(examples).s
    return Memory(
        len(examples.x), min(planned.batch_size, len(examples.x)), theta, rounded, gradient, slots,
        average, best, of_data + dry_run.fed, evaluation=evaluation, gz=dry_run.count(s.gz),
        h=dry_run.count([*s.h, s.y]),
        bits=dry_run.count(z for z in s.z if z is not None and z.dtype == np.uint8),
        z=dry_run.count(s.z), tables=of_net + dry_run.count_rest(),
        scratch=work + backend.own_memory(max(net.widths)), held=held,
        accumulate=planned.accumulate,
    )  # fmt: skip


def _data(
    dry_run: DryRunBackend, net: MLP, x: Any, y: Any, weighted: bool, data: str, rows: int
) -> Examples:
    """Training or validation data, from arrays or a number of examples, placed as `data` says."""
    backend, n_0, n = net.backend, net.widths[0], net.widths[-1]
    x, y = as_backend_array(x, backend, "x"), as_backend_array(y, backend, "y")
    m = checks.positive_int(x, "x") if isinstance(x, INTEGERS) else len(x)
    x = np.broadcast_to(np.zeros((), backend.storage), (m, n_0)) if isinstance(x, INTEGERS) else x
    labels = net.loss.target == "class" and (y is None or np.ndim(y) == 1)
    target = np.dtype(np.int32) if labels else backend.dtype
    if labels or y is None:
        y = np.broadcast_to(np.zeros((), target), (m,) if labels else (m, n))
    stream = streams(net, [(x, backend.storage), (y, target)], data, rows)
    if not (stream and isinstance(x, np.ndarray)):
        x = dry_run.placed(x, (m, n_0), backend.storage)
    if labels or not (stream and isinstance(y, np.ndarray)):
        y = dry_run.placed(y, (m,) if labels else (m, n), target)
    return Examples(x, y, np.broadcast_to(1.0, (m,)) if weighted else None, target)


def _validation(
    dry_run: DryRunBackend, net: MLP, validation: Any, data: str, rows: int
) -> Examples | None:
    """Validation data, from the argument of `fit` or from a number of examples."""
    if validation is None or (isinstance(validation, INTEGERS) and validation == 0):
        return None
    if isinstance(validation, INTEGERS):
        return _data(dry_run, net, validation, None, False, data, rows)
    x, y, *weights = validation
    return _data(dry_run, net, x, y, bool(weights) and weights[0] is not None, data, rows)


# ---- out of memory -------------------------------------------------------------------------------


def attempt(
    work: Callable[[], T], trainer: Stepping, x: Any, y: Any, **arguments: Any
) -> T:  # fmt: skip
    """work(); if it needs too much memory, the error has the plan, and what would fit.

    The arrays of the failed attempt are freed.  x, y and `arguments` are arguments of `memory`.
    """
    trainer.net.backend.synchronize()
    free = trainer.net.backend.free_memory()
    try:
        return work()
    except OutOfMemoryError as error:
        drop_tracebacks(error)
        planned = memory(trainer, x, y, **arguments)
        if free is None:
            raise OutOfMemoryError(f"{error}\n{planned}") from error
        usable = free - int(SPARE * free)

        def fits(**changes: Any) -> bool:
            return memory(trainer, x, y, **arguments, **changes).total - planned.held <= usable

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
    options, largest = _micro_batches(trainer, fits), 0
    for low in sorted({trainer.low_memory, True}):
        size = _largest(
            planned.batch_size,
            lambda n, low=low: fits(low_memory=low, batch_size=n),  # type: ignore
        )
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


def _micro_batches(trainer: Stepping, fits: Callable[..., bool]) -> list[str]:
    """The fewest micro-batches that fit, with the same steps; empty if none do."""
    size = trainer.batch_size
    rows = _largest(trainer.at_a_time, lambda n: fits(accumulate=-(-size // n), fold=None))
    return [f"accumulate={-(-size // rows)}"] if rows else []


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest size up to `most` that fits; 0 if none does."""
    low, high = most, most + 1
    while low and not fits(low):
        low, high = low // 2, low
    while high - low > 1 and low:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
