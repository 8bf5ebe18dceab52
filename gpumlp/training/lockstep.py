"""The members of an ensemble trained in lockstep: one program does a step of all of them.

Each member has its own `Fit`, as a network alone.  The fits say how many steps they want next, the
joint steps do them, and the fits go on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from gpumlp.backends import Backend
from gpumlp.ensemble import Ensemble
from gpumlp.errors import DivergenceError
from gpumlp.io.signals import Interrupt, shared
from gpumlp.io.threads import BLOCK_BYTES
from gpumlp.io.types import Array
from gpumlp.loader.batches import Order
from gpumlp.loader.examples import Examples, stacked
from gpumlp.loader.members import JointSteps, MemberBatches
from gpumlp.step.program import Buffer
from gpumlp.step.training import TrainingStep
from gpumlp.training.loop import Fit
from gpumlp.training.stepping import Stepping

Open = Callable[[int, MemberBatches, Examples], AbstractContextManager[Fit]]
"""The fit of a member, ready to begin."""
Ended = Callable[[int, DivergenceError | None], None]
"""Is called with a member whose fit has ended, and with the error if it diverged."""


class State:
    """The arrays of the members' trainers: those of one kind are rows of one array, (K, …)."""

    def __init__(self, K: int) -> None:
        self._K = K
        self._arrays: dict[Any, Array] = {}

    def rows(self, backend: Backend, b: Buffer, value: float = 0.0) -> Array:
        """The array of all members."""
        key = b.name, b.shape, b.dtype.name
        if key not in self._arrays:
            self._arrays[key] = backend.full((self._K, *b.shape), value, b.dtype)
        return self._arrays[key]

    def __getstate__(self) -> dict[str, Any]:
        """The trainers themselves copy the values."""
        return {"_K": self._K, "_arrays": {}}


class Member(Stepping):
    """The trainer of a member, whose arrays are in the `State` of all."""

    def __init__(self, state: State, i: int, *arguments: Any, **settings: Any) -> None:
        self._state, self._i = state, i
        super().__init__(*arguments, **settings)

    def _new(self, b: Buffer, value: float = 0.0) -> Array:
        if b.shared:  # among the members of one program; here it is this trainer's own
            return super()._new(b, value)
        return self._state.rows(self.net.backend, b, value)[self._i]

    def of_all(self, b: Buffer) -> Array:
        """The array of a buffer of all members."""
        return self._state.rows(self.net.backend, b)


def possible(trainers: Sequence[Stepping]) -> bool:
    """Whether one program can do the steps of these trainers, whose other settings are equal.

    On a CPU it gains nothing where the arrays of one network fill a block: then operations are done
    for one network after the other.
    """
    first, backend = trainers[0], trainers[0].net.backend
    widest = first.at_a_time * max(first.net.theta.layout.read) * backend.storage.itemsize
    rules = {(each.optimizer.slots, each.optimizer.scalar_names) for each in trainers}
    return (
        len(trainers) > 1
        and not backend.compiles  # which has a thread for each member
        and not any(each.folds or each.optimizer.orthogonal for each in trainers)
        and len(rules) == 1
        and first.accumulate == first.shards.count == 1
        # no running averages, which a step changes also of members that rest
        and first.net.theta.layout.whole == first.net.theta.layout.size
        and (not backend.on_host or widest <= BLOCK_BYTES)
    )


def at_a_time(trainers: Sequence[Stepping]) -> int:
    """The most networks that one program takes: their steps need at most 3/4 of free memory."""
    net, backend = trainers[0].net, trainers[0].net.backend
    most, free = backend.networks_at_a_time(net.widths), backend.free_memory()
    if free is None:
        return most
    # z, h and gz of each layer, and x
    each = 4 * trainers[0].at_a_time * sum(net.theta.layout.read) * backend.storage.itemsize
    return max(1, min(most, free * 3 // 4 // each))


def train(
    ensemble: Ensemble, trainers: Sequence[Member], numbers: Sequence[int],
    data: Sequence[Examples], opened: Open, ended: Ended,
) -> None:  # fmt: skip
    """Train these members, as many at a time as the backend can take.

    data: the examples that member i trains on are at i modulo their number; none are streamed.
    """
    most = at_a_time(trainers)
    whole, parts, firsts = stacked(ensemble.backend, data)
    with shared() as interrupt:
        for at in range(0, len(numbers), most):
            together, fits = numbers[at : at + most], {}
            steps = Together(ensemble, trainers, together, whole)
            with ExitStack() as stack:
                for i in together:
                    part, trainer = i % len(parts), trainers[i]
                    examples, size = parts[part], trainer.batch_size
                    m, seed = len(examples.x), trainer.order_seed
                    order = Order(m, examples.weights, size, seed, firsts[part])
                    steps.minibatches[i] = batches = MemberBatches(order, steps.read)
                    fits[i] = stack.enter_context(opened(i, batches, examples))
                stack.callback(steps.forget)
                _drive(steps, fits, interrupt, ended)


def _drive(steps: Together, fits: Mapping[int, Fit], interrupt: Interrupt, ended: Ended) -> None:
    """Do the steps that the fits ask for, until all have ended."""
    calls = {i: _calls(each, interrupt) for i, each in fits.items()}
    wanted: dict[int, int] = {}  # the steps that a fit asks for

    def go_on(i: int, done: int | None) -> None:
        try:
            wanted[i] = calls[i].send(done)
        except (StopIteration, DivergenceError) as error:
            wanted.pop(i, None)
            ended(i, error if isinstance(error, DivergenceError) else None)

    with ExitStack() as stack:
        stack.enter_context(np.errstate(over="ignore", invalid="ignore"))  # as in `Fit.train`
        for each in calls.values():
            stack.callback(each.close)
        for i in fits:
            go_on(i, None)
        while wanted:
            steps.pack(list(wanted))
            sizes = [steps.minibatches[i].order.of for i in wanted]
            of = max(sizes, key=sizes.count)
            now = [i for i in wanted if steps.minibatches[i].order.of == of]
            count = min(wanted[i] for i in now)
            steps.run(now, count)
            for i in now:
                go_on(i, count)


def _calls(run: Fit, interrupt: Interrupt) -> Generator[int, int | None, None]:
    """`Fit.train`, but for the steps, which the caller does."""
    with run.hooks():
        yield from run.calls(interrupt, several=True)
        run.finish()


class Together:
    """The steps of some members, and the arrays that these read and write.

    The arrays are rows of those of all members; or, if the members are not neighbours, copies of
    such rows, which are made before the steps and written back after them.

    Attributes:
        minibatches: of each member.
    """

    def __init__(
        self, ensemble: Ensemble, trainers: Sequence[Member], members: Sequence[int], data: Examples
    ) -> None:
        self._ensemble, self._trainers, self._data = ensemble, trainers, data
        self.minibatches: dict[int, MemberBatches] = {}
        self._begin(members)

    def _begin(self, members: Sequence[int]) -> None:
        """Make the program of these members."""
        self._members, first, backend = members, self._trainers[members[0]], self._ensemble.backend
        rules = tuple((self._trainers[i].optimizer, self._ensemble[i].regularizer) for i in members)
        step = TrainingStep(replace(first.step_settings(), rules=rules))
        self._copies: list[tuple[Array, Array]] = []  # of all members, of these
        kept = {
            step.model.theta.flat.root: self._ensemble.theta,
            step.model.rounded.flat.root: self._ensemble.rounded,
        }
        for b in (step.slots, step.model.scaling, step.remainder, step.mean):
            if b is not None:
                kept[b] = first.of_all(b)
        rows = {b: self._rows(a, True) for b, a in kept.items()}
        for b in {**step.initial, step.model.J: 0.0}:
            if b.shared:
                rows[b] = backend.asarray(np.broadcast_to(step.initial[b], b.shape), b.dtype)
            elif b not in rows:
                rows[b] = self._rows(first.of_all(b), False)
        tables = first.tables(self._data, members=len(members))
        self._steps = JointSteps(backend, self._data, tables, step, rows, first.name)

    def _rows(self, whole: Array, kept: bool) -> Array:
        """The rows of the members; `kept`: whether a step needs their values."""
        first, last = self._members[0], self._members[-1]
        if last - first + 1 == len(self._members):
            return whole[first : last + 1]
        shape = (len(self._members), *whole.shape[1:])
        rows = self._ensemble.backend.full(shape, 0, whole.dtype)
        if kept:
            self._copies.append((whole, rows))
        return rows

    def pack(self, members: Sequence[int]) -> None:
        """Leave out all but these members, if that halves the work."""
        if 2 * len(members) <= len(self._members):
            self.read()
            self.forget()
            self._begin(members)

    def run(self, members: Sequence[int], count: int) -> None:
        """Do the next steps of members whose minibatches have equally many examples."""
        for i in members:
            self._trainers[i].prepare()
        self._copy(back=False)
        place = {i: row for row, i in enumerate(self._members)}
        self._steps.run({place[i]: self.minibatches[i] for i in members}, count)
        self._copy(back=True)
        for i in members:
            self._trainers[i].steps += count

    def _copy(self, back: bool) -> None:
        for whole, rows in self._copies:
            for row, i in enumerate(self._members):
                source, out = (rows[row], whole[i]) if back else (whole[i], rows[row])
                self._ensemble.backend.asarray(source, dtype=source.dtype, out=out)

    def read(self) -> None:
        """Give the costs of the steps so far to the minibatches."""
        self._steps.read()

    def forget(self) -> None:
        """Drop the recordings, which may refer back to this object."""
        self._steps.forget()
