"""The plan of a fit's memory, and what would fit: what allocates is asked, of a `Ledger`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from gpumlp import checks
from gpumlp.backends import Array, Backend
from gpumlp.errors import OutOfMemoryError
from gpumlp.interop.arrays import taken
from gpumlp.network import MLP, ClassWeight
from gpumlp.training.callbacks import EarlyStopping, watching
from gpumlp.training.examples import Examples
from gpumlp.training.ledger import Ledger
from gpumlp.training.memory import MIB, Memory
from gpumlp.training.metrics import Metrics, columns, evaluations
from gpumlp.training.placement import streams

if TYPE_CHECKING:
    from gpumlp.training.trainer import Trainer

INTEGERS = (int, np.integer)
SPARE = 1 / 32  # of the free memory: allocations are rounded up, and kernels and graphs need some


def memory(
    trainer: Trainer,
    x: Array | int,
    y: Array = None,
    *,
    validation: Sequence[Array] | int | None = None,
    sample_weight: Array = None,
    class_weight: ClassWeight = None,
    early_stopping: int | EarlyStopping | None = None,
    metric: Metrics = "auto",
    train_metric: bool = False,
    data: str = "auto",
) -> Memory:
    """The bytes that `fit` takes in the room with these arguments, as a `Memory`, which prints
    as a table; nothing is allocated.

    x and validation may also be numbers of examples.  Values are not looked at: any
    sample_weight stands for all; without y there are labels where the loss takes them, else
    rows of n_L values.
    """
    room = trainer.net.backend
    ledger = Ledger(room)
    twin = copy.copy(trainer)
    net = twin.net = trainer.net.seen_by(cast(Backend, ledger))
    theta, rounded = ledger.take([net.theta.flat]), ledger.take([net.rounded.flat])
    of_net = ledger.rest()
    twin.allocate()
    slots = ledger.take([twin.slots])
    average = ledger.take(twin.average.arrays) if twin.average is not None else 0
    work = ledger.take(twin._updating.work)
    gradient = ledger.rest()
    held = theta + rounded + of_net + room.own_memory(0)
    if hasattr(trainer, "steps"):  # else it is not done with its own allocations
        held += slots + average + work + gradient
    weighted = sample_weight is not None or class_weight is not None
    lie = data, twin.at_a_time
    examples = _data(ledger, trainer.net, x, y, weighted, *lie)
    held_out = _held_out(ledger, trainer.net, validation, *lie)
    of_data = ledger.rest()
    measured = evaluations(net, examples, held_out, metric, train_metric)
    evaluation = ledger.rest()
    watching(early_stopping, net, columns(measured))
    best = ledger.rest()
    batches = twin.batches(examples)
    s = batches.s
    return Memory(
        len(examples.x), min(twin.batch_size, len(examples.x)), theta, rounded, gradient, slots,
        average, best, of_data + ledger.fed, evaluation=evaluation, gz=ledger.take(s.gz),
        h=ledger.take([*s.h, s.y]),
        bits=ledger.take(z for z in s.z if z is not None and z.dtype == np.uint8),
        z=ledger.take(s.z), tables=of_net + ledger.rest(),
        scratch=work + room.own_memory(max(net.widths)), held=held, accumulate=twin.accumulate,
    )  # fmt: skip


def outgrown(
    error: OutOfMemoryError, trainer: Trainer, free: int | None, x: Any, y: Any, **asked: Any
) -> OutOfMemoryError:
    """The error for a fit, or a trainer's state, that did not fit: the plan, and what would fit.

    free: what was there before anything of it was allocated.  The arrays of the attempt are let go.
    """
    let_go(error)

    def planned(**changes: Any) -> Memory:
        twin = copy.copy(trainer)
        vars(twin).update(changes)
        return memory(twin, x, y, **asked)

    wanted = planned()
    if free is None:
        return OutOfMemoryError(f"{error}\n{wanted}")
    room = free - int(SPARE * free)
    told = f"{wanted.missing / MIB:,.2f} MiB were to be allocated and {free / MIB:,.2f} were free"

    def fits(**changes: Any) -> bool:
        return planned(**changes).total - wanted.held <= room

    return OutOfMemoryError(f"out of GPU memory: {told}\n{wanted}\n{_ways(trainer, wanted, fits)}")


def let_go(error: BaseException) -> None:
    """Free the arrays that tracebacks hold for as long as the error lives."""
    each: BaseException | None = error
    while each is not None:
        each = each.with_traceback(None).__context__


def _ways(trainer: Trainer, wanted: Memory, fits: Callable[..., bool]) -> str:
    """What would fit, or what to change where no batch_size does."""
    if fits():
        return (
            "so much was free, but in pieces, or something else has taken it since, another "
            "program or a callback: free it, or use a smaller batch_size"
        )
    ways, largest = _parts(trainer, fits), 0
    for low in sorted({trainer.low_memory, True}):
        size = _largest(
            wanted.batch_size,
            lambda n, low=low: fits(low_memory=low, batch_size=n),  # type: ignore
        )
        if size > largest:
            ways.append(f"batch_size={size}" + ' and memory="low"' * (low > trainer.low_memory))
            largest = size
    if ways:
        return f"use {', or '.join(ways)}"
    net, slots = trainer.net, len(trainer.optimizer.slots)
    if net.backend.storage.itemsize > 2:
        ways.append('precision="bfloat16"')
    rounds = net.backend.rounds_slots and trainer.optimizer.orthogonal is None
    if slots and rounds and trainer.slot_type.itemsize > 2:
        ways.append('slot_precision="bfloat16"')
    if trainer.ema is not None:
        ways.append("ema=None")
    if slots > 1:
        ways.append("an optimizer with less state")
    if wanted.data > wanted.missing // 4:
        ways.append('data="stream"')
    return f"no batch_size fits; use {', '.join([*ways, 'a smaller network'])}"


def _parts(trainer: Trainer, fits: Callable[..., bool]) -> list[str]:
    """The fewest micro-batches that fit, which make the same steps; nothing where none do."""
    size = trainer.batch_size
    rows = _largest(trainer.at_a_time, lambda n: fits(accumulate=-(-size // n), _fold=None))
    return [f"accumulate={-(-size // rows)}"] if rows else []


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest size up to `most` that fits, 0 for none."""
    low, high = most, most + 1
    while low and not fits(low):
        low, high = low // 2, low
    while high - low > 1 and low:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _data(
    ledger: Ledger, net: MLP, x: Any, y: Any, weighted: bool, data: str, rows: int
) -> Examples:
    """Training or validation data, of given arrays or of a number of examples, as `data` says."""
    room, n_0, n = net.backend, net.widths[0], net.widths[-1]
    x, y = taken(x, room, "x"), taken(y, room, "y")
    m = checks.positive_int(x, "x") if isinstance(x, INTEGERS) else len(x)
    x = np.broadcast_to(np.zeros((), room.storage), (m, n_0)) if isinstance(x, INTEGERS) else x
    labels = net.loss.target == "class" and (y is None or np.ndim(y) == 1)
    target = np.dtype(np.int32) if labels else room.dtype
    if labels or y is None:
        y = np.broadcast_to(np.zeros((), target), (m,) if labels else (m, n))
    stream = streams(net, [(x, room.storage), (y, target)], data, rows)
    if not (stream and isinstance(x, np.ndarray)):
        x = ledger.placed(x, (m, n_0), room.storage)
    if labels or not (stream and isinstance(y, np.ndarray)):
        y = ledger.placed(y, (m,) if labels else (m, n), target)
    return Examples(x, y, np.broadcast_to(1.0, (m,)) if weighted else None, target)


def _held_out(ledger: Ledger, net: MLP, validation: Any, data: str, rows: int) -> Examples | None:
    """Validation data: as `fit` takes them, or their number."""
    if validation is None or (isinstance(validation, INTEGERS) and validation == 0):
        return None
    if isinstance(validation, INTEGERS):
        return _data(ledger, net, validation, None, False, data, rows)
    x, y, *weights = validation
    return _data(ledger, net, x, y, bool(weights) and weights[0] is not None, data, rows)
