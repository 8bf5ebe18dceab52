"""What a program does: its operations in order, with bytes, FLOPs, memory, streams and times.

Operations on different streams may share a device: then `timeline` says when each of them runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gpumlp.step.plan import Plan
from gpumlp.step.program import Op

Work = tuple[float, float, float]
"""What an operation needs: the device's seconds of multiplying and of moving bytes, and its own
seconds if it runs alone."""
Cost = Callable[[Op], Work]
COLUMNS = ("operation", "result", "shape", "MFLOP", "MB", "memory", "stream", "begin", "µs")


@dataclass(frozen=True)
class Line:
    """One operation.

    Attributes:
        result: the names of the buffers that it writes; shape: that of the first, but of bits.
        flops: the multiplications and additions of its products.
        bytes: what it reads and writes if it moves every array once.
        place: the first byte of this one in the arena; None if it stays between steps.
        stream: 0 is the main stream.
        begin, seconds: when it begins, and how long it takes at least, with what runs beside it
            (see `timeline`); 0 without a device.
    """

    operation: str
    result: str
    shape: tuple[int, ...]
    flops: int
    bytes: int
    place: int | None
    stream: int
    begin: float
    seconds: float


@dataclass(frozen=True)
class Explanation:
    """A program, operation by operation.  It prints as a table.

    Attributes:
        lines: the operations, in order.
        buffers: for each buffer of the arena its name, first byte, size in bytes, and the
            positions of the first and the last operation that uses it.
        arena: the bytes of the arena.
        device: the name of the device whose times these are; None for no times.
    """

    lines: list[Line]
    buffers: list[tuple[str, int, int, int, int]]
    arena: int
    device: str | None

    @property
    def flops(self) -> int:
        """The multiplications and additions of all products."""
        return sum(line.flops for line in self.lines)

    @property
    def bytes(self) -> int:
        """What all operations read and write."""
        return sum(line.bytes for line in self.lines)

    @property
    def seconds(self) -> float:
        """The time from the first operation to the end of the last one."""
        return max(line.begin + line.seconds for line in self.lines)

    def rows(self) -> list[tuple[str, ...]]:
        """The table: a row of texts for each operation, without times if there is no device."""
        found: list[tuple[str, ...]] = [
            (
                line.operation, line.result, " × ".join(map(str, line.shape)),
                f"{line.flops / 1e6:,.1f}" if line.flops else "", f"{line.bytes / 1e6:,.3f}",
                "held" if line.place is None else f"{line.place:,}", str(line.stream),
                f"{1e6 * line.begin:,.2f}", f"{1e6 * line.seconds:,.2f}",
            )
            for line in self.lines
        ]  # fmt: skip
        return found if self.device else [row[:-2] for row in found]

    def __str__(self) -> str:
        table = [COLUMNS if self.device else COLUMNS[:-2], *self.rows()]
        wide = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(
                text.ljust(n) if j < 3 else text.rjust(n)
                for j, (text, n) in enumerate(zip(row, wide, strict=True))
            ).rstrip()
            for row in table
        ]
        return "\n".join([*lines, self.summary()])

    __repr__ = __str__

    def summary(self) -> str:
        """The sums, in one line."""
        text = (
            f"{len(self.lines)} operations, {self.flops / 1e6:,.1f} MFLOP, {self.bytes / 1e6:,.1f} "
            f"MB read and written, an arena of {self.arena / 1e6:,.3f} MB"
        )
        if self.device is None:
            return text
        return f"{text}; at least {1e6 * self.seconds:,.1f} µs on {self.device}"

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """A timeline of the streams, and the buffers in the arena, as a matplotlib Figure.

        If there is a `path`, it is also written there as PNG.

        Raises:
            ImportError: matplotlib is missing.
        """
        from gpumlp import plots

        figure = plots.step_figure(self.to_dict(), self.summary())
        if path is not None:
            plots.write_png(figure, path)
        return figure

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation in JSON types; times are in seconds."""
        names = ("name", "place", "bytes", "first", "last")
        return {
            "device": self.device,
            "operations": [asdict(line) for line in self.lines],
            "buffers": [dict(zip(names, buffer, strict=True)) for buffer in self.buffers],
            "arena": self.arena,
            "flops": self.flops,
            "bytes": self.bytes,
            "seconds": self.seconds if self.device else None,
        }


def explain(
    planned: Plan, device: str | None = None, cost: Cost | None = None, gap: float = 0.0
) -> Explanation:
    """Explain a planned program.

    device, cost, gap: the name of a device, what each operation costs on it, and the seconds
        between operations.
    """
    program, times = planned.program, [(0.0, 0.0)] * len(planned.program)
    if cost is not None:
        streams = [op.stream for op in program]
        times = timeline(streams, planned.waits(), [cost(op) for op in program], gap)
    lines: list[Line] = []
    for op, (begin, end) in zip(program, times, strict=True):
        names = dict.fromkeys(b.name for b in op.writes)
        result = next(b for b in op.writes if b.dtype != np.uint8)  # not the bits of relu's z
        part = op.part
        shape = (part[1] - part[0],) if part else result.shape
        place = planned.places.get(result.root)
        at = None if place is None else place + result.start * result.itemsize
        lines.append(Line(
            op.name, ", ".join(names), shape, op.flops, op.bytes, at, op.stream, begin, end - begin
        ))  # fmt: skip
    buffers = [(b.name, at, b.nbytes, *planned.lifetimes[b]) for b, at in planned.places.items()]
    return Explanation(lines, buffers, planned.size, device)


# ---- times ---------------------------------------------------------------------------------------


def timeline(
    streams: Sequence[int], after: Sequence[tuple[int, ...]], work: Sequence[Work], gap: float
) -> list[tuple[float, float]]:
    """The begin and the end of each operation, in seconds.

    Operations that run at the same time slow each other down: together they multiply no faster, and
    move no more bytes, than the device does.

    Args:
        streams: the stream of each operation; a stream does its operations in order.
        after: for each operation, those of other streams for which it waits.
        work: see `Work`.
        gap: the seconds between an operation's end and the begin of one that waited for it.
    """
    n = len(work)
    begins, ends, done = [0.0] * n, [0.0] * n, set[int]()
    needs = [{*others} for others in after]
    for i in range(n):  # the operation before it on its stream
        needs[i] |= {j for j in range(i) if streams[j] == streams[i]}
    left: dict[int, float] = {}  # the part of each running operation that is still to be done
    now = 0.0
    while len(done) < n:
        waiting = [i for i in range(n) if i not in done and i not in left and needs[i] <= done]
        ready = {i: max((ends[j] + gap for j in needs[i]), default=0.0) for i in waiting}
        if not left:
            now = max(now, min(ready.values()))
        for i in [i for i in waiting if ready[i] <= now]:
            begins[i], left[i] = now, 1.0
            del ready[i]
        rates = _rates([work[i] for i in left])
        spans = [part / rate for part, rate in zip(left.values(), rates, strict=True)]
        span = min([*spans, *(at - now for at in ready.values())])
        now += span
        for i, rate, own in zip(list(left), rates, spans, strict=True):
            left[i] -= rate * span
            if own <= span:
                del left[i]
                done.add(i)
                ends[i] = now
    return list(zip(begins, ends, strict=True))


def _rates(work: Sequence[Work]) -> list[float]:
    """The part of each operation that is done in a second, if these run together."""
    alone = [1 / max(each[2], 1e-15) for each in work]
    loads = [sum(r * each[i] for r, each in zip(alone, work, strict=True)) for i in (0, 1)]
    return [rate / max(1.0, *loads) for rate in alone]
