"""Work on several streams of a GPU, in the order of its events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpumlp.backends.cuda.protocol import Event
from gpumlp.backends.declaration import Call


def enqueue(
    cuda: Any, streams: Sequence[Any], calls: Sequence[Call], use: Callable[[Call], None]
) -> None:
    """Enqueue each call on its stream; the main stream waits for the others at the end.

    Args:
        cuda: the module `cupy.cuda`.
        streams: the streams, the main one first.
        calls: the calls in order.
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
