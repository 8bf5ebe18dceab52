"""The statistics of norms over columns, which the micro-batches of a minibatch have in common.

Batch norm reads means over the whole minibatch.  A micro-batch computes its part of them, and can
go on when the parts of all are added.  So the programs of the micro-batches are cut where they wait
for the others, and their sections are interleaved: the first sections of all, the sum, the second
sections of all, …  Several processes send each other their sums.  Parts are added as a tree over
the shards of the minibatch, which does not depend on the number of processes.

The mean and the variance are a single sum, which adds parts as Chan's formula says.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpumlp.functions.blocks import Block
from gpumlp.functions.stages import ColumnStage
from gpumlp.parameters import ALIGNMENT
from gpumlp.step.program import Buffer, Op, Program, op
from gpumlp.step.recording import Model
from gpumlp.step.sharding import Shards
from gpumlp.step.tables import MicroBatch, Tables

MOST = 1023  # parts that `Sharing.tree_sum` adds at a time
WAITS = ("column_mean", "column_moments", "column_slopes")  # what ends a section


def norms(blocks: Sequence[Block]) -> dict[int, ColumnStage]:
    """The norms over columns, by layer."""
    found = {k: block.norm for k, block in enumerate(blocks, 1)}
    return {k: norm for k, norm in found.items() if isinstance(norm, ColumnStage)}


class Statistics:
    """The means s and t of each norm, for one minibatch.

    Args:
        of: the number of examples of the minibatch, 2 or more.
        shards, ranks: those of the training; the number of processes with examples.

    Attributes:
        s, t: of each layer with such a norm, (q, w) and (r, w): n columns and padding.
        sums: the parts of each s that are summed at a time.
    """

    def __init__(
        self, model: Model, of: int, parts: Sequence[MicroBatch], shards: Shards, ranks: int
    ) -> None:
        self.of, self._parts, self._shards, self._ranks = of, parts, shards, ranks
        self._norms, self._running = norms(model.blocks), model.theta.s
        self._dtype = model.theta.flat.dtype
        unit = ALIGNMENT // self._dtype.itemsize
        widths = {k: -(-model.widths[k - 1] // unit) * unit for k in self._norms}
        self.s: dict[int, Buffer] = {}
        self.t = {k: self._new(f"t{k}", n.slopes, widths[k]) for k, n in self._norms.items()}
        self.sums: dict[int, list[Buffer]] = {}
        for k, norm in self._norms.items():
            q = len(norm.running)
            whole = self._new(f"s{k}", q + norm.moments, widths[k])  # moments: and the count
            self.s[k] = whole.rows(q)
            self.sums[k] = [whole] if norm.moments else [whole.rows(1, i) for i in range(q)]
        # all means of a layer use one memory: those of a section are read before the next
        rows = {k: max(len(each) for each in (*self.sums[k], self.t[k])) for k in self._norms}
        self._places = {k: self._new(f"means {k}", len(parts) * rows[k], widths[k]) for k in rows}

    def _new(self, name: str, rows: int, n: int) -> Buffer:
        return Buffer(name, (rows, n), self._dtype)

    @property
    def alone(self) -> bool:
        """Whether a part is already the sum of all."""
        return len(self._parts) == 1 and self._shards.world.size == 1

    def place(self, total: Buffer, k: int, j: int) -> Buffer:
        """Where micro-batch j writes its part of some means of layer k, whose sum is `total`."""
        if self.alone:
            return total
        return self._places[k].part(self._places[k].name, j * total.size, total.shape)

    def interleaved(self, programs: Sequence[Program]) -> Program:
        """The program of all micro-batches of this process, in their order."""
        sections = [_sections(each) for each in programs]
        out = Program()
        sums = [(k, total) for k in self.sums for total in self.sums[k]]
        for i, (k, total) in enumerate(sums + [(k, self.t[k]) for k in reversed(self.t)]):
            for each in sections:
                out += each[i]
            norm, last = self._norms[k], total is self.sums[k][-1]
            moments = last and norm.moments
            if not self.alone:
                out += self._sum(k, total, "tree_moments" if moments else "tree_sum")
            if last and not (moments and self.alone):
                out.running_mean(norm, self.s[k], self.of, self._running[k])
        for each in sections:
            out += each[-1]
        return out

    def _sum(self, k: int, total: Buffer, tree: str) -> list[Op]:
        """total ← the sum of the parts of all micro-batches of all processes."""
        world, n = self._shards.world, total.size
        found, place, at = [], self._places[k], 0
        of_shards = dict.fromkeys(each.shard for each in self._parts)
        counts = [sum(each.shard == shard for each in self._parts) for shard in of_shards]
        for i, count in enumerate(counts):  # a shard's part is in the place of shard i
            if count > 1 or at != i:
                rows = place.part(place.name, at * n, (count, n))
                found.append(op(tree, rows, place.part(place.name, i * n, (n,))))
            at += count
        own = all_ranks = total
        if world.size > 1:
            all_ranks = Buffer(f"{total.name} of ranks", (world.size * n,), self._dtype)
            own = all_ranks.part(all_ranks.name, world.rank * n, (n,))
        flat = own.part(own.name, 0, (n,))
        if counts:
            found.append(op(tree, place.part(place.name, 0, (len(counts), n)), flat))
        if world.size > 1:
            found.append(op("collect", world, all_ranks, (n,) * world.size))
            ranks = all_ranks.part(all_ranks.name, 0, (self._ranks, n))
            found.append(op(tree, ranks, total.part(total.name, 0, (n,))))
        return found


def _sections(program: Program) -> list[Program]:
    """The operations up to each that computes a part of means, and last the rest."""
    found = [Program()]
    for each in program:
        found[-1].append(each)
        if each.name in WAITS:
            found.append(Program())
    return found


def statistics_of(
    model: Model, shards: Shards, tables: Tables, of: int, parts: range
) -> Statistics | None:
    """Those of a minibatch; None without norms over columns, or of a single example.

    A last minibatch of one example has no variance, so its step reads the running averages.

    ValueError: the minibatch cannot be computed as a whole.
    """
    if not norms(model.blocks):
        return None
    if tables.size < 2:
        raise ValueError(
            'norm="batch" needs minibatches of two examples or more, since a single one has no '
            "variance; pass more examples and batch_size=2 or more, or build the network with "
            'norm="layer"'
        )
    of_step = tables.parts(of)
    if len(parts) < len(of_step):
        raise ValueError(
            'norm="batch" reads means over the whole minibatch, and streamed data come in '
            f"{len(of_step)} parts of it; pass accumulate=1 and shards=None, or data that fit the "
            'memory of the backend, or build the network with norm="layer"'
        )
    if max(len(of_step), shards.each) > MOST:
        raise ValueError(
            f'norm="batch" adds the parts of at most {MOST} micro-batches of a process, and here '
            f"are {max(len(of_step), shards.each):,}; pass a smaller accumulate, or fewer shards"
        )
    return None if of < 2 else Statistics(model, of, of_step, shards, tables.ranks(of))
