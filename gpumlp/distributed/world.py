"""The processes of a training, and how bytes move between them on the host."""

from __future__ import annotations

import os
import pickle
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn, TextIO

import numpy as np

from gpumlp.distributed.transport import Pending, Transport, offsets
from gpumlp.errors import first_line
from gpumlp.io.types import HostArray

FAILED = 75  # EX_TEMPFAIL of sysexits.h: the same command may succeed when it is run again
TIMEOUT = 300.0  # seconds
SPIN = 200e-6  # seconds without sleep: an exchange of a few bytes takes 4 µs
SHORTEST_SLEEP, LONGEST_SLEEP = 1e-6, 1e-3  # seconds
CROWDED = 0.1  # seconds in which a core is not yielded after that has taken long
_crowded_until = 0.0


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
        errors: where `fail` prints; None for sys.stderr.
    """

    def __init__(self, transport: Transport | None = None, timeout: float = TIMEOUT) -> None:
        self._transport = transport  # None: a process on its own
        self.rank, self.size, self.local_rank = 0, 1, 0
        if transport is not None:
            self.rank, self.size = transport.rank, transport.size
            self.local_rank = transport.local_rank
        self.host = socket.gethostname()
        self.timeout = timeout
        self.doing = ""
        self.errors: TextIO | None = None
        self._unfinished: list[Pending] = []

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
        if self._transport is None:
            received[0] = source
        self._wait("exchange", as_bytes(source), sizes, rows)

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
        self._wait("gather", as_bytes(whole), sizes)

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
            self._wait("broadcast", as_bytes(array))
        return array

    # ---- waits and failures ----------------------------------------------------------------------

    def _wait(self, operation: str, *arguments: Any) -> None:
        """Start a transfer, a method of `Transport`, and wait until it is complete."""
        if self._transport is None:
            return
        if self._unfinished:
            raise RuntimeError(
                "an exception, such as Ctrl-C, ended an earlier wait for other ranks, so the ranks "
                "no longer agree on what comes next; start the processes again"
            )
        try:
            self._complete(operation, getattr(self._transport, operation)(*arguments))
        except self._transport.broken as error:
            self.fail(f"{operation} failed: {first_line(error)}; look for errors of other ranks")

    def _complete(self, operation: str, pending: Pending) -> None:
        began = time.perf_counter()
        try:
            while not pending.done():
                waited = time.perf_counter() - began
                if waited > self.timeout:
                    self.fail(self._no_answer(operation, pending.missing()))
                pause(waited)
        except BaseException:
            self._unfinished.append(pending)  # with its buffers, in which bytes may still arrive
            raise

    def _no_answer(self, operation: str, missing: list[int]) -> str:
        plural = "s" if len(missing) > 1 else ""
        names = ", ".join(map(str, missing[:16])) + (", …" if len(missing) > 16 else "")
        ranks = f"rank{plural} {names}" if missing else "the other ranks"
        return (
            f"{operation}: no answer from {ranks} for {self.timeout:g} s; if they are only slow, "
            f"use gpumlp.distributed.world(timeout={2 * self.timeout:g})"
        )

    def end(self, status: int) -> NoReturn:
        """End all processes with this exit status."""
        if self._transport is None:
            raise SystemExit(status)
        self._transport.end(status)

    def fail(self, message: str, status: int = FAILED) -> NoReturn:
        """Print "gpumlp: rank 3 of 8 on HOST: <message> (<doing>)" and end all processes.

        Args:
            message: what failed.
            status: the exit status; 75 is EX_TEMPFAIL, "try again".
        """
        doing = f" ({self.doing})" if self.doing else ""
        line = f"gpumlp: rank {self.rank} of {self.size} on {self.host}: {message}{doing}\n"
        self.print_error(line)
        self.end(status)

    def print_error(self, text: str) -> None:
        """Print in one piece, since other ranks print to the same terminal, if that is possible."""
        errors = self.errors or sys.stderr
        with suppress(OSError, ValueError):  # its disk is full, or it is closed
            sys.stdout.flush()
        with suppress(OSError, ValueError):
            errors.write(text)
            errors.flush()


def as_bytes(array: HostArray) -> HostArray:
    """The bytes of a C-contiguous array, without a copy."""
    return array.reshape(-1).view(np.uint8)


def pause(waited: float) -> None:
    """Let others run after a wait of so many seconds: sleep for at most an eighth of it.

    A short wait only yields the core: where there are more processes than cores, a process that
    polls without yielding keeps the ones that it waits for from working (1.3 ms in place of 4 µs).
    Where other programs compute, Linux 6.18 gives a core back after 20 ms, and wakes a process that
    sleeps after 1 ms: then short waits sleep, too.
    """
    global _crowded_until
    now = time.perf_counter()
    if waited < SPIN and now >= _crowded_until:
        getattr(os, "sched_yield", lambda: time.sleep(0))()  # Windows has no sched_yield
        back = time.perf_counter()
        if back - now > SPIN:
            _crowded_until = back + CROWDED
    else:
        time.sleep(min(max(waited / 8, SHORTEST_SLEEP), LONGEST_SLEEP))


ALONE = World()  # a process on its own
