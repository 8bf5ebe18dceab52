"""The device as the CUDA backend meets it: a few calls, so that tests can answer them on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from gpumlp.backends.cuda.source import KernelSource

DeviceArray = Any
"""An array of the device: shape, dtype, ndim, slices and reshape as NumPy's, C-contiguous."""

Kernel = Callable[[tuple[int, int], tuple[int, int], tuple[Any, ...]], None]
"""kernel(grid, block, arguments): arrays, and NumPy scalars of exactly the parameters' types."""


@dataclass(frozen=True, eq=False)
class Epilogue:
    """What a product s = op(a) op(b), (m, n), does before out is written; the names are cublasLt's.

        name               out                           bias (n,)                  aux
        "bias"             s + bias                      read
        "relu_bias"        max(s + bias, 0)              read
        "gelu_bias"        gelu(s + bias), tanh form     read
        "relu_aux_bias"    max(s + bias, 0)              read                       ← s + bias > 0
        "gelu_aux_bias"    gelu(s + bias)                read                       ← s + bias
        "drelu_bgrad"      s where aux, else 0           ← column sums of out       read
        "dgelu_bgrad"      s ⊙ gelu'(aux)                ← column sums of out       read

    max makes 0 of NaN, so that a network that diverges shows it in θ, perhaps not in h.
    Bias has out's dtype, which is not float64; n is a multiple of 8; for the last two, k > 1.

    Attributes:
        aux: gelu's (m, n) in out's dtype; relu's a bit an entry, uint8 of `mask_shape(m, n)`.
    """

    name: str
    bias: DeviceArray
    aux: DeviceArray | None = None


def mask_shape(rows: int, cols: int) -> tuple[int, int]:
    """Of the bytes with a bit for each entry; rows are padded to 128 bits, as cublasLt asks."""
    return rows, -(-cols // 128) * 16


Event = Any
"""A point in the device's work, or in its copies."""


class Copies(Protocol):
    """Uploads beside the device's work, on a stream of their own; `wait` alone makes the host wait.

    An array that a copy reads or writes must live until the copy is done.
    """

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """An array of undefined values in the host's memory, which the device reads by itself."""

    def upload(self, host: npt.NDArray[Any], out: DeviceArray, after: Event) -> Event:
        """out ← host, once `after` is reached; returns the end of it.

        host: pinned, C-contiguous, of out's shape and dtype.
        """

    def mark(self) -> Event:
        """The end of all work handed in so far."""

    def follow(self, event: Event) -> None:
        """Work handed in from now on begins once `event` is reached."""

    def wait(self, event: Event) -> None:
        """Make the host wait until `event` is reached."""


class Device(Protocol):
    """`gpumlp.backends.cuda.device.CudaDevice` answers with CuPy, NVRTC and cublasLt.

    All work is ordered on one stream; `download`, `upload` and `synchronize` alone wait for it.
    """

    copies: Copies

    name: str
    """What the device calls itself."""
    multiprocessors: int
    """How many blocks it takes to keep all of it busy."""
    reserved: int
    """Bytes of memory that it keeps for itself."""

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """An array of undefined values, 256-byte aligned; OutOfMemoryError where none is left."""

    def free_memory(self) -> int:
        """The bytes that `empty` could still give."""

    def owns(self, a: object) -> bool:
        """Whether `a` is an array of this device."""

    def adopt(self, a: Any) -> DeviceArray:
        """An array over the memory of `a`, an array of another library on this or another GPU.

        Work handed in from now on begins after what the other library has handed in on its stream.
        """

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
        factors: DeviceArray | None = None, epilogue: Epilogue | None = None,
        otherwise: Callable[[], None] | None = None,
    ) -> bool:  # fmt: skip
        """out ← op(a) op(b), all row-major; op(a) (m, k), op(b) (k, n), out (m, n).

        a and b have one dtype; out has the same, or float32 where theirs is of 16 bits.

        compute: "float64", "float32", "tf32", "bfloat16" or "float16": the arithmetic of the
            products; 16-bit ones are summed in float32.
        factors: (2,), float64 where compute is, else float32: out ← factors[0] op(a) op(b) +
            factors[1] out, with the values that they have when the product runs.
        epilogue: not with factors.
        otherwise: goes with an epilogue: does the same without it, and is called in place of the
            product where the device has no such epilogue or was measured to be faster without it.

        Returns whether the product was made, and not `otherwise` called.
        """

    def fork(self) -> None:
        """Where `beside` begins: all that was handed in before is done before.

        This, `beside` and `join` are for work that is recorded.
        """

    def on_side_stream(self, work: Callable[[], None]) -> None:
        """Hand in work that may run beside what is handed in between `fork` and `join`."""

    def defer(self, work: Callable[[], None]) -> None:
        """Hand in work that comes after all that was handed in, and that only the end waits for."""

    def join(self) -> None:
        """What is handed in from now on comes after all that `beside` has handed in."""

    def fastest(self, what: str, ways: Mapping[str, Callable[[], Callable[[], None]]]) -> Any:
        """What the way makes that was measured to be the fastest for `what`; else the first one."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """What hands in again, as one graph, the kernels and products that `work` hands in.

        They are recorded, not run.  `work` may ask for nothing else: no memory, no copy, no wait,
        no kernel or product for the first time.
        """

    def synchronize(self) -> None:
        """Wait for all work of the device, the user's own streams included."""
