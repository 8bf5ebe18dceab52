"""A step that several processes share: the shards of a minibatch, and the pieces of θ.

A minibatch is cut into shards.  Each process computes the gradients of some neighbouring shards,
one after the other, and adds them up in pairs, as a tree.  Then each process owns a piece of each
bucket of θ: it gets the gradients of its piece from all processes, adds them up as the rest of the
tree, and updates the piece, for which it alone has the optimizer's state.  Last the pieces of θ go
to all.  The shards, the tree and the pieces' borders do not depend on the number of processes, so
θ has the same bits for any number.

Source of the sharded state: Rajbhandari et al. (2020), "ZeRO", stage 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gpumlp.step.program import Buffer, Op, Program, op
from gpumlp.step.recording import F64, ThetaBuffers
from gpumlp.step.shards import Bucket, Shards


def merged(levels: Buffer, size: int, shard: int, last: bool) -> list[Op]:
    """Add the gradients of neighbouring shards after that of `shard`, the process' own number.

    levels (rows · size,): the gradient of a shard is written to the row of `level`.  With these
    operations each row holds the sum of a power of 2 of shards, and after the last all are in
    row 0.
    """
    row, sums = level(shard), 1 if last else level(shard + 1)
    found = []
    while row >= sums:
        both = levels.part(levels.name, (row - 1) * size, (2, size))
        found.append(op("tree_sum", both, levels.part(levels.name, (row - 1) * size, (size,))))
        row -= 1
    return found


def level(shard: int) -> int:
    """The number of sums that are waiting when the gradient of a process' shard is computed."""
    return shard.bit_count()


@dataclass(frozen=True, eq=False)
class Shared:
    """The pass: a step's gradients are exchanged, and θ is updated in pieces.

    Attributes:
        shards, buckets: of the training.
        gradient: ∇J, the sum over this process' shards.
        slots: (number of slots, entries of this process), bucket by bucket.
        replicated: whether each process updates all of θ, with the whole gradient.
        groups: the table of groups for a range of θ.
    """

    shards: Shards
    buckets: Sequence[Bucket]
    gradient: ThetaBuffers
    slots: Buffer
    replicated: bool
    groups: Callable[[int, int], Buffer | None]
    _received: Buffer = field(init=False)

    def __post_init__(self) -> None:
        largest = self.shards.world.size * max(each.size for each in self.buckets)
        received = Buffer("received", (largest,), self.gradient.flat.dtype)
        object.__setattr__(self, "_received", received)  # the class is frozen

    def __call__(self, program: Program, ranks: int) -> Program:
        """The program with what the processes do together.

        ranks: the number of processes that have examples of the minibatch: the first ones.
        """
        update = next(each for each in program if each.name == "update")
        clip = next((each for each in program if each.name == "clip"), None)
        average = next((each for each in program if each.name == "average"), None)
        arrived = self._arrived(program)
        out = Program()
        for i, each in enumerate(program):
            if self.replicated or each not in (update, clip, average):
                out.append(each)
            elif each is clip:
                out.extend(self._clip(clip))
            elif each is update and clip is not None:
                for bucket in self.buckets:
                    out.extend(self._update(bucket, update, average))
            for bucket in self.buckets:
                if arrived[bucket] == i:
                    out.extend(self._sum(bucket, ranks))
                    if clip is None and not self.replicated:
                        out.extend(self._update(bucket, update, average))
        return out

    def _arrived(self, program: Program) -> dict[Bucket, int]:
        """The last operation that writes the gradient of each bucket.

        If none does, since the process has no examples, it is the last one that all processes do:
        one for the statistics of a norm over columns, or the first.
        """
        together = (i for i, each in enumerate(program) if each.name == "collect")
        flat, found = self.gradient.flat, dict.fromkeys(self.buckets, max(together, default=0))
        for i, each in enumerate(program):
            for b in each.writes if each.name != "update" else ():
                begin, end = b.start - flat.start, b.start - flat.start + b.size
                for bucket in self.buckets if b.root is flat.root else ():
                    if begin < bucket.cuts[-1] and bucket.cuts[0] < end:
                        found[bucket] = i
        return found

    def _sum(self, bucket: Bucket, ranks: int) -> list[Op]:
        """The sum over the processes of the gradient of a bucket: of the own piece, or of all."""
        world, flat = self.shards.world, self.gradient.flat
        if world.size == 1:
            return []
        begin, end = bucket.cuts[0], bucket.cuts[-1]
        whole = flat.part(flat.name, begin, (end - begin,))
        # all buckets use one memory, so that the backward pass never waits for it
        received = self._received.part("received", 0, (world.size, bucket.size))
        own = _piece(flat, *bucket.own)
        found = [op("exchange", world, whole, bucket.counts, received)]
        if ranks and bucket.size:
            found.append(op("tree_sum", received.rows(ranks), own))
        if self.replicated:
            found.append(op("collect", world, whole, bucket.counts))
        return found

    def _update(self, bucket: Bucket, update: Op, average: Op | None) -> list[Op]:
        """The update of the own piece of a bucket, which then goes to all processes."""
        theta, rounded, (begin, end) = update["theta"], update["rounded"], bucket.own
        number, n, found = len(self.slots), end - begin, []
        if n:
            own = _piece(theta, begin, end)
            found.append(update.having(
                theta=own, rounded=own if rounded is theta else _piece(rounded, begin, end),
                dtheta=_piece(update["dtheta"], begin, end),
                slots=self.slots.part("slots", number * bucket.start, (number, n)),
                split=_within(update["split"], begin, end), groups=self.groups(begin, end),
                origin=begin,
            ))  # fmt: skip
            if average is not None:
                found.append(average.having(
                    theta=own, mean=_piece(average["mean"], begin, end),
                    rounded=_piece_or_none(average["rounded"], begin, end),
                ))  # fmt: skip
        if self.shards.world.size > 1:
            whole = _piece(rounded, bucket.cuts[0], bucket.cuts[-1])
            found.append(op("collect", self.shards.world, whole, bucket.counts))
        return found

    def _clip(self, clip: Op) -> list[Op]:
        """The norm of the whole gradient, from sums over the pieces in a fixed order."""
        shards, number, found = self.shards, len(self.buckets), []
        squares = Buffer("squares", (shards.count * number,), F64)
        for shard in shards.own:
            for i, bucket in enumerate(self.buckets):
                begin, end = bucket.cuts[shard : shard + 2]
                found.append(op(
                    "square_sum", clip["regularizer"], _piece(clip["theta"], begin, end),
                    _piece(clip["dtheta"], begin, end), _within(clip["split"], begin, end),
                    clip["scaling"], squares.part("squares", shard * number + i, (1,)),
                    _piece_or_none(clip["rounded"], begin, end),
                ))  # fmt: skip
        if shards.world.size > 1:
            counts = (shards.each * number,) * shards.world.size
            found.append(op("collect", shards.world, squares, counts))
        found.append(op("clip_by", squares, clip["max_norm"], clip["scaling"], clip["control"]))
        return found


def _piece(flat: Buffer, begin: int, end: int) -> Buffer:
    return flat.part(flat.name, begin, (end - begin,))


def _piece_or_none(flat: Buffer | None, begin: int, end: int) -> Buffer | None:
    return None if flat is None else _piece(flat, begin, end)


def _within(split: int, begin: int, end: int) -> int:
    """The first bias among the entries from `begin` to `end`, from 0."""
    return min(max(split - begin, 0), end - begin)
