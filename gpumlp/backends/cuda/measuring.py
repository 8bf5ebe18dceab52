"""The time that a GPU needs for some work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

TRIALS = 5  # of one measurement
QUICK = 10_000  # µs: a quick measurement begins no trial after so much time


def median_time(
    cuda: Any, stream: Any, flush: Callable[[int], None], work: Callable[[], None], quick: bool
) -> float:
    """The median time in µs that the stream needs for what `work` enqueues.

    Args:
        cuda: the module `cupy.cuda`.
        stream: the stream on which `flush` and `work` enqueue.
        flush: is called before each trial with its number.  It overwrites the L2 cache, because
            other work would also overwrite it in a large network.  Meanwhile the host enqueues all
            of the work: its time does not count.
        work: what is measured.
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
