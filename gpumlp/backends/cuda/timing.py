"""How long the device takes for work, by its own clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpumlp.backends.cuda.protocol import Device

FLUSH_BYTES = 256 << 20  # twice the largest L2 cache of today
TRIALS = 5


class Timer:
    """A stopwatch for a stream.

    The L2 cache is overwritten before each trial, as between the products of a large network.  That
    takes so long that the host has handed in all of the work before the device begins with it, so
    that the host's time is not measured.
    """

    def __init__(self, cupy: Any, device: Device, stream: Any) -> None:
        self._cuda, self._device, self._stream = cupy.cuda, device, stream

    def __call__(self, work: Callable[[], None]) -> float:
        """The median time in µs that the stream takes for what `work` hands it."""
        flush = self._device.empty((FLUSH_BYTES,), np.uint8)
        work()  # once, so that kernels and plans are there
        times = []
        for trial in range(TRIALS):
            start, end = self._cuda.Event(), self._cuda.Event()
            self._device.fill(flush, trial)
            start.record(self._stream)
            work()
            end.record(self._stream)
            end.synchronize()
            times.append(1000 * self._cuda.get_elapsed_time(start, end))
        return float(np.median(times))
