"""Work on several streams of a GPU, in the order of its events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpumlp.backends.cuda.protocol import Event
from gpumlp.backends.declaration import Call
from gpumlp.io.types import Array


def enqueue(
    cuda: Any, branches: Sequence[tuple[Any, Array]], calls: Sequence[Call],
    use: Callable[[Call, Any, Array], None],
) -> None:  # fmt: skip
    """Enqueue each call on its stream; the main stream waits for the others at the end.

    Args:
        cuda: the module `cupy.cuda`.
        branches: the streams, the main one first, and the workspace of each.
        calls: the calls in order.
        use: is told the call that comes next, its stream and its workspace.
    """
    main = branches[0][0]
    awaited = {i for call in calls for i in call.after}
    start, used = end_of(cuda, main), {0}
    ends: dict[int, Event] = {}
    for i, call in enumerate(calls):
        stream, workspace = branches[call.stream]
        for event in [ends[j] for j in call.after] or [start] * (call.stream not in used):
            stream.wait_event(event)
        used.add(call.stream)
        use(call, stream, workspace)
        call.work()
        if i in awaited:
            ends[i] = end_of(cuda, stream)
    for i in used - {0}:
        main.wait_event(end_of(cuda, branches[i][0]))


def end_of(cuda: Any, stream: Any) -> Event:
    """An event at the end of all work enqueued on the stream so far."""
    event = cuda.Event(disable_timing=True)
    event.record(stream)
    return event
