"""Memory: the bytes that a fit needs, by purpose.

A trainer on a `DryRunBackend` allocates what a fit would allocate, and the bytes are counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from gpumlp import checks
from gpumlp.arrays import as_backend_array
from gpumlp.backends import Backend
from gpumlp.io.types import Array
from gpumlp.loader.examples import Examples, streams
from gpumlp.network import MLP
from gpumlp.training.callbacks import watching
from gpumlp.training.metrics import columns, evaluations
from gpumlp.training.stepping import Stepping

INTEGERS = (int, np.integer)
MIB = 1 << 20


@dataclass(frozen=True, repr=False)
class Memory:
    """The bytes that a fit needs in its backend, by purpose.  It prints as a table.

    Attributes:
        examples, batch_size, accumulate: the number of training examples, the examples of a step,
            and the micro-batches of a step.
        theta, …, scratch: the bytes of each purpose.  `data` has no arrays that the
            backend uses in place; for streamed data, it is two minibatches.  `tables` is an
            epoch's order, weights and costs too; `gz` also holds an h that is recomputed;
            `scratch` includes the workspace of Muon.
        held: the bytes of all these that are allocated already.
    """

    examples: int
    batch_size: int
    theta: int = field(metadata={"label": "θ"})
    rounded: int = field(metadata={"label": "θ in 16 bits"})
    gradient: int = field(metadata={"label": "gradient, loss scale"})
    slots: int = field(metadata={"label": "the optimizer's state"})
    average: int = field(metadata={"label": "average of θ"})
    best: int = field(metadata={"label": "best θ, for early stopping"})
    data: int = field(metadata={"label": "data"})
    tables: int = field(metadata={"label": "order and tables"})
    h: int = field(metadata={"label": "a step's x, y and h"})
    z: int = field(metadata={"label": "a step's z"})
    bits: int = field(metadata={"label": "a step's signs of relu"})
    gz: int = field(metadata={"label": "a step's gz"})
    evaluation: int = field(metadata={"label": "evaluation"})
    scratch: int = field(metadata={"label": "workspace of products and sums"})
    held: int
    accumulate: int = 1

    @property
    def total(self) -> int:
        """The bytes of all purposes."""
        return sum(getattr(self, name) for name in NAMES)

    @property
    def missing(self) -> int:
        """The bytes that are still to be allocated."""
        return self.total - self.held

    def __str__(self) -> str:
        title = f"{self.examples:,} examples, batch_size {self.batch_size}"
        title += f", accumulate {self.accumulate}" * (self.accumulate > 1)
        sizes = {label: getattr(self, name) for name, label in NAMES.items()}
        sizes |= {"total": self.total, "allocated already": self.held}
        wide = max(map(len, [title, *sizes]))
        lines = [f"{label:<{wide}} {n / MIB:12,.2f}" for label, n in sizes.items() if n]
        return "\n".join([f"{title:<{wide}} {'MiB':>12}", *lines])

    __repr__ = __str__


NAMES = {each.name: each.metadata["label"] for each in fields(Memory) if each.metadata}


class DryRunBackend:
    """A backend whose arrays have no memory, and which counts the bytes that they would need.

    Everything but allocation is delegated to the real backend: its dtypes, and its rules of what
    is stored.

    Attributes:
        fed: the bytes that the feeds of streamed data would need.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._own: dict[int, Array] = {}  # the entries of all arrays, by id
        self._uncounted: dict[int, int] = {}  # the bytes of buffers, by the id of their entry
        self.fed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike | None = None) -> Array:
        """An array of zeros that all share one entry; its bytes are noted."""
        a = self._without_memory(shape, self._backend.dtype if dtype is None else dtype)
        self._uncounted[id(a.base)] = a.nbytes
        return a

    def _without_memory(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        entry = np.zeros((), dtype)
        self._own[id(entry)] = entry
        return np.broadcast_to(entry, shape)

    def accepts(self, a: Any, dtype: np.dtype[Any]) -> bool:
        """Whether it is an array of this backend, and not one on the host."""
        return id(getattr(a, "base", None)) in self._own

    def feed(self, source: Array, rows: int, dtype: np.dtype[Any]) -> None:
        """Add the bytes of a feed to `fed`."""
        self.fed += self._backend.feed_memory(source, rows, dtype)

    def full(
        self, shape: tuple[int, ...], value: float, dtype: npt.DTypeLike | None = None
    ) -> Array:
        """As `empty`."""
        return self.empty(shape, dtype)

    def asarray(self, a: Array, dtype: npt.DTypeLike | None = None, out: Array = None) -> Array:
        """As `empty`; or `out`, if it is given."""
        return self.empty(np.shape(a), dtype) if out is None else out

    def to_host(self, a: Array) -> Array:
        """The array itself."""
        return a

    def placed(self, a: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Data of that shape.  It needs no bytes if the real backend uses `a` in place."""
        if self._backend.accepts(a, dtype):
            return self._without_memory(shape, dtype)
        return self.empty(shape, dtype)

    def count(self, arrays: Iterable[Array]) -> int:
        """The bytes of the buffers of these arrays; each buffer counts once."""
        return sum(self._uncounted.pop(id(a.base), 0) for a in arrays if a is not None)

    def count_rest(self) -> int:
        """The bytes of all buffers that are not counted yet."""
        rest = sum(self._uncounted.values())
        self._uncounted.clear()
        return rest


def plan(
    trainer: Stepping, x: Any, y: Any, validation: Any, weighted: bool, early_stopping: Any,
    metric: Any, train_metric: bool, data: str,
) -> Memory:  # fmt: skip
    """The memory of `Trainer.fit` with these arguments, which `Trainer.memory` documents."""
    backend, allocated = trainer.net.backend, trainer.slots is not None
    dry_run = DryRunBackend(backend)
    net = trainer.net.on_other_backend(cast(Backend, dry_run))
    theta, rounded = dry_run.count([net.theta.flat]), dry_run.count([net.rounded.flat])
    of_net = dry_run.count_rest()
    planned = trainer.with_network(net)
    slots = dry_run.count([planned.slots])
    average = dry_run.count(planned.average.arrays) if planned.average is not None else 0
    work = dry_run.count(planned.updating.work)
    gradient = dry_run.count_rest()
    held = theta + rounded + of_net + backend.own_memory(0)
    held += (slots + average + work + gradient) * allocated
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
    if isinstance(x, INTEGERS):
        x = np.broadcast_to(np.zeros((), backend.storage), (checks.positive_int(x, "x"), n_0))
    x, y = as_backend_array(x, backend, "x"), as_backend_array(y, backend, "y")
    labels = net.loss.target == "class" and (y is None or np.ndim(y) == 1)
    target = np.dtype(np.int32) if labels else backend.dtype
    shape = (len(x),) if labels else (len(x), n)
    if labels or y is None:
        y = np.broadcast_to(np.zeros((), target), shape)
    stream = streams(net, [(x, backend.storage), (y, target)], data, rows)
    if not (stream and isinstance(x, np.ndarray)):
        x = dry_run.placed(x, (len(x), n_0), backend.storage)
    if labels or not (stream and isinstance(y, np.ndarray)):
        y = dry_run.placed(y, shape, target)
    return Examples(x, y, np.broadcast_to(1.0, (len(x),)) if weighted else None, target)


def _validation(
    dry_run: DryRunBackend, net: MLP, validation: Any, data: str, rows: int
) -> Examples | None:
    """Validation data, from the argument of `fit` or from a number of examples."""
    if validation is None or (isinstance(validation, INTEGERS) and validation == 0):
        return None
    x, y, *weights = (validation, None) if isinstance(validation, INTEGERS) else validation
    return _data(dry_run, net, x, y, bool(weights) and weights[0] is not None, data, rows)
