"""Uploads from pinned memory on a stream of their own, in order with the work by events."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends.cuda.protocol import DeviceArray, Event


class StreamOfCopies:
    """`gpumlp.backends.cuda.protocol.Copies` with CuPy.

    Args:
        cuda: the module `cupy.cuda`.
        work: the stream of the device's work.
        errors: errors(doing) turns CuPy's errors into ours.
    """

    def __init__(
        self, cuda: Any, work: Any, errors: Callable[[str], AbstractContextManager[None]]
    ) -> None:
        self._cuda, self._work, self._errors = cuda, work, errors
        self._stream = cuda.Stream(non_blocking=True)

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        dtype = np.dtype(dtype)
        size = prod(shape) * dtype.itemsize
        with self._errors(f"pinning {size:,} bytes of the host's memory"):
            memory = self._cuda.alloc_pinned_memory(size)
        return np.frombuffer(memory, np.uint8, size).view(dtype).reshape(shape)

    def upload(self, host: npt.NDArray[Any], out: DeviceArray, after: Event) -> Event:
        runtime = self._cuda.runtime
        with self._errors("an upload"):
            self._stream.wait_event(after)
            runtime.memcpyAsync(
                int(out.data.ptr), host.ctypes.data, host.nbytes, runtime.memcpyHostToDevice,
                self._stream.ptr,
            )  # fmt: skip
            return self._end_of(self._stream)

    def mark(self) -> Event:
        with self._errors(""):
            return self._end_of(self._work)

    def follow(self, event: Event) -> None:
        with self._errors(""):
            self._work.wait_event(event)

    def wait(self, event: Event) -> None:
        with self._errors(""):
            event.synchronize()

    def _end_of(self, stream: Any) -> Event:
        event = self._cuda.Event(disable_timing=True)
        event.record(stream)
        return event
