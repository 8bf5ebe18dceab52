"""The device as the GPU room meets it: a few calls, so that tests can answer them on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy.typing as npt

from gpumlp.cuda.source import KernelSource

DeviceArray = Any
"""An array of the device: shape, dtype, ndim, slices and reshape as NumPy's, C-contiguous."""

Kernel = Callable[[tuple[int, int], tuple[int, int], tuple[Any, ...]], None]
"""kernel(grid, block, arguments): arrays, and NumPy scalars of exactly the parameters' types."""


class Device(Protocol):
    """`gpumlp.cuda.device.CudaDevice` answers with CuPy, NVRTC and cublasLt.

    All work is ordered on one stream; `download` and `synchronize` alone wait for it.
    """

    name: str
    """What the device calls itself."""
    multiprocessors: int
    """How many blocks it takes to keep all of it busy."""

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """An array of undefined values, 256-byte aligned."""

    def owns(self, a: object) -> bool:
        """Whether `a` is an array of this device."""

    def address(self, a: DeviceArray) -> int:
        """Where a's first byte is."""

    def fill(self, a: DeviceArray, value: float) -> None:
        """Every entry of a ← value."""

    def upload(self, a: npt.NDArray[Any], out: DeviceArray) -> None:
        """out ← a, from the host, cast to out's dtype; shapes are equal."""

    def copy(self, a: DeviceArray, out: DeviceArray) -> None:
        """out ← a, on the device, cast to out's dtype; shapes are equal, a may be strided."""

    def download(self, a: DeviceArray) -> npt.NDArray[Any]:
        """a on the host, after all work that writes it."""

    def kernel(self, name: str, source: KernelSource) -> Kernel:
        """The kernel `name` compiled from `source`, from a cache where it was asked for before."""

    def gemm(
        self, a: DeviceArray, b: DeviceArray, out: DeviceArray, *,
        transpose_a: bool = False, transpose_b: bool = False, compute: str,
    ) -> None:  # fmt: skip
        """out ← op(a) op(b), all row-major of one dtype; op(a) (m, k), op(b) (k, n), out (m, n).

        compute: "float64", "float32" or "tf32", the arithmetic of the products.
        """

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """What hands in again, as one graph, the kernels and products that `work` hands in.

        They are recorded, not run.  `work` may ask for nothing else: no memory, no copy, no wait,
        no kernel or product for the first time.
        """

    def synchronize(self) -> None:
        """Wait for all work of the device, the user's own streams included."""
