"""A CPU behind the device protocol: memory and products of NumPy, and the real kernels."""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends.cuda.plans import Gemm
from gpumlp.backends.cuda.protocol import Epilogue
from gpumlp.backends.cuda.source import KernelSource, dtype_of
from gpumlp.backends.cuda.tiles import TileSource
from gpumlp.backends.declaration import Call
from gpumlp.distributed.world import World
from gpumlp.errors import OutOfMemoryError
from tests.support.harness import compiled, host_products, tile
from tests.support.harness.host_module import KernelError
from tests.support.harness.host_streams import HostCopies, Stream
from tests.support.harness.memory import aligned_empty

CALLER = Stream(late=True)
"""The stream of the work of a caller, as CuPy's current one is.  Only `synchronize` orders it with
that of a device, and whatever reads a number waits for it."""


class HostArray:
    """An array of the device.  As with CuPy's arrays, NumPy cannot read it implicitly.

    What a caller computes with it is work of `CALLER`.
    """

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self.values = values  # only tests may read it
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim
        self.size, self.itemsize, self.nbytes = values.size, values.itemsize, values.nbytes
        self.flags, self.strides = values.flags, values.strides

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> HostArray:
        index = index if isinstance(index, tuple) else (index,)
        if not any(each is ... for each in index):
            index = *index, ...  # a number gives a view, too
        part = self.values[index]
        if np.may_share_memory(part, self.values) or not part.size:
            return HostArray(part)
        return _computed(part.shape, part.dtype, lambda: self.values[index])

    def __setitem__(self, index: Any, value: Any) -> None:
        given = value.values if isinstance(value, HostArray) else np.array(value)
        CALLER.put(lambda: self.values.__setitem__(index, given))

    def reshape(self, *shape: Any) -> HostArray:
        view = self.values.reshape(*shape)
        if not np.shares_memory(view, self.values) and view.size:
            raise KernelError("this reshape copies")
        return HostArray(view)

    def view(self, dtype: npt.DTypeLike) -> HostArray:
        return HostArray(self.values.view(dtype))

    def min(self) -> Any:
        CALLER.finish()
        return self.values.min()

    def max(self) -> Any:
        CALLER.finish()
        return self.values.max()

    def astype(self, dtype: npt.DTypeLike) -> HostArray:
        return _computed(self.shape, dtype, lambda: self.values)

    def __array__(self, *args: Any, **kwargs: Any) -> npt.NDArray[Any]:
        raise TypeError("implicit copy of a device's array to the host")


def _computed(shape: tuple[int, ...], dtype: npt.DTypeLike, values: Callable[[], Any]) -> HostArray:
    """A new array that gets these values by work of the caller."""
    out = aligned_empty(shape, dtype)
    CALLER.put(lambda: np.copyto(out, values(), casting="unsafe"))
    return HostArray(out)


class HostDevice(HostCopies):
    """`gpumlp.backends.cuda.protocol.Device`.

    Args:
        order: the order of blocks, warps and lanes: 0 forward, 1 backward, other numbers a shuffle.
        multiprocessors: the reported number, which sets the size of grids.
        variant: the variant that `fastest` chooses; "" is the first one.
        late_branches: recorded work of other streams than the main one runs as late as it may,
            instead of as early as it may.
        late: "copies", "work" or "both": the streams that work as late as they may.  Other streams
            work as early as they may.  So work that no event orders runs in the wrong order.

    Attributes:
        fuses: decides which epilogues the device has and finds fast; by default all.
        empties_left: the number of calls of `empty` that succeed; None: all succeed.
        limit: the bytes of memory.
        live, peak: the bytes that are in use, and the largest such number so far.
        calls: all calls of the device, in order, with those that failed:
            "empty (3, 4) float32", "kernel total in reduce.cu, grid 1 1, block 256 1",
            "gemm NT 3 5 4 float32" for (m, n, k), "… batch of 2", …
        asked_for: the names that `fastest` was called with.
    """

    name = "the CPU harness"

    def __init__(
        self, order: int = 0, multiprocessors: int = 4, variant: str = "",
        late_branches: bool = False, late: str = "copies", launches_dependently: bool = False,
    ) -> None:  # fmt: skip
        self.multiprocessors = self.usable = multiprocessors
        self.launches_dependently, self.capability = launches_dependently, "9.0"
        self.order = order
        self.fuses: Callable[[str], bool] = lambda epilogue: True
        self.empties_left: int | None = None
        self.limit, self.reserved = 1 << 40, 0
        self.live = self.peak = 0
        self.calls: list[str] = []
        self.variant, self.late_branches, self.asked_for = variant, late_branches, []
        self._recording: list[Callable[[], None]] | None = None
        self._planned: set[Gemm] = set()
        self._work, copies = (Stream(late in (name, "both")) for name in ("work", "copies"))
        super().__init__(self._work, copies, self._note_call)

    @property
    def launches(self) -> list[str]:
        """Kernels and products among the calls."""
        return [call for call in self.calls if call.startswith(("kernel", "gemm"))]

    # ---- memory -------------------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> HostArray:
        self._note_call(f"empty {shape} {np.dtype(dtype)}")
        size = prod(shape) * np.dtype(dtype).itemsize
        if self.empties_left == 0 or self.live + size > self.limit:
            raise OutOfMemoryError("out of GPU memory")
        if self.empties_left is not None:
            self.empties_left -= 1
        values = aligned_empty(shape, dtype)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(_owner(values), self._free, size)
        return HostArray(values)

    def _free(self, size: int) -> None:
        self.live -= size

    def free_memory(self) -> int:
        return self.limit - self.live

    def owns(self, a: object) -> bool:
        return isinstance(a, HostArray)

    def adopt(self, a: Any) -> HostArray:
        """Also accepts torch's CPU tensors, which stand for tensors on a GPU here."""
        self._note_call("adopt")
        self._work.finish()
        interface = getattr(a, "__cuda_array_interface__", None)
        if interface is not None:
            view = types.SimpleNamespace(__array_interface__=interface, owner=a)
            return HostArray(np.asarray(view))
        if str(a.dtype) == "torch.bfloat16":  # NumPy cannot read it
            bits = np.asarray(a.view(dtype=sys.modules["torch"].int16))
            return HostArray(bits.view(dtype_of("bfloat16")))
        return HostArray(np.asarray(a))

    def address(self, a: HostArray) -> int:
        return int(a.values.ctypes.data)

    def fill(self, a: HostArray, value: float) -> None:
        self._note_call(f"fill {a.shape} {a.dtype}")
        self._work.put(lambda: a.values.fill(value))

    def upload(self, a: npt.NDArray[Any], out: HostArray) -> None:
        self._note_call(f"upload {a.shape} {a.dtype} as {out.dtype}")
        if not isinstance(a, np.ndarray) or a.shape != out.shape:
            raise KernelError(f"upload of {type(a).__name__} {np.shape(a)} into {out.shape}")
        if not out.flags.c_contiguous and not out.flags.f_contiguous:
            raise KernelError("upload into an array that is not contiguous")
        self._work.finish()
        np.copyto(out.values, a, casting="unsafe")

    def copy(self, a: HostArray, out: HostArray) -> None:
        self._note_call(f"copy {a.shape} {a.dtype} as {out.dtype}")
        if a.shape != out.shape:
            raise KernelError(f"copy of {a.shape} into {out.shape}")
        self._work.put(lambda: np.copyto(out.values, a.values, casting="unsafe"))

    def download(self, a: HostArray) -> npt.NDArray[Any]:
        self._note_call(f"download {a.shape} {a.dtype}")
        self._work.finish()
        return a.values.copy()

    def synchronize(self) -> None:
        self._note_call("synchronize")
        CALLER.finish()
        self._work.finish()
        self.finish_copies()

    # ---- work ---------------------------------------------------------------------------------

    def fastest(self, name: str, variants: Mapping[str, Callable[[], Any]]) -> Any:
        self.asked_for.append(name)
        return variants[self.variant if self.variant in variants else next(iter(variants))]()

    def first(self, calls: Sequence[Call], compare: bool = True) -> None:
        for call in calls:
            call.work()

    def record(self, calls: Sequence[Call], dependently: bool = False) -> Callable[[], None]:
        self.calls.append("record" + " dependently" * dependently)
        enqueued: list[list[Callable[[], None]]] = []
        try:
            for call in calls:
                self._recording = []
                self.usable = call.multiprocessors or self.multiprocessors
                call.work()
                enqueued.append(self._recording)
        finally:
            self._recording, self.usable = None, self.multiprocessors
        recorded = [w for i in order_of(calls, self.late_branches) for w in enqueued[i]]

        def replay() -> None:
            self.calls.append(f"replay of {len(recorded)}")
            for each in recorded:
                self._work.put(each)

        return replay

    def _run(self, work: Callable[[], None]) -> None:
        """Run a kernel or a product now, or whenever the recording is replayed."""
        if self._recording is None:
            self._work.put(work)
        else:
            self._recording.append(work)

    def _note_call(self, call: str) -> None:
        """Note a call that CUDA does not allow while a step is recorded."""
        if self._recording is not None:
            raise KernelError(f"this call is not allowed while a step is recorded: {call}")
        self.calls.append(call)

    def kernel(self, name: str, source: KernelSource) -> Callable[..., None]:
        kernel = compiled.kernel(name, source)

        def launch(grid: tuple[int, ...], block: tuple[int, int], args: tuple[Any, ...]) -> None:
            layers = f" {grid[2]}" if len(grid) > 2 and grid[2] > 1 else ""
            sizes = f"grid {grid[0]} {grid[1]}{layers}, block {block[0]} {block[1]}"
            if any(isinstance(a, np.ndarray) for a in args):
                raise KernelError(f"{name}: an argument is in host memory")
            values = [a.values if isinstance(a, HostArray) else a for a in args]

            def run() -> None:
                self.calls.append(f"kernel {name} in {source.file}, {sizes}")
                kernel(grid, block, values, order=self.order)

            self._run(run)

        return launch

    def tile_kernel(self, source: TileSource) -> Callable[..., None]:
        def launch(blocks: int, args: tuple[Any, ...]) -> None:
            values = tuple(a.values if isinstance(a, HostArray) else a for a in args)

            def run() -> None:
                self.calls.append(f"kernel weight_update of {source.name}, {blocks} tiles")
                tile.kernel(source)(blocks, values)

            self._run(run)

        return launch

    def gemm(
        self, a: HostArray, b: HostArray, out: HostArray, *,
        transpose_a: bool = False, transpose_b: bool = False, compute: str,
        factors: HostArray | None = None, epilogue: Epilogue | None = None,
        fallback: Callable[[], None] | None = None,
    ) -> bool:  # fmt: skip
        gemm = Gemm.of(a, b, out, transpose_a, transpose_b, compute, factors, epilogue)
        if (epilogue is None) != (fallback is None):
            raise KernelError("an epilogue needs a fallback, and a fallback needs an epilogue")
        if self._recording is None:
            self._planned.add(gemm)
        elif gemm not in self._planned:
            raise KernelError(f"the product {gemm} is new while a step is recorded")
        if fallback is not None and not self.fuses(gemm.epilogue):
            fallback()
            return False
        self._run(lambda: self._multiply(gemm, a, b, out, factors, epilogue))
        return True

    def exchange(
        self, world: World, source: HostArray, counts: tuple[int, ...], received: HostArray
    ) -> None:
        def run() -> None:
            self.calls.append(f"exchange {counts} {source.dtype}")
            world.exchange(source.values, counts, received.values)

        self._run(run)

    def collect(self, world: World, whole: HostArray, counts: tuple[int, ...]) -> None:
        def run() -> None:
            self.calls.append(f"collect {counts} {whole.dtype}")
            world.gather(whole.values, counts)

        self._run(run)

    def _multiply(
        self, gemm: Gemm, a: HostArray, b: HostArray, out: HostArray, factors: HostArray | None,
        epilogue: Epilogue | None,
    ) -> None:  # fmt: skip
        more = [gemm.epilogue] * bool(gemm.epilogue) + ["factors"] * gemm.factors
        more += [f"batch of {gemm.batch}"] * (gemm.batch > 1)
        sizes = f"{gemm.letters} {gemm.m} {gemm.n} {gemm.k} {gemm.compute}"
        self.calls.append(" ".join(["gemm", sizes, *more]))
        factors_host = None if factors is None else factors.values
        host_products.multiply(gemm, a.values, b.values, out.values, factors_host, epilogue)


def order_of(calls: Sequence[Call], late: bool) -> list[int]:
    """An order in which streams may do these calls: all but the main one early, or late."""
    waiting: dict[int, list[int]] = {}
    for i, call in enumerate(calls):
        waiting.setdefault(call.stream, []).append(i)
    done: list[int] = []
    while any(waiting.values()):
        ready = [
            stream for stream, left in waiting.items()
            if left and set(calls[left[0]].after) <= set(done)
        ]  # fmt: skip
        stream = min(ready, key=lambda s: s if late else -s)
        done.append(waiting[stream].pop(0))
    return done


def _owner(a: npt.NDArray[Any]) -> Any:
    """The object that holds the memory of the view `a`."""
    found: Any = a
    while isinstance(found, np.ndarray):
        found = found.base
    return found
