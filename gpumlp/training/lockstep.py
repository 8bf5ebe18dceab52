"""The members of an ensemble trained in lockstep: one program does a step of all of them.

Each member has its own `Fit`, as a network alone.  The fits say how many steps they want next, the
joint steps do them, and the fits go on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
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
from gpumlp.training.members import Ended, Open
from gpumlp.training.stepping import Stepping

Calls = Generator[int, int | None, None]
"""`Fit.calls`: how many steps a fit wants next; it gets how many were done."""


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
            minibatches: dict[int, MemberBatches] = {}
            calls: dict[int, Calls] = {}
            with ExitStack() as stack:
                for i in numbers[at : at + most]:
                    part, trainer = i % len(parts), trainers[i]
                    examples, size = parts[part], trainer.batch_size
                    m, seed = len(examples.x), trainer.order_seed
                    order = Order(m, examples.weights, size, seed, firsts[part])
                    minibatches[i] = MemberBatches(order)
                    run = stack.enter_context(opened(i, minibatches[i], examples))
                    calls[i] = _calls(run, interrupt)
                joint = partial(_joint, ensemble, trainers, minibatches, whole)
                _drive(trainers, minibatches, calls, joint, ended)


def _calls(run: Fit, interrupt: Interrupt) -> Calls:
    """`Fit.train`, but for the steps, which the caller does."""
    with run.hooks():
        yield from run.calls(interrupt, several=True)
        run.finish()


def _drive(
    trainers: Sequence[Member], minibatches: Mapping[int, MemberBatches],
    calls: Mapping[int, Calls], joint: Callable[[Sequence[int]], JointSteps], ended: Ended,
) -> None:  # fmt: skip
    """Do the steps that the members' fits ask for, until all have ended.

    joint: makes the steps of some members.  Members that have ended are left out if that halves the
        work.
    """
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
        members, steps = [*calls], joint([*calls])
        stack.callback(lambda: steps.forget())  # of the last ones
        for i in members:
            go_on(i, None)
        while wanted:
            if 2 * len(wanted) <= len(members):
                steps.read()
                steps.forget()
                members, steps = [*wanted], joint([*wanted])
            sizes = [minibatches[i].order.of for i in wanted]
            of = max(sizes, key=sizes.count)
            now = [i for i in wanted if minibatches[i].order.of == of]
            count = min(wanted[i] for i in now)
            for i in now:
                trainers[i].prepare()
            steps.run({members.index(i): minibatches[i] for i in now}, count)
            for i in now:
                trainers[i].steps += count
            for i in now:
                go_on(i, count)


def _joint(
    ensemble: Ensemble, trainers: Sequence[Member], minibatches: Mapping[int, MemberBatches],
    data: Examples, members: Sequence[int],
) -> JointSteps:  # fmt: skip
    """The steps of some members; all minibatches get their costs from it.

    Its arrays are rows of those of all members; or, if the members are not neighbours, copies of
    such rows, which are made before the steps and written back after them.
    """
    first, backend = trainers[members[0]], ensemble.backend
    rules = tuple((trainers[i].optimizer, ensemble[i].regularizer) for i in members)
    step = TrainingStep(replace(first.step_settings(), rules=rules))
    kept = {
        step.model.theta.flat.root: ensemble.theta,
        step.model.rounded.flat.root: ensemble.rounded,
    }
    seed = step.seed if step.seed in step.initial else None  # of dropout
    for b in (step.slots, step.model.scaling, step.remainder, step.mean, seed):
        if b is not None:
            kept[b] = first.of_all(b)
    neighbours, copies = members[-1] - members[0] + 1 == len(members), []

    def rows(whole: Array) -> Array:
        if neighbours:
            return whole[members[0] : members[-1] + 1]
        return backend.full((len(members), *whole.shape[1:]), 0, whole.dtype)

    arrays = {b: rows(a) for b, a in kept.items()}
    if not neighbours:
        copies = [
            (whole[i], arrays[b][row])
            for b, whole in kept.items() for row, i in enumerate(members)
        ]  # fmt: skip
    for b in step.initial:
        if b.shared:
            arrays[b] = backend.asarray(np.broadcast_to(step.initial[b], b.shape), b.dtype)
        elif b not in arrays:
            arrays[b] = rows(first.of_all(b))
    tables = first.tables(data, members=len(members))
    steps = JointSteps(backend, data, tables, step, arrays, copies, first.name)
    for each in minibatches.values():  # also of members that have ended, so that arrays are freed
        each.read = steps.read
    return steps
