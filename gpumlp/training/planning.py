"""The plan of a fit's memory, and what would fit: what allocates is asked, of a `DryRunBackend`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from gpumlp import checks
from gpumlp.arrays import as_backend_array
from gpumlp.backends import Backend
from gpumlp.errors import OutOfMemoryError
from gpumlp.io.types import Array
from gpumlp.loader.examples import Examples
from gpumlp.loader.placement import streams
from gpumlp.network import MLP, ClassWeight
from gpumlp.training.callbacks import EarlyStopping, watching
from gpumlp.training.dry_run import DryRunBackend
from gpumlp.training.memory import MIB, Memory
from gpumlp.training.metrics import Metrics, columns, evaluations

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
    """The bytes that `fit` takes in the backend with these arguments, as a `Memory`, which prints
    as a table; nothing is allocated.

    x and validation may also be numbers of examples.  Values are not looked at: any
    sample_weight stands for all; without y there are labels where the loss takes them, else
    rows of n_L values.
    """
    backend = trainer.net.backend
    dry_run = DryRunBackend(backend)
    twin = copy.copy(trainer)
    net = twin.net = trainer.net.on_other_backend(cast(Backend, dry_run))
    theta, rounded = dry_run.take([net.theta.flat]), dry_run.take([net.rounded.flat])
    of_net = dry_run.rest()
    twin.allocate()
    slots = dry_run.take([twin.slots])
    average = dry_run.take(twin.average.arrays) if twin.average is not None else 0
    work = dry_run.take(twin._updating.work)
    gradient = dry_run.rest()
    held = theta + rounded + of_net + backend.own_memory(0)
    if hasattr(trainer, "steps"):  # else it is not done with its own allocations
        held += slots + average + work + gradient
    weighted = sample_weight is not None or class_weight is not None
    placement = data, twin.at_a_time
    examples = _data(dry_run, trainer.net, x, y, weighted, *placement)
    held_out = _held_out(dry_run, trainer.net, validation, *placement)
    of_data = dry_run.rest()
    measured = evaluations(net, examples, held_out, metric, train_metric)
    evaluation = dry_run.rest()
    watching(early_stopping, net, columns(measured))
    best = dry_run.rest()
    batches = twin.batches(examples)
    s = batches.s
    return Memory(
        len(examples.x), min(twin.batch_size, len(examples.x)), theta, rounded, gradient, slots,
        average, best, of_data + dry_run.fed, evaluation=evaluation, gz=dry_run.take(s.gz),
        h=dry_run.take([*s.h, s.y]),
        bits=dry_run.take(z for z in s.z if z is not None and z.dtype == np.uint8),
        z=dry_run.take(s.z), tables=of_net + dry_run.rest(),
        scratch=work + backend.own_memory(max(net.widths)), held=held, accumulate=twin.accumulate,
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
    backend = free - int(SPARE * free)
    told = f"{wanted.missing / MIB:,.2f} MiB were to be allocated and {free / MIB:,.2f} were free"

    def fits(**changes: Any) -> bool:
        return planned(**changes).total - wanted.held <= backend

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
    dry_run: DryRunBackend, net: MLP, x: Any, y: Any, weighted: bool, data: str, rows: int
) -> Examples:
    """Training or validation data, of given arrays or of a number of examples, as `data` says."""
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


def _held_out(
    dry_run: DryRunBackend, net: MLP, validation: Any, data: str, rows: int
) -> Examples | None:
    """Validation data: as `fit` takes them, or their number."""
    if validation is None or (isinstance(validation, INTEGERS) and validation == 0):
        return None
    if isinstance(validation, INTEGERS):
        return _data(dry_run, net, validation, None, False, data, rows)
    x, y, *weights = validation
    return _data(dry_run, net, x, y, bool(weights) and weights[0] is not None, data, rows)
