"""Uploads to a GPU while it computes, and the events that order them."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends.cuda.protocol import Event
from gpumlp.backends.cuda.streams import end_of
from gpumlp.io.types import Array


class Uploading:
    """The part of `CudaDevice` that copies beside the device's work."""

    _cupy: Any
    _errors: Any
    _stream: Any
    _copies: Any

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """See `Device`."""
        dtype = np.dtype(dtype)
        size = prod(shape) * dtype.itemsize
        with self._errors(f"pinning {size:,} bytes of host memory"):
            memory = self._cupy.cuda.alloc_pinned_memory(size)
        return np.frombuffer(memory, np.uint8, size).view(dtype).reshape(shape)

    def upload_async(self, host: npt.NDArray[Any], out: Array, after: Event) -> Event:
        """See `Device`."""
        runtime = self._cupy.cuda.runtime
        with self._errors("an upload"):
            self._copies.wait_event(after)
            runtime.memcpyAsync(
                int(out.data.ptr), host.ctypes.data, host.nbytes, runtime.memcpyHostToDevice,
                self._copies.ptr,
            )  # fmt: skip
            return end_of(self._cupy.cuda, self._copies)

    def mark(self) -> Event:
        """See `Device`."""
        with self._errors():
            return end_of(self._cupy.cuda, self._stream)

    def follow(self, event: Event) -> None:
        """See `Device`."""
        with self._errors():
            self._stream.wait_event(event)

    def wait(self, event: Event) -> None:
        """See `Device`."""
        with self._errors():
            event.synchronize()
