"""What a `World` needs of the library that moves its bytes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NoReturn, Protocol

from gpumlp.io.types import HostArray


class Pending(Protocol):
    """A transfer that was started."""

    def done(self) -> bool:
        """Whether it is complete.  Calling it also moves the transfer on."""

    def missing(self) -> list[int]:
        """The ranks whose part has not arrived; [] where that is not known."""


class Transport(Protocol):
    """What moves the bytes of a `World`.  The arrays are C-contiguous, of uint8.

    Attributes:
        rank: the number of this process.
        size: the number of processes.
        local_rank: the number of this process among those of its machine.
        broken: the errors by which a transfer fails, say since another process ended.
    """

    rank: int
    size: int
    local_rank: int
    broken: tuple[type[Exception], ...]

    def exchange(self, source: HostArray, counts: Sequence[int], received: HostArray) -> Pending:
        """received[r] ← the piece of rank r's source that is for this rank."""

    def gather(self, whole: HostArray, counts: Sequence[int]) -> Pending:
        """Every rank's piece of `whole` ← that rank's."""

    def broadcast(self, array: HostArray) -> Pending:
        """Array ← rank 0's."""

    def end(self, status: int) -> NoReturn:
        """End all processes."""


def offsets(counts: Sequence[int]) -> list[slice]:
    """The slices of consecutive pieces of these lengths."""
    ends = list(itertools.accumulate(counts, initial=0))
    return [slice(*pair) for pair in itertools.pairwise(ends)]
