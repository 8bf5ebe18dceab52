"""The gradient of a step: where each micro-batch puts its own, and how these are added up."""

from __future__ import annotations

from typing import Any

from gpumlp.step.program import Buffer, Op, op
from gpumlp.step.recording import ThetaBuffers, held, theta_buffers
from gpumlp.step.settings import Settings
from gpumlp.step.tables import MicroBatch


class Gradients:
    """The sum of the gradients of this process' micro-batches.

    The products add up ∇W, and `add` adds up the rest.  The gradients of shards are added in pairs,
    as a tree.  The sums have θ's type, and so has each W's gradient from the start.

    Args:
        together: whether some micro-batches are computed at the same time.  Then each shard needs a
            place for its gradient; else there is one for each sum of a power of 2 of shards.

    Attributes:
        total: the sum, after the last micro-batch.
        initial: the values with which own buffers begin, but for `total`.
    """

    def __init__(self, settings: Settings, together: bool) -> None:
        net, each = settings.net, settings.shards.each
        backend, layout = net.backend, net.theta.layout
        several = settings.accumulate > 1 or settings.shards.count > 1
        self._size = size = layout.size
        count = each if together else each.bit_length() if each > 1 else 1
        self._rows = held("∇J", (count * size,), backend.dtype if several else backend.storage)
        rows = (self._rows.rows(size, i * size) for i in range(count))
        self._levels = [theta_buffers(row, layout) for row in rows]
        self.total = self._levels[0]
        self._parts: list[Buffer] = []
        self.initial: dict[Buffer, float] = {}
        if several:
            count = settings.accumulate * each if together else 1
            name, n = "∇b of a micro-batch", size - layout.split
            parts = held(name, (count * n,), backend.storage)
            self._parts = [parts.rows(n, i * n) for i in range(count)]
            self._ones = held("ones", (2,), backend.dtype, shared=True)
            self.initial = {parts: 0.0, self._ones: 1.0}

    def of(
        self, each: MicroBatch, j: int, last: bool, together: bool
    ) -> tuple[ThetaBuffers, list[Op]]:
        """Where micro-batch j puts its gradients, and the operations that add them up after it.

        last: whether it is the last one.
        together: whether the others are computed at the same time; then `sum_of` adds up the rest.
        """
        d = self._levels[each.number if together else _level(each.number)]
        if not self._parts:
            return d, []
        part = self._parts[j if together else 0]

        def own(views: list[Any]) -> list[Any]:
            start = d.flat.start + d.split
            return [v and part.part(v.name, v.start - start, v.shape) for v in views]

        (E,) = own([d.E])
        factors = None if each.first else self._ones
        after = [op("add", part, d.flat.part("∇b", d.split, part.shape), each.first)]
        if each.last and not together:
            after += self._merged(each.number, last)
        return d._replace(b=own(d.b), phi=own(d.phi), c=own(d.c), E=E, factors=factors), after

    def _merged(self, shard: int, last: bool) -> list[Op]:
        """Add the gradients of neighbouring shards after that of `shard`, the process' own number.

        With these operations each level holds the sum of a power of 2 of shards, and after the last
        shard all are in `total`.
        """
        row, sums = _level(shard), 1 if last else _level(shard + 1)
        return [self._tree_sum(i - 1, 2) for i in range(row, sums - 1, -1)]

    def sum_of(self, shards: int) -> list[Op]:
        """Add the gradients of so many shards, after micro-batches that were computed together."""
        return [self._tree_sum(0, shards)] if shards > 1 else []

    def _tree_sum(self, i: int, count: int) -> Op:
        """Row i ← the sum of so many rows from i on."""
        rows = self._rows.part("∇J", i * self._size, (count, self._size))
        return op("tree_sum", rows, self._levels[i].flat)


def _level(shard: int) -> int:
    """The number of sums that are waiting when the gradient of a process' shard is computed."""
    return shard.bit_count()
