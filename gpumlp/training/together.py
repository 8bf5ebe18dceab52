"""What the processes of a fit do together: they agree, and bring the pieces of θ together.

Each function is called by all processes, at the same point of the fit.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np

from gpumlp._version import __version__
from gpumlp.distributed.world import World
from gpumlp.io.types import Array, HostArray
from gpumlp.loader.examples import Examples
from gpumlp.training.arguments import WITHIN_A_FIT
from gpumlp.training.callbacks import may_assign
from gpumlp.training.events import Callback
from gpumlp.training.stepping import Stepping

AGREE = 0.1  # seconds of steps after which the processes ask each other whether to go on
SAMPLED = 1 << 26  # bytes of x or y of which all are compared; of more, some rows
ROWS = 4096

T = TypeVar("T")


def on_first(world: World, work: Callable[[], T]) -> T:
    """The result of work() on rank 0, on all ranks; what it raises is raised on all."""
    if world.size == 1:
        return work()
    result: Any = None
    error: Exception | None = None
    if world.rank == 0:
        try:
            result = work()
        except Exception as raised:
            error = raised
    result, other = world.broadcast((result, None if error is None else _portable(error)))
    if error is not None:
        raise error
    if other is not None:
        raise other
    return result  # type: ignore[no-any-return]


def _portable(error: Exception) -> Exception:
    """The error as pickle can write it."""
    text = f"on rank 0: {error.args[0] if len(error.args) == 1 else error}"
    if type(error).__module__.split(".")[0] in ("builtins", "gpumlp"):
        with suppress(TypeError):  # it needs more than a text
            return type(error)(text)
    return RuntimeError(text)


def doing(trainer: Stepping, what: str) -> None:
    """Note what comes after the steps so far, which errors of processes name."""
    world = trainer.shards.world
    if world.size > 1:
        world.doing = f"step {trainer.steps}, {what}"


def called_on_first(
    trainer: Stepping, callbacks: Sequence[Callback], work: Callable[[], object]
) -> None:  # fmt: skip
    """`on_first` of work that calls callbacks: what they assign to the trainer or θ, all get."""
    world, backend, theta = trainer.shards.world, trainer.net.backend, trainer.net.theta.whole
    if world.size == 1:
        work()
        return

    def watched() -> tuple[dict[str, Any], bool]:
        before = checksum(backend.to_host(theta)) if may_assign(callbacks) else None
        settings = {name: getattr(trainer, name) for name in WITHIN_A_FIT}
        work()
        assigned = before is not None and checksum(backend.to_host(theta)) != before
        now = {name: getattr(trainer, name) for name in settings}
        return {name: now[name] for name in now if now[name] != settings[name]}, assigned

    changed, assigned = on_first(world, watched)
    vars(trainer).update(changed)
    if assigned:
        backend.asarray(world.broadcast(backend.to_host(theta)), out=theta)


def check_alike(world: World, facts: Mapping[str, Any]) -> None:
    """Raise ValueError on all ranks unless each has the same facts, by name."""
    if world.size == 1:
        return
    found = world.share(dict(facts))
    for name in dict.fromkeys(name for each in found for name in each):
        values = [each.get(name) for each in found]
        other = next((r for r, value in enumerate(values) if value != values[0]), None)
        if other is not None:
            raise ValueError(
                f"the processes of a training need the same {name}, but rank 0 has {values[0]!r} "
                f"and rank {other} has {values[other]!r}; give all ranks the same"
            )


def facts_of(trainer: Stepping, examples: Examples, validated: Examples | None) -> dict[str, Any]:
    """What must be the same on all ranks, by name."""
    backend, net = trainer.net.backend, trainer.net
    return {
        **{f"network's {name}": value for name, value in net.config().items() if name != "seed"},
        **trainer.settings,
        "version of gpumlp": __version__,
        "backend": backend.name,
        "shards": trainer.shards.count,
        "number of processes": trainer.shards.world.size,
        "steps so far": trainer.steps,
        "θ (build the network with the same seed)": checksum(backend.to_host(net.theta.whole)),
        "x and y": _digest(trainer, examples),
        "validation data": _digest(trainer, validated),
    }


def checksum(a: HostArray) -> int:
    """A number that differs if the bytes of `a` differ, but by a chance of 2⁻³²."""
    return zlib.crc32(np.ascontiguousarray(a).data)


def _digest(trainer: Stepping, data: Examples | None) -> str | None:
    """Shapes and dtypes of data, and a hash: of all values, or of some rows of a large array."""
    if data is None:
        return None
    digest, backend = hashlib.sha256(), trainer.net.backend
    arrays = [a for a in (data.x, data.y, data.weights) if a is not None]
    for a in arrays:
        rows = slice(None) if a.nbytes <= SAMPLED else slice(None, None, max(1, len(a) // ROWS))
        part = a[rows] if isinstance(a, np.ndarray) else backend.to_host(a[rows])
        digest.update(np.ascontiguousarray(part).tobytes())
    shapes = ", ".join(f"{a.dtype} {a.shape}" for a in arrays)
    return f"{shapes}, SHA-256 {digest.hexdigest()[:16]}…"


class Agreement:
    """When the processes agree whether to go on: each `AGREE` seconds, as rank 0 estimates."""

    def __init__(self, world: World) -> None:
        self._world, self._next = world, 0
        self._asked, self._at = 0.0, 0

    def go_on(self, requested: int, done: int) -> bool:
        """Whether no process was asked to end, when `done` steps are done.

        requested: the signal that asked this one, or 0.
        """
        world = self._world
        if world.size == 1:
            return not requested
        if done < self._next:
            return True
        now = time.perf_counter()
        steps = done - self._at
        fitting = int(steps * AGREE / max(now - self._asked, 1e-6)) if steps > 0 else 1
        self._asked, self._at = now, done
        answers = world.share((requested, max(1, min(fitting, 2 * max(1, steps)))))
        self._next = done + answers[0][1]
        return not any(number for number, _ in answers)

    def until(self, count: int, done: int) -> int:
        """At most `count` steps, up to the next question."""
        return count if self._world.size == 1 else max(1, min(count, self._next - done))


# ---- pieces --------------------------------------------------------------------------------------


def complete(trainer: Stepping) -> None:
    """θ, and its average, ← the pieces of all processes; the steps bring what products read."""
    net, world = trainer.net, trainer.shards.world
    if world.size == 1 or trainer.replicated:
        return
    arrays = [] if net.rounded is net.theta else [net.theta.flat]
    if trainer.average is not None:
        if trainer.average.shown:
            return
        arrays.append(trainer.average.arrays[0])
    for flat in arrays:
        for bucket in trainer.buckets:
            net.backend.collect(world, flat[bucket.cuts[0] : bucket.cuts[-1]], bucket.counts)


def whole_slots(trainer: Stepping) -> Array:
    """The optimizer's state of all processes, (number of slots, p), in the layout of θ.

    It is `trainer.slots` itself where each process has all of it, else a new array on the host.
    """
    if trainer.replicated:
        return trainer.slots
    backend, layout = trainer.net.backend, trainer.net.theta.layout
    own = backend.to_host(trainer.slots)
    whole = np.zeros((len(own), layout.size), own.dtype)
    for bucket in trainer.buckets:
        begin, end = bucket.own
        whole[:, begin:end] = own.reshape(-1)[_place(own, bucket)].reshape(len(own), end - begin)
        for slot in whole:
            trainer.shards.world.gather(slot[bucket.cuts[0] : bucket.cuts[-1]], bucket.counts)
    return whole


def keep_slots(trainer: Stepping, whole: Array) -> None:
    """The optimizer's state in this process ← that of `whole_slots`."""
    if trainer.replicated:
        return
    own = np.empty(trainer.slots.shape, whole.dtype)
    for bucket in trainer.buckets:
        own.reshape(-1)[_place(own, bucket)] = whole[:, slice(*bucket.own)].reshape(-1)
    trainer.net.backend.asarray(own, dtype=trainer.slots.dtype, out=trainer.slots)


def _place(slots: Array, bucket: Any) -> slice:
    start = len(slots) * bucket.start
    return slice(start, start + len(slots) * bucket.size)
