"""Streaming of rows from host memory to the GPU: the `feed` operation of the CUDA backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.backends.cuda.protocol import Device, Event
from gpumlp.backends.cuda.source import CASTS
from gpumlp.backends.feed import Index, take_rows
from gpumlp.io.mapped import rows_of
from gpumlp.io.threads import Threads, blas_threads
from gpumlp.io.types import Array, HostArray


def transfer_dtype(source: HostArray, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which rows of the source are uploaded for arrays of `dtype`.

    It is the source's own if the GPU can cast from it.  Otherwise the host casts to `dtype`.
    """
    gpu_casts = source.dtype.isnative and source.dtype.name in CASTS
    return source.dtype if gpu_casts else dtype


@dataclass
class _Pair:
    """A buffer in pinned host memory, a buffer on the device, and what must happen before reuse."""

    host: HostArray
    on_device: Array
    read: Event  # the cast has read the device's buffer
    copied: Event | None = None  # the upload has read the host's buffer and written the device's


class DeviceFeed:
    """The `Feed` of the CUDA backend: rows are gathered in pinned memory, uploaded, and cast.

    It alternates between two pairs of buffers.  While the GPU computes with one minibatch, the host
    gathers the next one.  The host waits if the GPU is two minibatches behind.

    Args:
        rows: the largest number of rows of one minibatch.
        cast: cast(source, out) casts on the device.
    """

    def __init__(
        self, device: Device, source: HostArray, rows: int, dtype: np.dtype[Any],
        cast: Callable[[Array, Array], None],
    ) -> None:  # fmt: skip
        self._device = device
        self._source, self._cast = rows_of(source), cast
        self._threads = Threads(blas_threads())
        shape, kind = (rows, *source.shape[1:]), transfer_dtype(source, dtype)
        buffers = [(self._device.pinned(shape, kind), device.empty(shape, kind)) for _ in range(2)]
        # earlier work that is still running may use the new buffers' memory
        self._pairs = [_Pair(*buffer, read=self._device.mark()) for buffer in buffers]
        self._next = 0

    def fetch(self, index: Index) -> None:
        pair, m = self._pairs[self._next], len(index)
        if pair.copied is not None:
            self._device.wait(pair.copied)
        take_rows(self._threads, self._source, index, pair.host[:m])
        pair.copied = self._device.upload_async(pair.host[:m], pair.on_device[:m], pair.read)

    def copy_into(self, out: Array) -> None:
        pair = self._pairs[self._next]
        self._device.follow(pair.copied)
        self._cast(pair.on_device[: len(out)], out)
        pair.read = self._device.mark()
        self._next = 1 - self._next
