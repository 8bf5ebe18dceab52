"""The device behind the CUDA backend's seam, on a CPU: NumPy memory and products, the real kernels."""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends.cuda.plans import Gemm
from gpumlp.backends.cuda.protocol import Epilogue
from gpumlp.backends.cuda.source import KernelSource
from gpumlp.backends.cuda.types import dtype_of
from gpumlp.errors import OutOfMemoryError
from tests.support.harness import compiled, epilogues
from tests.support.harness.host_module import KernelError
from tests.support.harness.host_streams import HostCopies, Stream
from tests.support.harness.memory import aligned, aligned_empty

Host = npt.NDArray[Any]


class HostArray:
    """An array of the device.  As with CuPy's, NumPy cannot read it unasked."""

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self.values = values  # for tests' eyes alone
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim
        self.size, self.itemsize, self.nbytes = values.size, values.itemsize, values.nbytes
        self.flags = values.flags

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> HostArray:
        return HostArray(np.asarray(self.values[index]))

    def __setitem__(self, index: Any, value: Any) -> None:
        self.values[index] = value.values if isinstance(value, HostArray) else value

    def reshape(self, *shape: Any) -> HostArray:
        view = self.values.reshape(*shape)
        if not np.shares_memory(view, self.values) and view.size:
            raise KernelError("this reshape copies")
        return HostArray(view)

    def min(self) -> Any:
        return self.values.min()

    def max(self) -> Any:
        return self.values.max()

    def astype(self, dtype: npt.DTypeLike) -> HostArray:
        return HostArray(aligned(self.values, dtype))

    def __array__(self, *args: Any, **kwargs: Any) -> npt.NDArray[Any]:
        raise TypeError("implicit copy of a device's array to the host")


class HostDevice:
    """`gpumlp.backends.cuda.protocol.Device`.

    Args:
        order: of the kernels' blocks, warps and lanes: 0 forward, 1 backward, else a shuffle.
        multiprocessors: what it calls its own, which grids grow with.
        way: which of the ways `fastest` takes; "" is the first.
        late_branches: what is handed in beside other work runs at `join`, not right after `fork`.
        late: "copies", "work" or "both": the streams whose work is done as late as can be; the
            others' is done as early as can be.  What no event orders happens in the wrong order.

    Attributes:
        fuses: which epilogues it has and finds fast; all.
        empties_left: the calls of `empty` until one finds no memory; None: all find some.
        limit: bytes of memory that it has.
        live, peak: bytes that are in use, and the most that were.
        calls: what was asked of the device, in order, those that failed included:
            "empty (3, 4) float32", "kernel total in reduce.cu, grid 1 1, block 256 1",
            "gemm NT 3 5 4 float32" for (m, n, k), …
    """

    name = "the CPU harness"

    def __init__(
        self, order: int = 0, multiprocessors: int = 4, way: str = "", late_branches: bool = False,
        late: str = "copies",
    ) -> None:  # fmt: skip
        self.multiprocessors = multiprocessors
        self.order = order
        self.fuses: Callable[[str], bool] = lambda epilogue: True
        self.empties_left: int | None = None
        self.limit, self.reserved = 1 << 40, 0
        self.live = self.peak = 0
        self.calls: list[str] = []
        self.way, self.late_branches, self.asked_for = way, late_branches, []
        self._recording: list[Callable[[], None]] | None = None
        self._aside: list[Callable[[], None]] = []
        self._after: list[Callable[[], None]] = []
        self._fork = 0
        self._work, copies = (Stream(late in (name, "both")) for name in ("work", "copies"))
        self.copies = HostCopies(self._work, copies, self._asked)

    @property
    def launches(self) -> list[str]:
        """Kernels and products among the calls."""
        return [call for call in self.calls if call.startswith(("kernel", "gemm"))]

    # ---- memory -------------------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> HostArray:
        self._asked(f"empty {shape} {np.dtype(dtype)}")
        size = prod(shape) * np.dtype(dtype).itemsize
        if self.empties_left == 0 or self.live + size > self.limit:
            raise OutOfMemoryError("out of GPU memory")
        if self.empties_left is not None:
            self.empties_left -= 1
        values = aligned_empty(shape, dtype)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(_owner(values), self._freed, size)
        return HostArray(values)

    def _freed(self, size: int) -> None:
        self.live -= size

    def free_memory(self) -> int:
        return self.limit - self.live

    def owns(self, a: object) -> bool:
        return isinstance(a, HostArray)

    def adopt(self, a: Any) -> HostArray:
        """Of what says that it is on a GPU, and of torch's tensors, which stand for such here."""
        self._asked("adopt")
        self._work.finish()
        said = getattr(a, "__cuda_array_interface__", None)
        if said is not None:
            return HostArray(np.asarray(types.SimpleNamespace(__array_interface__=said, kept=a)))
        if str(a.dtype) == "torch.bfloat16":  # which NumPy does not read
            bits = np.asarray(a.view(dtype=sys.modules["torch"].int16))
            return HostArray(bits.view(dtype_of("bfloat16")))
        return HostArray(np.asarray(a))

    def address(self, a: HostArray) -> int:
        return int(a.values.ctypes.data)

    def fill(self, a: HostArray, value: float) -> None:
        self._asked(f"fill {a.shape} {a.dtype}")
        self._work.put(lambda: a.values.fill(value))

    def upload(self, a: npt.NDArray[Any], out: HostArray) -> None:
        self._asked(f"upload {a.shape} {a.dtype} as {out.dtype}")
        if not isinstance(a, np.ndarray) or a.shape != out.shape:
            raise KernelError(f"upload of {type(a).__name__} {np.shape(a)} into {out.shape}")
        self._work.finish()
        np.copyto(out.values, a, casting="unsafe")

    def copy(self, a: HostArray, out: HostArray) -> None:
        self._asked(f"copy {a.shape} {a.dtype} as {out.dtype}")
        if a.shape != out.shape:
            raise KernelError(f"copy of {a.shape} into {out.shape}")
        self._work.put(lambda: np.copyto(out.values, a.values, casting="unsafe"))

    def download(self, a: HostArray) -> npt.NDArray[Any]:
        self._asked(f"download {a.shape} {a.dtype}")
        self._work.finish()
        return a.values.copy()

    def synchronize(self) -> None:
        self._asked("synchronize")
        self._work.finish()
        self.copies.finish()

    # ---- work ---------------------------------------------------------------------------------

    def fork(self) -> None:
        self._recorded("fork")
        self._fork = len(self._recorded("fork"))

    def on_side_stream(self, work: Callable[[], None]) -> None:
        recording, self._recording = self._recorded("beside"), []
        try:
            work()
        finally:
            aside, self._recording = self._recording, recording
        if self.late_branches:
            self._aside += aside
        else:
            recording[self._fork : self._fork] = aside

    def defer(self, work: Callable[[], None]) -> None:
        recording, self._recording = self._recorded("behind"), []
        try:
            work()
        finally:
            after, self._recording = self._recording, recording
        (self._after if self.late_branches else recording).extend(after)

    def join(self) -> None:
        self._recorded("join").extend(self._aside)
        self._aside.clear()

    def fastest(self, what: str, ways: Mapping[str, Callable[[], Any]]) -> Any:
        self.asked_for.append(what)
        return ways[self.way if self.way in ways else next(iter(ways))]()

    def _recorded(self, call: str) -> list[Callable[[], None]]:
        if self._recording is None:
            raise KernelError(f"{call} is for a step that is recorded")
        return self._recording

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self.calls.append("record")
        self._recording = recorded = []
        try:
            work()
            self.join()
            recorded += self._after
        finally:
            self._recording = None
            self._after.clear()

        def replay() -> None:
            self.calls.append(f"replay of {len(recorded)}")
            for each in recorded:
                self._work.put(each)

        return replay

    def _run(self, work: Callable[[], None]) -> None:
        """A kernel or a product: now, or whenever what is recorded is replayed."""
        if self._recording is None:
            self._work.put(work)
        else:
            self._recording.append(work)

    def _asked(self, call: str) -> None:
        """Note a call that is not to be recorded: while one records, CUDA refuses it."""
        if self._recording is not None:
            raise KernelError(f"not while a step is recorded: {call}")
        self.calls.append(call)

    def kernel(self, name: str, source: KernelSource) -> Callable[..., None]:
        kernel = compiled.kernel(name, source)

        def launch(grid: tuple[int, int], block: tuple[int, int], args: tuple[Any, ...]) -> None:
            sizes = f"grid {grid[0]} {grid[1]}, block {block[0]} {block[1]}"
            if any(isinstance(a, np.ndarray) for a in args):
                raise KernelError(f"{name}: an argument lies in the host's memory")
            values = [a.values if isinstance(a, HostArray) else a for a in args]

            def run() -> None:
                self.calls.append(f"kernel {name} in {source.file}, {sizes}")
                kernel(grid, block, values, order=self.order)

            self._run(run)

        return launch

    def gemm(
        self, a: HostArray, b: HostArray, out: HostArray, *,
        transpose_a: bool = False, transpose_b: bool = False, compute: str,
        factors: HostArray | None = None, epilogue: Epilogue | None = None,
        otherwise: Callable[[], None] | None = None,
    ) -> bool:  # fmt: skip
        gemm = Gemm.of(a, b, out, transpose_a, transpose_b, compute, factors, epilogue)
        if (epilogue is None) != (otherwise is None):
            raise KernelError("an epilogue and the way without it go together")
        if otherwise is not None and not self.fuses(gemm.epilogue):
            otherwise()
            return False
        self._run(lambda: self._multiply(gemm, a, b, out, factors, epilogue))
        return True

    def _multiply(
        self, gemm: Gemm, a: HostArray, b: HostArray, out: HostArray, factors: HostArray | None,
        epilogue: Epilogue | None,
    ) -> None:  # fmt: skip
        more = [gemm.epilogue] * bool(gemm.epilogue) + ["factors"] * gemm.factors
        sizes = f"{gemm.letters} {gemm.m} {gemm.n} {gemm.k} {gemm.compute}"
        self.calls.append(" ".join(["gemm", sizes, *more]))
        _check_product(gemm, a.values, b.values, out.values)
        wide = np.float64 if gemm.compute == "float64" else np.float32
        left, right = a.values.astype(wide, copy=False), b.values.astype(wide, copy=False)
        s = (left.T if gemm.transpose_a else left) @ (right.T if gemm.transpose_b else right)
        if factors is not None:
            out.values[...] = _scaled(gemm, factors.values, s, out.values)
        elif epilogue is not None:
            out.values[...] = _finished(gemm, epilogue, s, out)
        else:
            out.values[...] = s


def _owner(a: Host) -> Any:
    """What holds the memory that a is a view of."""
    found: Any = a
    while isinstance(found, np.ndarray):
        found = found.base
    return found


def _check_product(gemm: Gemm, a: Host, b: Host, out: Host) -> None:
    """What cublasLt refuses, or answers with rubbish."""
    if any(x.ndim != 2 or not x.flags.c_contiguous for x in (a, b, out)):
        raise KernelError("gemm takes contiguous matrices")
    inputs = "float32" if gemm.compute == "tf32" else gemm.compute
    results = {inputs, "float32"} if inputs in ("bfloat16", "float16") else {inputs}
    if {a.dtype.name, b.dtype.name} != {inputs} or out.dtype.name not in results:
        names = [x.dtype.name for x in (a, b, out)]
        raise KernelError(f"gemm of {names} computed in {gemm.compute}")
    if any(np.may_share_memory(x, out) for x in (a, b)):
        raise KernelError("gemm's result overlaps an input")
    op_a = a.shape[::-1] if gemm.transpose_a else a.shape
    op_b = b.shape[::-1] if gemm.transpose_b else b.shape
    if (op_a[0], op_b[1]) != out.shape or op_a[1] != op_b[0]:
        raise KernelError(f"gemm {gemm.letters} of {a.shape} and {b.shape} into {out.shape}")


def _scaled(gemm: Gemm, factors: Host, s: Host, out: Host) -> Host:
    if gemm.epilogue or factors.shape != (2,) or factors.dtype.name != gemm.scale:
        raise KernelError(f"gemm with factors {factors.shape} {factors.dtype}, {gemm}")
    scaled: Host = factors[0] * s  # where beta is 0, cublasLt does not read out
    return scaled + factors[1] * out.astype(s.dtype) if factors[1] else scaled


def _finished(gemm: Gemm, epilogue: Epilogue, s: Host, out: HostArray) -> Host:
    bias, aux = epilogue.bias.values, epilogue.aux and epilogue.aux.values
    needs = "aux" in epilogue.name or epilogue.name.startswith("d")
    kind = np.dtype("uint8") if "relu" in epilogue.name else out.dtype
    reason = epilogues.refusal(epilogue.name, gemm.n, gemm.k, out.dtype, gemm.aux)
    if (aux is not None) != needs or (needs and (len(aux), aux.dtype) != (gemm.m, kind)):
        reason = "another aux is needed"
    if bias.shape != (gemm.n,) or bias.dtype != out.dtype:
        reason = f"bias is {bias.shape} {bias.dtype}"
    if any(x.ctypes.data % 16 for x in (out.values, bias, *([] if aux is None else [aux]))):
        reason = "an array is not aligned"
    if any(np.may_share_memory(out.values, x) for x in (bias, aux) if x is not None):
        reason = "an array overlaps the result"
    if reason:
        raise KernelError(f"gemm {gemm}: {reason}")
    return epilogues.apply(epilogue.name, s, bias, aux)
