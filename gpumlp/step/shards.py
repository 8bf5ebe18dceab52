"""The shards of a minibatch, and the pieces of θ that each process owns."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from gpumlp import checks
from gpumlp.distributed.world import ALONE, World
from gpumlp.parameters import ALIGNMENT, Layout

MOST = 1 << 16  # shards of a minibatch
BUCKET = 1 << 22  # entries, at least, where buckets are exchanged during the backward pass


@dataclass(frozen=True, eq=False)
class Shards:
    """The parts of each minibatch, and the processes that compute them.

    Attributes:
        count: how many.
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

    @property
    def levels(self) -> int:
        """The number of gradients that a process holds while it adds those of its shards."""
        return self.each.bit_length() if self.each > 1 else 1


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
    """The arguments `shards` and `world` of `Trainer`, checked.

    Raises:
        ValueError, TypeError: they are not as described there.
    """
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
