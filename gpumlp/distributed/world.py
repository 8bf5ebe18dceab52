"""The processes of a training, and how bytes move between them on the host."""

from __future__ import annotations

import itertools
import os
import pickle
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

import numpy as np

from gpumlp.errors import first_line
from gpumlp.io.types import HostArray

FAILED = 75  # EX_TEMPFAIL of sysexits.h: the same command may succeed when it is run again
TIMEOUT = 300.0  # seconds
SPIN = 200e-6  # seconds without sleep: an exchange of a few bytes takes 4 µs
LONGEST_SLEEP = 1e-3  # seconds


class Pending(Protocol):
    """A transfer that was started."""

    def done(self) -> bool:
        """Whether it is complete.  Calling it also moves the transfer on."""
        ...

    def missing(self) -> list[int]:
        """The ranks whose part has not arrived; [] where that is not known."""
        ...


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
        ...

    def gather(self, whole: HostArray, counts: Sequence[int]) -> Pending:
        """Every rank's piece of `whole` ← that rank's."""
        ...

    def broadcast(self, array: HostArray) -> Pending:
        """Array ← rank 0's."""
        ...

    def end(self, status: int) -> NoReturn:
        """End all processes."""
        ...


class Complete:
    """A transfer that is complete."""

    def done(self) -> bool:
        """Return True."""
        return True

    def missing(self) -> list[int]:
        """Return []: nothing is missing."""
        return []


class Alone:
    """The transport of one process."""

    rank, size, local_rank = 0, 1, 0
    broken: tuple[type[Exception], ...] = ()

    def exchange(self, source: HostArray, counts: Sequence[int], received: HostArray) -> Pending:
        """received[0] ← source."""
        received[0] = source
        return Complete()

    def gather(self, whole: HostArray, counts: Sequence[int]) -> Pending:
        """`whole` is complete."""
        return Complete()

    def broadcast(self, array: HostArray) -> Pending:
        """`array` is rank 0's."""
        return Complete()

    def end(self, status: int) -> NoReturn:
        """Raise SystemExit."""
        raise SystemExit(status)


class World:
    """The processes of a training.

    All ranks call the same methods in the same order.  A call returns when its arrays are complete.
    A wait that lasts longer than `timeout`, or that fails since another process ended, ends all
    processes, as `fail` does.

    Attributes:
        rank: the number of this process, 0 to size - 1.
        size: the number of processes.
        local_rank: the number of this process among those of its machine.
        host: the name of this machine.
        timeout: the longest wait for other ranks, in seconds.
        doing: what this process is doing, such as "step 12, exchange of ∇W"; errors name it.
    """

    def __init__(self, transport: Transport | None = None, timeout: float = TIMEOUT) -> None:
        self._transport = Alone() if transport is None else transport
        self.rank, self.size = self._transport.rank, self._transport.size
        self.local_rank = self._transport.local_rank
        self.host = socket.gethostname()
        self.timeout = timeout
        self.doing = ""

    def __repr__(self) -> str:
        return f"World(rank {self.rank} of {self.size} on {self.host})"

    # ---- arrays ----------------------------------------------------------------------------------

    def exchange(self, source: HostArray, counts: Sequence[int], received: HostArray) -> None:
        """received[r] ← the piece of rank r's source that is for this rank (all to all).

        Args:
            source: shape (n,), any dtype, C-contiguous.  Its pieces, of counts[0], counts[1], …
                entries, are for rank 0, 1, ….
            counts: equal on all ranks; their sum is n.
            received: shape (size, counts[rank]), the dtype of `source`, C-contiguous.

        Raises:
            ValueError: for arrays of another shape, dtype or layout.
        """
        self._check_counts(counts)
        self._check_array("source", source, (sum(counts),))
        self._check_array("received", received, (self.size, counts[self.rank]))
        if received.dtype != source.dtype:
            raise ValueError(f"received is {received.dtype} but source is {source.dtype}")
        sizes = [count * source.itemsize for count in counts]
        rows = as_bytes(received).reshape(self.size, sizes[self.rank])
        self._wait("exchange", lambda: self._transport.exchange(as_bytes(source), sizes, rows))

    def gather(self, whole: HostArray, counts: Sequence[int]) -> None:
        """Every rank's piece of `whole` ← that rank's, in place (all-gather).

        Args:
            whole: shape (n,), any dtype, C-contiguous.  Its pieces, of counts[0], counts[1], …
                entries, are those of rank 0, 1, ….
            counts: equal on all ranks; their sum is n.

        Raises:
            ValueError: for an array of another shape or layout.
        """
        self._check_counts(counts)
        self._check_array("whole", whole, (sum(counts),))
        sizes = [count * whole.itemsize for count in counts]
        self._wait("gather", lambda: self._transport.gather(as_bytes(whole), sizes))

    def _check_counts(self, counts: Sequence[int]) -> None:
        if len(counts) != self.size or min(counts) < 0:
            raise ValueError(f"counts must be {self.size} numbers, one a rank, not {list(counts)}")

    def _check_array(self, name: str, array: HostArray, shape: tuple[int, ...]) -> None:
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape} but counts need {shape}")
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} is not C-contiguous; pass an array as numpy.empty makes it")

    # ---- Python values ---------------------------------------------------------------------------

    def share(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in order.

        Args:
            value: a small value that pickle can write.
        """
        text = np.frombuffer(pickle.dumps(value), np.uint8)
        lengths = np.zeros(self.size, np.int64)
        lengths[self.rank] = text.size
        self.gather(lengths, [1] * self.size)
        counts: list[int] = lengths.tolist()
        pieces = offsets(counts)
        whole = np.empty(sum(counts), np.uint8)
        whole[pieces[self.rank]] = text
        self.gather(whole, counts)
        return [pickle.loads(whole[piece].data) for piece in pieces]

    def broadcast(self, value: Any = None) -> Any:
        """Return rank 0's value.

        Args:
            value: rank 0: a value that pickle can write.  NumPy arrays of any size in it are sent
                as they are; others get a writable copy.
        """
        if self.size == 1:
            return value
        buffers: list[HostArray] = []
        if self.rank == 0:
            outside: list[pickle.PickleBuffer] = []
            text = pickle.dumps(value, protocol=5, buffer_callback=outside.append)
            buffers = [np.frombuffer(piece.raw(), np.uint8) for piece in outside]
            buffers.insert(0, np.frombuffer(text, np.uint8))
        number = self._broadcast(np.array([len(buffers)], np.int64))
        lengths = np.zeros(number[0], np.int64)
        lengths[: len(buffers)] = [buffer.size for buffer in buffers]
        self._broadcast(lengths)
        if self.rank != 0:
            buffers = [np.empty(length, np.uint8) for length in lengths]
        for buffer in buffers:
            self._broadcast(buffer)
        return value if self.rank == 0 else pickle.loads(buffers[0].data, buffers=buffers[1:])

    def _broadcast(self, array: HostArray) -> HostArray:
        if array.size:
            self._wait("broadcast", lambda: self._transport.broadcast(as_bytes(array)))
        return array

    # ---- waits and failures ----------------------------------------------------------------------

    def _wait(self, operation: str, start: Any) -> None:
        """Start a transfer and wait until it is complete."""
        try:
            pending: Pending = start()
            began = time.perf_counter()
            while not pending.done():
                waited = time.perf_counter() - began
                if waited > self.timeout:
                    self.fail(self._no_answer(operation, pending.missing()))
                pause(waited)
        except self._transport.broken as error:
            self.fail(f"{operation} failed: {first_line(error)}; look for errors of other ranks")

    def _no_answer(self, operation: str, missing: list[int]) -> str:
        plural = "s" if len(missing) > 1 else ""
        names = ", ".join(map(str, missing[:16])) + (", …" if len(missing) > 16 else "")
        ranks = f"rank{plural} {names}" if missing else "the other ranks"
        return (
            f"{operation}: no answer from {ranks} for {self.timeout:g} s; if they are only slow, "
            f"use gpumlp.distributed.world(timeout={2 * self.timeout:g})"
        )

    def fail(self, message: str, status: int = FAILED) -> NoReturn:
        """Print "gpumlp: rank 3 of 8 on HOST: <message> (<doing>)" and end all processes.

        Args:
            message: what failed.
            status: the exit status; 75 is EX_TEMPFAIL, "try again".
        """
        doing = f" ({self.doing})" if self.doing else ""
        line = f"gpumlp: rank {self.rank} of {self.size} on {self.host}: {message}{doing}\n"
        sys.stdout.flush()
        sys.stderr.write(line)  # in one piece: other ranks write to the same terminal
        sys.stderr.flush()
        self._transport.end(status)


def as_bytes(array: HostArray) -> HostArray:
    """The bytes of a C-contiguous array, without a copy."""
    return array.reshape(-1).view(np.uint8)


def offsets(counts: Sequence[int]) -> list[slice]:
    """The slices of consecutive pieces of these lengths."""
    ends = list(itertools.accumulate(counts, initial=0))
    return [slice(*pair) for pair in itertools.pairwise(ends)]


def pause(waited: float) -> None:
    """Let others run after a wait of so many seconds: sleep for at most an eighth of it.

    A short wait only yields the core: where there are more processes than cores, a process that
    polls without yielding keeps the ones that it waits for from working (1.3 ms in place of 4 µs).
    """
    if waited < SPIN:
        getattr(os, "sched_yield", lambda: time.sleep(0))()  # Windows has no sched_yield
    else:
        time.sleep(min(waited / 8, LONGEST_SLEEP))
