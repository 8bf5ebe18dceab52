"""Where the buffers of a program lie in one arena, and which operations must wait for which."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

from gpumlp.backends import Backend
from gpumlp.backends.declaration import Call
from gpumlp.io.types import Array
from gpumlp.step.program import Buffer, Op, Program

ALIGNMENT = 256  # bytes


@dataclass(eq=False, repr=False)
class Plan:
    """A program with the places of its buffers.

    Attributes:
        places: the first byte of each buffer that is not held, in the arena.
        lifetimes: the positions of the first and the last operation that uses it.
    """

    program: Program
    places: dict[Buffer, int]
    lifetimes: dict[Buffer, tuple[int, int]]
    size: int

    def arrays(
        self, arena: Array, held: Mapping[Buffer, Array], members: int = 0
    ) -> dict[Buffer, Array]:
        """The arrays of all buffers that have memory of their own; `members` as in `Buffer.of`.

        arena: `size` bytes for each network.
        """
        K, several = max(1, members), (members,) * (members > 0)
        return dict(held) | {
            b: arena[K * at : K * (at + b.nbytes)].view(b.dtype).reshape(*several, *b.shape)
            for b, at in self.places.items()
        }

    def calls(
        self, backend: Backend, arrays: Mapping[Buffer, Array], members: int = 0
    ) -> list[Call]:
        """The operations with their arrays.  Equal buffers become one array."""
        views: dict[Any, Array] = {}

        def bound(value: Any, of: tuple[int, int] | None) -> Any:
            if not isinstance(value, Buffer):
                return value
            if (value, of) not in views:
                array = value.of(arrays[value.root], members)
                views[value, of] = array if of is None or value.shared else array[of[0] : of[1]]
            return views[value, of]

        def work(op: Op) -> Callable[[], None]:
            arguments = (bound(each, op.members) for each in op.arguments.values())
            return partial(getattr(backend, op.name), *arguments)

        return [
            Call(work(op), op.stream, after, op.multiprocessors)
            for op, after in zip(self.program, self.waits(), strict=True)
        ]

    def waits(self) -> list[tuple[int, ...]]:
        """For each operation the last ones on other streams whose results or memory it needs."""
        if len({op.stream for op in self.program}) < 2:
            return [()] * len(self.program)
        spans = [(self._spans(op, op.reads), self._spans(op, op.writes)) for op in self.program]
        found = []
        for i, op in enumerate(self.program):
            reads, writes = spans[i]
            last: dict[int, int] = {}
            if any(other.stream != op.stream for other in self.program[:i]):
                for j in range(i):
                    earlier_reads, earlier_writes = spans[j]
                    if self.program[j].stream != op.stream and (
                        _overlap(reads, earlier_writes) or _overlap(writes, earlier_writes)
                        or _overlap(writes, earlier_reads)
                    ):  # fmt: skip
                        last[self.program[j].stream] = j
            found.append(tuple(sorted(last.values())))
        return found

    def _spans(self, op: Op, buffers: Iterable[Buffer]) -> list[tuple[Any, int, int]]:
        """The memory of buffers of an operation: (which, first byte, end)."""
        spans = []
        part = op.part
        for b in buffers:
            held = b.root not in self.places
            at = 0 if held else self.places[b.root]
            rows = [(b.start, b.start + b.size)]
            if part and b.shape[-1:] == op["theta"].shape:  # θ, dθ, and each slot
                starts = range(b.start, b.start + b.size, op["theta"].size)
                rows = [(start + part[0], start + part[1]) for start in starts]
            spans += [
                (b.root if held else None, at + begin * b.itemsize, at + end * b.itemsize)
                for begin, end in rows
            ]
        return spans


def plan(program: Program, kept: Sequence[Buffer] = ()) -> Plan:
    """Place the buffers that are not held: the largest first, each at the first place that is free.

    A buffer occupies its place from its first operation to its last.  One that is read before it is
    written is an input, which is there from the beginning; the buffers `kept` are there to the end.
    """
    lifetimes = _lifetimes(program, kept)
    placed: list[tuple[int, int, Buffer]] = []  # first byte, end, buffer
    for b in sorted(lifetimes, key=lambda b: -b.nbytes):
        first, last = lifetimes[b]
        at = 0
        for start, end, other in placed:
            if first <= lifetimes[other][1] and lifetimes[other][0] <= last:
                if at + b.nbytes <= start:
                    break
                at = max(at, end)
        bisect.insort(
            placed, (at, at + -(-b.nbytes // ALIGNMENT) * ALIGNMENT, b), key=itemgetter(0)
        )
    size = max((end for _, end, _ in placed), default=0)
    return Plan(program, {b: at for at, _, b in placed}, lifetimes, size)


def _lifetimes(program: Program, kept: Sequence[Buffer]) -> dict[Buffer, tuple[int, int]]:
    """The first and the last operation that uses each buffer that is not held.

    Those of operations that are done row by row are from the first to the last of these.
    """
    first: dict[Buffer, int] = {}
    last: dict[Buffer, int] = {}
    begin = 0
    for i, op in enumerate(program):
        begin = begin if op.by_rows and i and program[i - 1].by_rows else i
        reads = {b.root for b in op.reads}
        for root in dict.fromkeys(b.root for b in op.buffers.values()):
            if not root.held:
                first.setdefault(root, -1 if root in reads else begin)
                last[root] = i
    end = len(program) - 1
    for i in reversed(range(len(program))):
        end = end if program[i].by_rows and i < end and program[i + 1].by_rows else i
        if end > i:
            last |= {b: end for b, j in last.items() if j == i}
    last |= {b: len(program) for b in kept}
    return {b: (first[b], last[b]) for b in first}


def _overlap(some: list[tuple[Any, int, int]], others: list[tuple[Any, int, int]]) -> bool:
    return any(
        a is b and start < stop and begin < end
        for a, start, end in some
        for b, begin, stop in others
    )
