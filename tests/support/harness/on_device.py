"""Launch a kernel on a real GPU with the same arguments as a kernel of the harness."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.backends.cuda import open_device
from gpumlp.backends.cuda.source import KernelSource

GUARD = 256  # bytes before and after each array, which no kernel may touch
FILL = 0xA5


class DeviceKernel:
    """kernel(grid, block, args): uploads host arrays with their alignment, downloads results."""

    def __init__(self, name: str, source: KernelSource) -> None:
        self.name = name
        self._device = open_device()
        self._launch = self._device.kernel(name, source)

    def __call__(
        self, grid: tuple[int, int], block: tuple[int, int], args: Any, *, order: int = 0
    ) -> None:
        """`order` has no effect: a GPU has its own order."""
        arrays = {id(a): a for a in args if isinstance(a, np.ndarray)}
        first = {a.ctypes.data: key for key, a in reversed(arrays.items())}  # aliases share one
        uploaded = {key: self._up(arrays[key]) for key in first.values()}
        shared = {key: uploaded[first[a.ctypes.data]] for key, a in arrays.items()}
        values = [shared[id(a)][1] if id(a) in shared else a for a in args]
        self._launch(grid, block, tuple(values))
        for key, (whole, part) in uploaded.items():
            self._down(arrays[key], whole, part)

    def _up(self, a: np.ndarray[Any, Any]) -> tuple[Any, Any]:
        """The bytes on the device with guards around them, and the array's part of them."""
        start = GUARD + a.ctypes.data % GUARD
        host = np.full(start + a.nbytes + GUARD, FILL, np.uint8)
        host[start : start + a.nbytes] = np.frombuffer(a.tobytes(), np.uint8)
        whole = self._device.empty(host.shape, np.uint8)
        self._device.upload(host, whole)
        return whole, whole[start : start + a.nbytes]

    def _down(self, a: np.ndarray[Any, Any], whole: Any, part: Any) -> None:
        host = self._device.download(whole)
        start = self._device.address(part) - self._device.address(whole)
        if (np.delete(host, np.s_[start : start + a.nbytes]) != FILL).any():
            raise AssertionError(f"{self.name} writes outside an array")
        if a.flags.writeable:
            np.copyto(
                a, np.frombuffer(host[start : start + a.nbytes].tobytes(), a.dtype).reshape(a.shape)
            )
