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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from gpumlp import checks
from gpumlp.distributed.world import ALONE, World
from gpumlp.parameters import ALIGNMENT, Layout
from gpumlp.step.program import Buffer, Op, Program, op

MOST = 1 << 16  # shards of a minibatch
BUCKET = 1 << 22  # entries, at least, where buckets are exchanged during the backward pass


@dataclass(frozen=True, eq=False)
class Shards:
    """The parts of each minibatch, and the processes that compute them.

    Attributes:
        world: the processes; each has `count / world.size` neighbouring shards, a power of 2 unless
            there is a single process.
    """

    count: int
    world: World

    @property
    def each(self) -> int:
        """The number of shards of a process."""
        return self.count // self.world.size

    @property
    def own(self) -> range:
        """The shards of this process."""
        return range(self.world.rank * self.each, (self.world.rank + 1) * self.each)


WHOLE = Shards(1, ALONE)  # a minibatch that is not cut


@dataclass(frozen=True)
class Bucket:
    """A range of θ whose gradients are exchanged together.

    Attributes:
        cuts: the first entry of the piece of each shard, and the end.
        own: the first entry and the end of the pieces of this process.
        counts: the number of entries of the pieces of each process.
        start: the number of this process' entries in earlier buckets.
    """

    cuts: tuple[int, ...]
    own: tuple[int, int]
    counts: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        """The number of entries of this process."""
        return self.own[1] - self.own[0]


def buckets(layout: Layout, shards: Shards, overlapped: bool) -> list[Bucket]:
    """The buckets in the order in which the backward pass completes them: layers L … 1, biases.

    overlapped: whether there are several buckets of weights, so that one is exchanged while the
        gradients of the next are computed.
    """
    ends = [layout.split]
    if overlapped:
        of_layers = [s for p, s in zip(layout.parts, layout.starts, strict=False) if p.name == "W"]
        for start in reversed(of_layers[1:]):
            if ends[-1] - start >= BUCKET:
                ends.append(start)
    ranges = [*((low, high) for high, low in pairwise([*ends, 0])), (layout.split, layout.size)]
    found: list[Bucket] = []
    unit, each, V = ALIGNMENT // layout.itemsize, shards.each, shards.count
    for low, high in ranges:
        cuts = tuple(low + (high - low) // unit * i // V * unit for i in range(V + 1))
        of_ranks = cuts[::each]
        found.append(Bucket(
            cuts, (cuts[shards.own.start], cuts[shards.own.stop]),
            tuple(b - a for a, b in pairwise(of_ranks)),
            found[-1].start + found[-1].size if found else 0,
        ))  # fmt: skip
    return found


def checked_shards(count: Any, world: Any) -> Shards:
    """The arguments `shards` and `world` of `Trainer`, checked."""
    if world is not None and not isinstance(world, World):
        raise TypeError(
            f"world must be gpumlp.distributed.world() or None, got {type(world).__name__}"
        )
    world = world or ALONE
    V = world.size if count is None else checks.positive_int(count, "shards")
    if V > MOST:
        raise ValueError(f"shards must be at most {MOST:,}, got {V:,}")
    each, rest = divmod(V, world.size)
    if rest or (world.size > 1 and each.bit_count() != 1):
        known = ", ".join(str(world.size << i) for i in range(4))
        raise ValueError(
            f"shards={V} cannot be shared by {world.size} processes: each needs the same number, "
            f"a power of 2; pass one of {known}, …, or start another number of processes"
        )
    return Shards(V, world)


# ---- the passes ----------------------------------------------------------------------------------


Groups = Mapping[tuple[int, int], Buffer | None]
"""The table of groups for a range of θ, see `Backend.update`."""


def share(
    program: Program, shards: Shards, buckets: Sequence[Bucket], ranks: int, replicated: bool,
    groups: Groups,
) -> Program:  # fmt: skip
    """The step with what the processes do together: gradients are exchanged, θ moves in pieces.

    ranks: the number of processes that have examples of the minibatch: the first ones.
    replicated: whether each process updates all of θ, with the whole gradient.
    """
    found = {each.name: each for each in program}
    update, clip, average = found["update"], found.get("clip"), found.get("average")
    arrived = _arrived(program, update["dtheta"], buckets)
    largest = shards.world.size * max(each.size for each in buckets)
    received = Buffer("received", (largest,), update["dtheta"].dtype)
    out = Program()
    for i, each in enumerate(program):
        if replicated or each not in (update, clip, average):
            out.append(each)
        elif each is clip:
            out += _clip(shards, buckets, clip)
        elif each is update and clip is not None:
            for bucket in buckets:
                out += _update(shards.world, bucket, update, average, groups)
        for bucket in buckets:
            if arrived[bucket] == i:
                out += _sum(shards.world, bucket, update["dtheta"], received, ranks, replicated)
                if clip is None and not replicated:
                    out += _update(shards.world, bucket, update, average, groups)
    return out


def _arrived(program: Program, flat: Buffer, buckets: Sequence[Bucket]) -> dict[Bucket, int]:
    """The last operation that writes the gradient of each bucket.

    If none does, since the process has no examples, it is the last one that all processes do: one
    for the statistics of a norm over columns, or the first.
    """
    together = (i for i, each in enumerate(program) if each.name == "collect")
    found = dict.fromkeys(buckets, max(together, default=0))
    for i, each in enumerate(program):
        for b in each.writes if each.name != "update" else ():
            begin, end = b.start - flat.start, b.start - flat.start + b.size
            for bucket in buckets if b.root is flat.root else ():
                if begin < bucket.cuts[-1] and bucket.cuts[0] < end:
                    found[bucket] = i
    return found


def _sum(
    world: World, bucket: Bucket, flat: Buffer, received: Buffer, ranks: int, replicated: bool
) -> list[Op]:
    """The sum over the processes of the gradient of a bucket: of the own piece, or of all."""
    if world.size == 1:
        return []
    whole = flat.rows(sum(bucket.counts), bucket.cuts[0])
    # all buckets use one memory, so that the backward pass never waits for it
    rows = received.part("received", 0, (world.size, bucket.size))
    found = [op("exchange", world, whole, bucket.counts, rows)]
    if ranks and bucket.size:
        found.append(op("tree_sum", rows.rows(ranks), flat.rows(bucket.size, bucket.own[0])))
    if replicated:
        found.append(op("collect", world, whole, bucket.counts))
    return found


def _update(
    world: World, bucket: Bucket, update: Op, average: Op | None, groups: Groups
) -> list[Op]:
    """The update of the own piece of a bucket, which then goes to all processes."""
    theta, rounded, slots = update["theta"], update["rounded"], update["slots"]
    (begin, end), n, found = bucket.own, bucket.size, []
    if n:
        own = theta.rows(n, begin)
        found.append(update.having(
            theta=own, rounded=own if rounded is theta else rounded.rows(n, begin),
            dtheta=update["dtheta"].rows(n, begin),
            slots=slots.part("slots", len(slots) * bucket.start, (len(slots), n)),
            split=_within(update["split"], begin, end), groups=groups[begin, end], origin=begin,
        ))  # fmt: skip
        if average is not None:
            mean = average["mean"].rows(n, begin)
            rest = average["rounded"] and average["rounded"].rows(n, begin)
            found.append(average.having(theta=own, mean=mean, rounded=rest))
    if world.size > 1:
        whole = rounded.rows(sum(bucket.counts), bucket.cuts[0])
        found.append(op("collect", world, whole, bucket.counts))
    return found


def _clip(shards: Shards, buckets: Sequence[Bucket], clip: Op) -> list[Op]:
    """The norm of the whole gradient, from sums over the pieces in a fixed order."""
    world, number, found = shards.world, len(buckets), []
    squares = Buffer("squares", (shards.count * number,), np.dtype(np.float64))
    for shard in shards.own:
        for i, bucket in enumerate(buckets):
            begin, end = bucket.cuts[shard : shard + 2]
            n = end - begin
            found.append(op(
                "square_sum", clip["regularizer"], clip["theta"].rows(n, begin),
                clip["dtheta"].rows(n, begin), _within(clip["split"], begin, end),
                clip["scaling"], squares.rows(1, shard * number + i),
                clip["rounded"] and clip["rounded"].rows(n, begin),
            ))  # fmt: skip
    if world.size > 1:
        counts = (shards.each * number,) * world.size
        found.append(op("collect", world, squares, counts))
    found.append(op("clip_by", squares, clip["max_norm"], clip["scaling"], clip["control"]))
    return found


def _within(split: int, begin: int, end: int) -> int:
    """The first bias among the entries from `begin` to `end`, from 0."""
    return min(max(split - begin, 0), end - begin)
