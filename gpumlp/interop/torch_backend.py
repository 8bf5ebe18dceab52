"""Tensors of torch's as the arrays of a backend, the one that their device asks for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache

import numpy as np
import torch
from torch import Tensor

from gpumlp.backends import Backend
from gpumlp.backends.numpy.backend import NumpyBackend
from gpumlp.io.types import Array
from gpumlp.workspace import UNSCALED

HALVES = (torch.bfloat16, torch.float16)
PRECISIONS = {
    torch.float64: "float64", torch.float32: "float32", torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}  # fmt: skip


class TorchBackend:
    """A backend, and what its operations want beside tensors.  One thread at a time has its scratch."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.lock = backend, threading.RLock()
        self.unscaled = backend.asarray(UNSCALED, dtype=np.float64)


@cache
def backend_for(precision: str, gpu: int | None = None, stream: int = 0) -> TorchBackend:
    """The backend for tensors of a precision on the host, or on a GPU and a stream of torch's."""
    if gpu is None:
        return TorchBackend(NumpyBackend(precision))
    from gpumlp.backends.cuda import open_device
    from gpumlp.backends.cuda.backend import CudaBackend

    return TorchBackend(CudaBackend(open_device(stream), precision))


class Bench:
    """A backend with tensors laid out as its arrays."""

    def __init__(self, backend: TorchBackend, kind: torch.dtype, device: torch.device) -> None:
        self.operations, self.unscaled = backend.backend, backend.unscaled
        self.kind, self._device = kind, device
        self._rounded: list[tuple[Tensor, Tensor]] = []

    def reads(self, t: Tensor, cols: int | None = None) -> Array:
        """The values of t, (…, cols) as rows; a copy only where t is strided or of another type."""
        t = t.detach().to(self.kind).contiguous()
        return self.operations.adopt(t if cols is None else t.reshape(-1, cols))

    def writes(self, t: Tensor, cols: int | None = None) -> Array:
        """The array whose values t has afterwards; t is contiguous."""
        there = t.detach()
        if t.dtype != self.kind:
            there = torch.empty_like(there, dtype=self.kind)
            self._rounded.append((t, there))
        return self.operations.adopt(there if cols is None else there.view(-1, cols))

    def scratch(self, *shape: int, dtype: torch.dtype | None = None) -> Array:
        """An array of undefined values."""
        return self.operations.adopt(
            torch.empty(shape, dtype=dtype or self.kind, device=self._device)
        )

    def round(self) -> None:
        """What was computed in float32 becomes what `writes` was given."""
        for t, there in self._rounded:
            t.copy_(there)


@contextmanager
def working(t: Tensor) -> Iterator[Bench]:
    """The backend of t's device and dtype, for one operator."""
    if t.dtype not in PRECISIONS or t.device.type not in ("cpu", "cuda"):
        raise TypeError(
            f"gpumlp computes in {', '.join(PRECISIONS.values())} on the CPU and on CUDA GPUs, got "
            f"{t.dtype} on {t.device}; move or cast the module and its inputs"
        )
    on_host = t.device.type == "cpu"
    kind = torch.float32 if on_host and t.dtype in HALVES else t.dtype
    precision, here = PRECISIONS[kind], nullcontext() if on_host else torch.cuda.device(t.device)
    with here:
        where: tuple[int, ...] = ()
        if not on_host:
            where = (t.device.index, torch.cuda.current_stream(t.device).cuda_stream)
            if kind == torch.float32 and torch.get_float32_matmul_precision() != "highest":
                precision = "tf32"
        found = backend_for(precision, *where)
        with found.lock:
            bench = Bench(found, kind, t.device)
            yield bench
            bench.round()
