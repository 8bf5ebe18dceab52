"""When the operations of a program run, if those on different streams share a device."""

from __future__ import annotations

from collections.abc import Sequence

Work = tuple[float, float, float]
"""What an operation needs: the device's seconds of multiplying and of moving bytes, and its own
seconds if it runs alone."""


def timeline(
    streams: Sequence[int], after: Sequence[tuple[int, ...]], work: Sequence[Work], gap: float
) -> list[tuple[float, float]]:
    """The begin and the end of each operation, in seconds.

    Operations that run at the same time slow each other down: together they multiply no faster, and
    move no more bytes, than the device does.

    Args:
        streams: the stream of each operation; a stream does its operations in order.
        after: for each operation, those of other streams for which it waits.
        work: see `Work`.
        gap: the seconds between an operation's end and the begin of one that waited for it.
    """
    n = len(work)
    begins, ends, done = [0.0] * n, [0.0] * n, set[int]()
    needs = [{*others} for others in after]
    for i in range(n):  # the operation before it on its stream
        needs[i] |= {j for j in range(i) if streams[j] == streams[i]}
    left: dict[int, float] = {}  # the part of each running operation that is still to be done
    now = 0.0
    while len(done) < n:
        waiting = [i for i in range(n) if i not in done and i not in left and needs[i] <= done]
        ready = {i: max((ends[j] + gap for j in needs[i]), default=0.0) for i in waiting}
        if not left:
            now = max(now, min(ready.values()))
        for i in [i for i in waiting if ready[i] <= now]:
            begins[i], left[i] = now, 1.0
            del ready[i]
        rates = _rates([work[i] for i in left])
        spans = [part / rate for part, rate in zip(left.values(), rates, strict=True)]
        span = min([*spans, *(at - now for at in ready.values())])
        now += span
        for i, rate, own in zip(list(left), rates, spans, strict=True):
            left[i] -= rate * span
            if own <= span:
                del left[i]
                done.add(i)
                ends[i] = now
    return list(zip(begins, ends, strict=True))


def _rates(work: Sequence[Work]) -> list[float]:
    """The part of each operation that is done in a second, if these run together."""
    alone = [1 / max(each[2], 1e-15) for each in work]
    loads = [sum(r * each[i] for r, each in zip(alone, work, strict=True)) for i in (0, 1)]
    return [rate / max(1.0, *loads) for rate in alone]
