"""Streams of a GPU: the order of work on several, uploads beside it, and the time of work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends.cuda.protocol import Event
from gpumlp.backends.declaration import Call
from gpumlp.io.types import Array


def enqueue(
    cuda: Any, streams: Sequence[Any], calls: Sequence[Call], use: Callable[[Call], None]
) -> None:
    """Enqueue each call on its stream; the main stream waits for the others at the end.

    use: prepares the stream of a call, before the call.
    """
    main = streams[0]
    awaited = {i for call in calls for i in call.after}
    start, used = end_of(cuda, main), {0}
    ends: dict[int, Event] = {}
    for i, call in enumerate(calls):
        stream = streams[call.stream]
        for event in [ends[j] for j in call.after] or [start] * (call.stream not in used):
            stream.wait_event(event)
        used.add(call.stream)
        use(call)
        call.work()
        if i in awaited:
            ends[i] = end_of(cuda, stream)
    for i in used - {0}:
        main.wait_event(end_of(cuda, streams[i]))


def end_of(cuda: Any, stream: Any) -> Event:
    """An event at the end of all work enqueued on the stream so far."""
    event = cuda.Event(disable_timing=True)
    event.record(stream)
    return event


TRIALS = 5  # of one measurement
QUICK = 10_000  # µs: a quick measurement begins no trial after so much time


def median_time(
    cuda: Any, stream: Any, flush: Callable[[int], None], work: Callable[[], None], quick: bool
) -> float:
    """The median time in µs that the stream needs for what `work` enqueues.

    flush: is called before each trial with its number.  It overwrites the L2 cache, because other
        work would also overwrite it in a large network.  Meanwhile the host enqueues all of the
        work: its time does not count.
    quick: do fewer trials of long work.
    """
    times: list[float] = []
    work()  # once before, so that kernels and plans exist
    while len(times) < TRIALS and not (quick and sum(times) > QUICK):
        start, end = cuda.Event(), cuda.Event()
        flush(len(times))
        start.record(stream)
        work()
        end.record(stream)
        end.synchronize()
        times.append(1000 * cuda.get_elapsed_time(start, end))
    return float(np.median(times))


class Uploading:
    """The part of `CudaDevice` that copies beside the device's work: see `Device`."""

    _cupy: Any
    _errors: Any
    _stream: Any
    _copies: Any

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        dtype = np.dtype(dtype)
        size = prod(shape) * dtype.itemsize
        with self._errors(f"pinning {size:,} bytes of host memory"):
            memory = self._cupy.cuda.alloc_pinned_memory(size)
        return np.frombuffer(memory, np.uint8, size).view(dtype).reshape(shape)

    def upload_async(self, host: npt.NDArray[Any], out: Array, after: Event) -> Event:
        runtime = self._cupy.cuda.runtime
        with self._errors("an upload"):
            self._copies.wait_event(after)
            runtime.memcpyAsync(
                int(out.data.ptr), host.ctypes.data, host.nbytes, runtime.memcpyHostToDevice,
                self._copies.ptr,
            )  # fmt: skip
            return end_of(self._cupy.cuda, self._copies)

    def mark(self) -> Event:
        with self._errors():
            return end_of(self._cupy.cuda, self._stream)

    def follow(self, event: Event) -> None:
        with self._errors():
            self._stream.wait_event(event)

    def wait(self, event: Event) -> None:
        with self._errors():
            event.synchronize()
