"""What a program does: its operations in order, with bytes, FLOPs, memory, streams and times."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from gpumlp.step.plan import Plan
from gpumlp.step.program import Op
from gpumlp.step.timeline import Work, timeline

Cost = Callable[[Op], Work]
COLUMNS = ("operation", "result", "shape", "MFLOP", "MB", "memory", "stream", "begin", "µs")


@dataclass(frozen=True)
class Line:
    """One operation.

    Attributes:
        result: the names of the buffers that it writes; shape: that of the first.
        flops: the multiplications and additions of its products.
        bytes: what it reads and writes if it moves every array once.
        place: the first byte of the result in the arena; None if the result stays between steps.
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
        result, names = op.writes[0], dict.fromkeys(b.name for b in op.writes)
        part = op.part
        shape = (part[1] - part[0],) if part else result.shape
        place = planned.places.get(result.root)
        at = None if place is None else place + result.start * result.itemsize
        lines.append(Line(
            op.name, ", ".join(names), shape, op.flops, op.bytes, at, op.stream, begin, end - begin
        ))  # fmt: skip
    buffers = [(b.name, at, b.nbytes, *planned.lifetimes[b]) for b, at in planned.places.items()]
    return Explanation(lines, buffers, planned.size, device)
