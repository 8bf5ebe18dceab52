"""Rows of the host's arrays, one minibatch after the other: the operation `feed` of the CUDA backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.backends.cuda.protocol import Copies, Device, DeviceArray, Event
from gpumlp.backends.cuda.source import CASTS
from gpumlp.backends.feed import Index, take_rows
from gpumlp.io.mapped import rows_of
from gpumlp.io.threads import Threads, blas_threads
from gpumlp.io.types import HostArray


def travels_as(source: HostArray, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type that rows of the source have on their way into arrays of `dtype`."""
    as_it_is = source.dtype.isnative and source.dtype.name in CASTS
    return source.dtype if as_it_is else dtype


@dataclass
class _Pair:
    """A pinned buffer, its twin on the device, and what each must wait for to be written again."""

    host: HostArray
    twin: DeviceArray
    read: Event  # the twin has been read
    copied: Event | None = None  # the pinned buffer has been read, and the twin written


class DeviceFeed:
    """Rows gathered into pinned memory, uploaded beside the work, and cast on the device.

    Two pairs of buffers take turns: while the device works on one minibatch the host gathers the
    next, and waits where the device is two behind.

    Args:
        dtype: what the rows are taken in.  A source that has it, or a type that the device casts
            from, travels as it is; others the host casts.
        cast: cast(twin, out) on the device.
    """

    def __init__(
        self, device: Device, source: HostArray, rows: int, dtype: np.dtype[Any],
        cast: Callable[[DeviceArray, DeviceArray], None],
    ) -> None:  # fmt: skip
        self._copies: Copies = device.copies
        self._source, self._cast = rows_of(source), cast
        self._threads = Threads(blas_threads())
        shape, kind = (rows, *source.shape[1:]), travels_as(source, dtype)
        buffers = [(self._copies.pinned(shape, kind), device.empty(shape, kind)) for _ in range(2)]
        # fresh memory may be what work still under way reads
        self._pairs = [_Pair(host, twin, self._copies.mark()) for host, twin in buffers]
        self._turn = 0

    def fetch(self, index: Index) -> None:
        pair, m = self._pairs[self._turn], len(index)
        if pair.copied is not None:
            self._copies.wait(pair.copied)
        take_rows(self._threads, self._source, index, pair.host[:m])
        pair.copied = self._copies.upload(pair.host[:m], pair.twin[:m], pair.read)

    def take(self, out: DeviceArray) -> None:
        pair = self._pairs[self._turn]
        self._copies.follow(pair.copied)
        self._cast(pair.twin[: len(out)], out)
        pair.read = self._copies.mark()
        self._turn = 1 - self._turn
