"""Torch tensors as arrays of the backend for their device and dtype."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache

import numpy as np
import torch
from torch import Tensor

from gpumlp.backends import Backend, host_backend
from gpumlp.io.types import Array
from gpumlp.step.chunked import UNSCALED

HALVES = (torch.bfloat16, torch.float16)
PRECISIONS = {
    torch.float64: "float64", torch.float32: "float32", torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}  # fmt: skip


class _Memory:
    """A tensor for NumPy.  `Tensor.numpy` would forbid to resize its storage, as FSDP does."""

    def __init__(self, t: Tensor) -> None:
        self._t, kind = t, np.dtype(str(t.dtype).removeprefix("torch."))
        place = {"data": (t.data_ptr(), False), "shape": tuple(t.shape), "typestr": kind.str}
        self.__array_interface__ = place | {"version": 3}


class TorchBackend:
    """A backend, of torch dtype `dtype`, that computes on the memory of torch's tensors.

    lock: a thread acquires it to use the backend, whose scratch memory serves one thread.
    unscaled: the backend's array that turns loss scaling off.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend, self.lock = backend, threading.RLock()
        self.dtype: torch.dtype = getattr(torch, backend.storage.name)
        self.unscaled = backend.asarray(UNSCALED, dtype=np.float64)
        self._converted: list[tuple[Tensor, Tensor]] = []

    def input(self, t: Tensor, cols: int | None = None) -> Array:
        """t as an array, or as rows of `cols` numbers; copied if strided or of another dtype."""
        t = t.detach().to(self.dtype).contiguous()
        return self.adopt(t if cols is None else t.reshape(-1, cols))

    def output(self, t: Tensor, cols: int | None = None) -> Array:
        """The array to write t's values to; t is contiguous."""
        written = t.detach()
        if t.dtype != self.dtype:
            written = torch.empty_like(written, dtype=self.dtype)
            self._converted.append((t, written))
        return self.adopt(written if cols is None else written.view(-1, cols))

    def empty(self, like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Array:
        """An array of undefined values on the device of `like`."""
        return self.adopt(like.new_empty(shape, dtype=dtype or self.dtype))

    def adopt(self, t: Tensor) -> Array:
        """The memory of a contiguous t as an array."""
        return self.backend.adopt(_Memory(t) if self.backend.on_host else t)

    def round_outputs(self) -> None:
        """Round to the outputs' dtype what was computed in another dtype."""
        for t, written in self._converted:
            t.copy_(written)
        self._converted.clear()


@cache
def backend_for(precision: str, gpu: int | None = None, stream: int = 0) -> TorchBackend:
    """The backend for a precision, on the host or on a GPU and one of torch's streams."""
    if gpu is None:
        return TorchBackend(host_backend(precision))
    from gpumlp.backends.cuda import open_device
    from gpumlp.backends.cuda.backend import CudaBackend

    return TorchBackend(CudaBackend(open_device(stream), precision))


@contextmanager
def backend_of(t: Tensor) -> Iterator[TorchBackend]:
    """The backend for t's device and dtype, for this thread alone; then outputs are complete."""
    if t.dtype not in PRECISIONS or t.device.type not in ("cpu", "cuda"):
        raise TypeError(
            f"gpumlp computes in {', '.join(PRECISIONS.values())} on the CPU and on CUDA GPUs, got "
            f"{t.dtype} on {t.device}; move or cast the module and its inputs"
        )
    on_host = t.device.type == "cpu"
    dtype = torch.float32 if on_host and t.dtype in HALVES else t.dtype
    precision = PRECISIONS[dtype]
    with nullcontext() if on_host else torch.cuda.device(t.device):
        if on_host:
            backend = backend_for(precision)
        else:
            if dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
                precision = "tf32"
            stream = torch.cuda.current_stream(t.device).cuda_stream
            backend = backend_for(precision, t.device.index, stream)
        with backend.lock:
            try:
                yield backend
            finally:
                backend.round_outputs()
