"""Open the GPU, or raise one clear error for what is missing.  CuPy itself is imported here."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from functools import cache
from typing import Any

from gpumlp import distributed
from gpumlp.backends.cuda.device import CudaDevice
from gpumlp.backends.cuda.failures import INSTALL
from gpumlp.errors import DeviceError, first_line

OR_NUMPY = 'or use backend="numpy"'


def open_device(stream: int | None = None) -> CudaDevice:
    """The current CUDA device; of several processes of a training, each its own.

    stream: the handle of another library's stream, on which the device is to work; None: a stream
        of its own.

    Raises:
        DeviceError: CuPy, the driver, a GPU, NVRTC, nvmath-python or cublasLt is missing.  The
            message says which one, and what to do.
    """
    cupy = _import_cupy()
    _check_driver(cupy)
    with _install_hint("NVRTC cannot be loaded"):
        cupy.cuda.nvrtc.getVersion()
    lt = _import_cublaslt()
    try:
        if stream is None:
            _choose(cupy)
        return _device(cupy.cuda.Device().id, stream)
    except (cupy.cuda.runtime.CUDARuntimeError, lt.cuBLASLtError) as error:
        raise DeviceError(
            f"the GPU cannot be used ({first_line(error)}): free it, {OR_NUMPY}"
        ) from error


def _choose(cupy: Any) -> None:
    """Make the GPU current that belongs to this one of the processes of a machine."""
    world = distributed.made()
    if world is not None and world.size > 1:
        count = cupy.cuda.runtime.getDeviceCount()  # 1 where the launcher shows each its own
        cupy.cuda.Device(world.local_rank % count).use()


@cache
def _device(index: int, stream: int | None) -> CudaDevice:
    """One object for each GPU and stream, so that networks share kernels, plans and workspace."""
    cupy, external = _import_cupy(), None
    if stream is not None:  # the cache keeps this object: without it, CuPy destroys the stream
        handle = types.SimpleNamespace(__cuda_stream__=lambda: (0, stream))
        external = cupy.cuda.Stream.from_external(handle)
    return CudaDevice(cupy, _import_cublaslt(), external)


def _import_cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(f'backend "cupy" needs CuPy: {INSTALL}, {OR_NUMPY}') from error
    return cupy


def _import_cublaslt() -> Any:
    try:
        from nvmath.bindings import cublasLt
    except ImportError as error:
        raise DeviceError(
            f'backend "cupy" needs nvmath-python for cublasLt: {INSTALL}, {OR_NUMPY}'
        ) from error
    with _install_hint("cublasLt cannot be loaded"):
        cublasLt.get_version()
    return cublasLt


@contextlib.contextmanager
def _install_hint(problem: str) -> Iterator[None]:
    """Turn any error into a `DeviceError`: the loaders' error classes have no common base."""
    try:
        yield
    except Exception as error:
        raise DeviceError(f"{problem} ({first_line(error)}): {INSTALL}, {OR_NUMPY}") from error


def _check_driver(cupy: Any) -> None:
    runtime = cupy.cuda.runtime
    try:
        if runtime.getDeviceCount() > 0:
            return
        reason = "it reports no device"
    except runtime.CUDARuntimeError as error:
        reason = first_line(error)
    if runtime.driverGetVersion() == 0:
        raise DeviceError(f"no NVIDIA driver is installed: install one, {OR_NUMPY}")
    places = "look at nvidia-smi and CUDA_VISIBLE_DEVICES"
    advice = INSTALL if "InsufficientDriver" in reason else places
    raise DeviceError(
        f"the NVIDIA driver offers no GPU ({reason}): {advice}, update the driver, {OR_NUMPY}"
    )
