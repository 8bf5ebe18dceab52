"""The device behind the GPU room's seam, on a CPU: NumPy memory and products, the real kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.cuda.source import KernelSource
from gpumlp.errors import DeviceError
from harness import compiled
from harness.host_module import KernelError
from harness.memory import aligned_empty


class HostArray:
    """An array of the device.  As with CuPy's, NumPy cannot read it unasked."""

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self.values = values  # for tests' eyes alone
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim
        self.size, self.itemsize, self.nbytes = values.size, values.itemsize, values.nbytes

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

    def __array__(self, *args: Any, **kwargs: Any) -> npt.NDArray[Any]:
        raise TypeError("implicit copy of a device's array to the host")


class HostDevice:
    """`gpumlp.cuda.seam.Device`.

    Args:
        order: of the kernels' blocks, warps and lanes: 0 forward, 1 backward, else a shuffle.
        multiprocessors: what it calls its own, which grids grow with.

    Attributes:
        empties_left: the calls of `empty` until one finds no memory; None: all find some.
        calls: what was asked of the device, in order, those that failed included:
            "empty (3, 4) float32", "kernel total in reduce.cu, grid 1 1, block 256 1",
            "gemm NT 3 5 4 float32" for (m, n, k), …
    """

    name = "the CPU harness"

    def __init__(self, order: int = 0, multiprocessors: int = 4) -> None:
        self.multiprocessors = multiprocessors
        self.order = order
        self.empties_left: int | None = None
        self.calls: list[str] = []
        self._recording: list[Callable[[], None]] | None = None

    @property
    def launches(self) -> list[str]:
        """Kernels and products among the calls."""
        return [call for call in self.calls if call.startswith(("kernel", "gemm"))]

    # ---- memory -------------------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> HostArray:
        self._asked(f"empty {shape} {np.dtype(dtype)}")
        if self.empties_left == 0:
            raise DeviceError("out of GPU memory")
        if self.empties_left is not None:
            self.empties_left -= 1
        return HostArray(aligned_empty(shape, dtype))

    def owns(self, a: object) -> bool:
        return isinstance(a, HostArray)

    def address(self, a: HostArray) -> int:
        return int(a.values.ctypes.data)

    def fill(self, a: HostArray, value: float) -> None:
        self._asked(f"fill {a.shape} {a.dtype}")
        a.values.fill(value)

    def upload(self, a: npt.NDArray[Any], out: HostArray) -> None:
        self._asked(f"upload {a.shape} {a.dtype} as {out.dtype}")
        if not isinstance(a, np.ndarray) or a.shape != out.shape:
            raise KernelError(f"upload of {type(a).__name__} {np.shape(a)} into {out.shape}")
        np.copyto(out.values, a, casting="unsafe")

    def copy(self, a: HostArray, out: HostArray) -> None:
        self._asked(f"copy {a.shape} {a.dtype} as {out.dtype}")
        if a.shape != out.shape:
            raise KernelError(f"copy of {a.shape} into {out.shape}")
        np.copyto(out.values, a.values, casting="unsafe")

    def download(self, a: HostArray) -> npt.NDArray[Any]:
        self._asked(f"download {a.shape} {a.dtype}")
        return a.values.copy()

    def synchronize(self) -> None:
        self._asked("synchronize")

    # ---- work ---------------------------------------------------------------------------------

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self.calls.append("record")
        self._recording = recorded = []
        try:
            work()
        finally:
            self._recording = None

        def replay() -> None:
            self.calls.append(f"replay of {len(recorded)}")
            for each in recorded:
                each()

        return replay

    def _asked(self, call: str) -> None:
        """Note a call that is not to be recorded: while one records, CUDA refuses it."""
        if self._recording is not None:
            raise KernelError(f"not while a step is recorded: {call}")
        self.calls.append(call)

    def kernel(self, name: str, source: KernelSource) -> Callable[..., None]:
        kernel = compiled.kernel(name, source)

        def launch(grid: tuple[int, int], block: tuple[int, int], args: tuple[Any, ...]) -> None:
            if self._recording is not None:
                self._recording.append(lambda: launch(grid, block, args))
                return
            sizes = f"grid {grid[0]} {grid[1]}, block {block[0]} {block[1]}"
            self.calls.append(f"kernel {name} in {source.file}, {sizes}")
            if any(isinstance(a, np.ndarray) for a in args):
                raise KernelError(f"{name}: an argument lies in the host's memory")
            values = [a.values if isinstance(a, HostArray) else a for a in args]
            kernel(grid, block, values, order=self.order)

        return launch

    def gemm(
        self, a: HostArray, b: HostArray, out: HostArray, *,
        transpose_a: bool = False, transpose_b: bool = False, compute: str,
    ) -> None:  # fmt: skip
        if self._recording is not None:
            again = {"transpose_a": transpose_a, "transpose_b": transpose_b, "compute": compute}
            self._recording.append(lambda: self.gemm(a, b, out, **again))
            return
        left, right = a.values, b.values
        arrays = (left, right, out.values)
        letters = "NT"[transpose_a] + "NT"[transpose_b]
        k = left.shape[0 if transpose_a else -1]
        self.calls.append(f"gemm {letters} {' '.join(map(str, out.shape))} {k} {compute}")
        if any(x.ndim != 2 or not x.flags.c_contiguous for x in arrays):
            raise KernelError("gemm takes contiguous matrices")
        kinds = {"float32": ("float32", "tf32")}.get(out.dtype.name, (out.dtype.name,))
        if compute not in kinds or {x.dtype for x in arrays} != {out.dtype}:
            raise KernelError(f"gemm of {[x.dtype.name for x in arrays]} computed in {compute}")
        if any(np.may_share_memory(x, out.values) for x in (left, right)):
            raise KernelError("gemm's result overlaps an input")
        left, right = left.T if transpose_a else left, right.T if transpose_b else right
        if (left.shape[0], right.shape[1]) != out.shape or left.shape[1] != right.shape[0]:
            raise KernelError(f"gemm {letters} of {a.shape} and {b.shape} into {out.shape}")
        real = np.float64 if compute == "float64" else np.float32
        out.values[...] = left.astype(real) @ right.astype(real)
