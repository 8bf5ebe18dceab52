"""Minibatches of several networks, each with its own order of the examples, and their steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gpumlp.backends import Backend
from gpumlp.io.types import Array, HostArray, HostVector
from gpumlp.loader.batches import Order
from gpumlp.loader.examples import Examples
from gpumlp.step.program import Buffer
from gpumlp.step.tables import Tables
from gpumlp.step.training import TrainingStep


class JointSteps:
    """Steps of K networks: one program, whose arrays have a leading dimension K.

    Each row of the tables is for one step of all networks.  A network that does not take part in a
    step has the control 0 there, which skips its update.

    Args:
        data: the examples that the rows of all orders count.
        tables: with `members`; their length is the number of steps between two downloads of costs.
        step: the step of K networks, and `arrays` the arrays of its held buffers.
        copies: pairs (array, copy).  The steps read and write the copies, which are made before
            them and written back after them.
        name: the key in the tuning cache.
    """

    def __init__(
        self, backend: Backend, data: Examples, tables: Tables, step: TrainingStep,
        arrays: Mapping[Buffer, Array], copies: Sequence[tuple[Array, Array]], name: str,
    ) -> None:  # fmt: skip
        self._backend, self._data, self._tables, self._step = backend, data, tables, step
        self._arrays, self._copies, self._name = arrays, copies, name
        self._arena = backend.empty((0,), np.uint8)
        self._programs: dict[int, Any] = {}
        self._memory: dict[Buffer, Array] = {}
        self._next = 0  # the row of the tables
        self._done: list[tuple[int, int, MemberBatches, int]] = []  # rows, which, first step

    def run(self, members: Mapping[int, MemberBatches], steps: int) -> None:
        """Do the next steps of some networks, whose minibatches have equally many examples.

        members: the minibatches of the networks that take part, by the network's row.
        steps: at most `alike` of each of them.
        """
        backend, tables, K = self._backend, self._tables, self._tables.members
        of = next(iter(members.values())).order.of
        program = self._program(of)
        if self._next + steps > tables.steps:
            self.read()
        numbers = tables.control.size
        order = np.zeros((steps, K * tables.size), np.int64)
        controls = np.zeros((steps, K * numbers + 2))
        own_rows, own_numbers = order[:, : K * of].reshape(steps, K, of), controls[:, :-2]
        for i, each in members.items():
            own_rows[:, i] = each.order.minibatches(steps).reshape(steps, of)
            own_numbers[:, i * numbers : (i + 1) * numbers] = each.numbers(steps)
            self._done.append((self._next, i, each, steps))
            each.order.go_on(steps)
        at = slice(self._next, self._next + steps)
        wide = order.shape[1]
        rows = self._memory[tables.order][at.start * wide : at.stop * wide]
        order[:, : K * of] = own_rows.reshape(steps, -1)
        backend.asarray(order.reshape(-1), dtype=np.int64, out=rows)
        backend.asarray(controls, dtype=np.float64, out=self._memory[tables.controls][at])
        for array, copy in self._copies:
            backend.asarray(array, dtype=array.dtype, out=copy)
        program(steps)
        for array, copy in self._copies:
            backend.asarray(copy, dtype=copy.dtype, out=array)
        self._next = at.stop

    def read(self) -> None:
        """Give the costs of the steps so far to the networks, and begin the tables again."""
        if not self._next:
            return
        costs = self._backend.to_host(self._memory[self._tables.costs][: self._next])
        for row, i, member, steps in self._done:
            member.receive(costs[row : row + steps, i])
        self._done.clear()
        self._next = 0
        position = self._memory[self._tables.position]
        self._backend.asarray(np.zeros(1), dtype=np.int64, out=position)

    def _program(self, of: int) -> Any:
        """What does steps on minibatches of `of` examples."""
        if of in self._programs:
            return self._programs[of]
        backend, tables, K = self._backend, self._tables, self._tables.members
        ways = self._step.plans(tables, of)
        for b in tables.buffers():
            if b not in self._memory:
                shape = b.shape if b.shared else (K, *b.shape)
                self._memory[b] = backend.full(shape, tables.initial.get(b, 0), b.dtype)
        weights = self._data.weights
        if tables.weights is not None and weights is not None and not self._programs:
            backend.asarray(weights / weights.max(), out=self._memory[tables.weights])
        held = {**self._memory, **self._arrays}
        held |= {tables.x: self._data.x, tables.y: self._data.y}  # type: ignore[dict-item]
        size = K * max(each.size for each in ways.values())
        if size > len(self._arena):
            self._arena = backend.empty((size,), np.uint8)
        calls = {
            way: each.calls(backend, each.arrays(self._arena, held, K), K)
            for way, each in ways.items()
        }
        name = f"{self._name} of {K} networks, minibatch {of}"
        self._programs[of] = backend.compile(calls, name)
        return self._programs[of]

    def forget(self) -> None:
        """Drop the recordings, which may refer back to this object."""
        self._programs.clear()


class MemberBatches:
    """The minibatches of one of the networks, for its fit: see `Minibatches`.

    Attributes:
        read: gives it the costs of the steps so far: `JointSteps.read`.
    """

    read: Callable[[], None]

    def __init__(self, order: Order) -> None:
        self.order = order
        self._controls: HostArray = np.zeros((0, 0))
        self._costs: HostArray = np.zeros(0)
        self._received = 0

    def start(self, epoch: int, controls: HostVector, costs: HostArray, at: int) -> None:
        self.read()
        self.order.draw(epoch)
        self.order.at = self._received = at
        self._controls, self._costs = controls, np.array(costs)

    @property
    def alike(self) -> int:
        return self.order.alike

    def numbers(self, steps: int) -> HostArray:
        """The rows of `control` of the next steps."""
        return self._controls[self.order.at : self.order.at + steps, :-2]

    def receive(self, costs: HostArray) -> None:
        """The costs of the next steps of which no costs are known yet."""
        self._costs[self._received : self._received + len(costs)] = costs
        self._received += len(costs)

    def costs(self, steps: slice = slice(None)) -> HostArray:
        self.read()
        return self._costs[steps]

    def forget(self) -> None:
        """Nothing here refers to a fit."""
