"""The device protocol: the calls that the CUDA backend makes.  In tests, a CPU answers them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from gpumlp.backends.cuda.source import KernelSource
from gpumlp.backends.cuda.tiles import TileSource
from gpumlp.backends.declaration import Call
from gpumlp.distributed.world import World
from gpumlp.io.types import Array

Kernel = Callable[[tuple[int, ...], tuple[int, int], tuple[Any, ...]], None]
"""kernel(grid, block, arguments): arrays, and NumPy scalars of exactly the parameters' types."""

TileKernel = Callable[[int, tuple[Any, ...]], None]
"""kernel(blocks, arguments): arrays whose last dimension is contiguous, and NumPy scalars."""


@dataclass(frozen=True, eq=False)
class Epilogue:
    """What a product s = op(a) op(b), (m, n), computes before it writes out.

    The names are cublasLt's:

        name               out                           bias (n,)                  aux
        "bias"             s + bias                      read
        "relu_bias"        max(s + bias, 0)              read
        "gelu_bias"        gelu(s + bias), tanh form     read
        "relu_aux_bias"    max(s + bias, 0)              read                       ← s + bias > 0
        "gelu_aux_bias"    gelu(s + bias)                read                       ← s + bias
        "drelu_bgrad"      s where aux, else 0           ← column sums of out       read
        "dgelu_bgrad"      s ⊙ gelu'(aux)                ← column sums of out       read

    The maximum turns NaN into 0, so a network that diverges may show it in θ but not in h.
    bias has the dtype of out, which is not float64; n is a multiple of 8; for the last two, k > 1.
    In a batch, bias and aux have the leading dimension, too.

    Attributes:
        aux: for gelu (m, n) in the dtype of out; for relu one bit for each entry, uint8 of
            `mask_shape(m, n)`.
    """

    name: str
    bias: Array
    aux: Array | None = None


def mask_shape(rows: int, cols: int) -> tuple[int, int]:
    """The shape, in bytes, of a mask of one bit for each entry.

    cublasLt wants rows that are padded to 128 bits.
    """
    return rows, -(-cols // 128) * 16


Event = Any
"""A point in the device's work or in its copies, which other work can wait for."""


class Device(Protocol):
    """A GPU.  `gpumlp.backends.cuda.device.CudaDevice` uses CuPy, NVRTC and cublasLt.

    All work is ordered on one stream, except `upload_async` and within a recorded step.  Only
    `download`, `upload`, `wait` and `synchronize` block the host.
    """

    name: str
    """The name that the driver reports."""
    capability: str
    """The compute capability, such as "9.0"."""
    multiprocessors: int
    """The number of multiprocessors, which sets the size of grids."""
    usable: int
    """How many of them work that is enqueued now may use: see `Call`."""
    reserved: int
    """The bytes of memory that the device object keeps for itself."""

    launches_dependently: bool
    """Whether `record` can make a kernel ready while the one before it runs."""

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """An array of undefined values, 256-byte aligned.  Raises OutOfMemoryError."""

    def free_memory(self) -> int:
        """The bytes that `empty` can still allocate."""

    def owns(self, a: object) -> bool:
        """Whether `a` is an array of this device."""

    def adopt(self, a: Any) -> Array:
        """An array over the memory of `a`, an array of another library on this or another GPU.

        Work that is enqueued from now on starts after the work that the other library has enqueued.
        """

    def address(self, a: Array) -> int:
        """The address of the first byte of `a`."""

    def fill(self, a: Array, value: float) -> None:
        """Every entry of a ← value."""

    def upload(self, a: npt.NDArray[Any], out: Array) -> None:
        """out ← a, from the host, cast to the dtype of out.  The shapes are equal."""

    def copy(self, a: Array, out: Array) -> None:
        """out ← a, on the device, cast to the dtype of out.  Shapes are equal, a may be strided."""

    def download(self, a: Array) -> npt.NDArray[Any]:
        """The values of `a` on the host, after all work that writes `a`."""

    def kernel(self, name: str, source: KernelSource) -> Kernel:
        """The kernel `name` of `source`, compiled at the first request and cached."""

    def tile_kernel(self, source: TileSource) -> TileKernel:
        """The kernel of `source`, of which there is `machine_code` for this capability."""

    def gemm(
        self, a: Array, b: Array, out: Array, *, transpose_a: bool = False,
        transpose_b: bool = False, compute: str, factors: Array | None = None,
        epilogue: Epilogue | None = None, fallback: Callable[[], None] | None = None,
    ) -> bool:  # fmt: skip
        """out ← op(a) op(b), all row-major: op(a) (m, k), op(b) (k, n), out (m, n).

        a and b have one dtype.  out has the same dtype, or float32 if theirs has 16 bits.
        With a leading dimension in all three, it is a batch: one such product for each member.
        Each member is C-contiguous; the strides between members may be longer than a member.

        compute: the arithmetic, "float64", "float32", "tf32", "bfloat16" or "float16".  16-bit
            products are summed in float32.
        factors: (2,), float64 if compute is float64, else float32: out ← factors[0] op(a) op(b) +
            factors[1] out, with the values of the moment when the product runs.
        epilogue: not together with factors.
        fallback: is given with an epilogue and computes the same without it.  The device calls it
            if it has no such epilogue, or if a measurement found the fallback to be faster.

        Returns False if `fallback` was called, else True.
        """

    def fastest(self, name: str, variants: Mapping[str, Callable[[], Callable[[], None]]]) -> Any:
        """Make and return the variant that was measured as the fastest for `name`, else the first.

        variants: name of the variant -> function that makes it.
        """

    def first(self, calls: Sequence[Call], compare: bool = True) -> None:
        """Do the calls of a step in order, before it is recorded.

        compare: whether a product with an epilogue that is new is compared with its fallback.
        """

    def record(self, calls: Sequence[Call], dependently: bool = False) -> Callable[[], None]:
        """Record the kernels and products that the calls enqueue.  The result replays them.

        Each call is ordered after the calls before it on its stream, and after those that it names.
        Recording does not run them.  They may not allocate, copy or wait, and they may not use a
        kernel or a product for the first time.

        dependently: with programmatic dependent launches of our own kernels, if the device has
            `launches_dependently`.
        """

    def exchange(
        self, world: World, source: Array, counts: tuple[int, ...], received: Array
    ) -> None:
        """`Sharing.exchange`.  The first one, or the first `collect`, is not in a recorded step."""

    def collect(self, world: World, whole: Array, counts: tuple[int, ...]) -> None:
        """`Sharing.collect`."""

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """An array of undefined values in host memory that the device can read by itself."""

    def upload_async(self, host: npt.NDArray[Any], out: Array, after: Event) -> Event:
        """Enqueue out ← host, after the event `after`, while the device computes.

        host: pinned, C-contiguous, with the shape and dtype of out.  Both arrays must live until
            the event that is returned.
        """

    def mark(self) -> Event:
        """The event of the end of all work enqueued so far."""

    def follow(self, event: Event) -> None:
        """Work that is enqueued from now on starts after `event`."""

    def wait(self, event: Event) -> None:
        """Block the host until `event` has happened."""

    def synchronize(self) -> None:
        """Wait for all work of the device, the user's own streams included."""
