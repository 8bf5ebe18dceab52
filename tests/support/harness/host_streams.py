"""Two streams of a device on a CPU.  One of them works as late as the events allow."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.support.harness.host_module import KernelError
from tests.support.harness.memory import aligned_empty


class Stream:
    """Work done in order: immediately, or, if `late`, only when something waits for it."""

    def __init__(self, late: bool) -> None:
        self._late = late
        self._todo: deque[Callable[[], None]] = deque()
        self._done = self._enqueued = 0  # numbers of pieces of work

    def put(self, work: Callable[[], None]) -> Event:
        self._todo.append(work)
        self._enqueued += 1
        if not self._late:
            self.finish()
        return self.end()

    def end(self) -> Event:
        return Event(self, self._enqueued)

    def finish(self) -> None:
        self.until(self._enqueued)

    def until(self, number: int) -> None:
        """Do the work up to the piece of this number, from 1."""
        while self._done < number:
            work = self._todo.popleft()
            work()
            self._done += 1


@dataclass(frozen=True)
class Event:
    """The end of a piece of a stream's work."""

    stream: Stream
    number: int

    def reach(self) -> None:
        self.stream.until(self.number)


class HostCopies:
    """The uploads of `gpumlp.backends.cuda.protocol.Device`.

    Args:
        note_call: notes a call that is not allowed while a step is recorded.
    """

    def __init__(self, work: Stream, copies: Stream, note_call: Callable[[str], None]) -> None:
        self._work, self._copies, self._note_call = work, copies, note_call
        self._pinned: list[npt.NDArray[Any]] = []

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        self._note_call(f"pinned {shape} {np.dtype(dtype)}")
        self._pinned.append(aligned_empty(shape, dtype))
        return self._pinned[-1]

    def upload_async(self, host: npt.NDArray[Any], out: Any, after: Event) -> Event:
        self._note_call(f"async upload {host.shape} {host.dtype}")
        if not any(np.may_share_memory(host, a) for a in self._pinned):
            raise KernelError("an upload from memory that is not pinned")
        if (host.shape, host.dtype) != (out.shape, out.dtype) or not host.flags.c_contiguous:
            raise KernelError(f"upload of {host.shape} {host.dtype} into {out.shape} {out.dtype}")
        self._copies.put(after.reach)
        return self._copies.put(lambda: np.copyto(out.values, host))

    def mark(self) -> Event:
        self._note_call("mark")
        return self._work.end()

    def follow(self, event: Event) -> None:
        self._note_call("follow")
        self._work.put(event.reach)

    def wait(self, event: Event) -> None:
        self._note_call("wait")
        event.reach()

    def finish_copies(self) -> None:
        self._copies.finish()
