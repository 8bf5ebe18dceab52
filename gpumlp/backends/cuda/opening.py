"""The device, or one clear error for whatever it lacks; the one place where CuPy is imported."""

from __future__ import annotations

import types
from functools import cache
from typing import Any

from gpumlp.backends.cuda.device import CudaDevice
from gpumlp.backends.cuda.failures import first_line
from gpumlp.errors import DeviceError

INSTALL = 'pip install "gpumlp[cuda13]" (or "gpumlp[cuda12]" for a driver older than 580)'
OTHERWISE = 'or use backend="numpy"'


def open_device(stream: int | None = None) -> CudaDevice:
    """The current CUDA device, at work on a stream of its own, or on another library's handle.

    Raises:
        DeviceError: CuPy, the driver, a device, NVRTC, nvmath-python or cublasLt is missing; the
            message says which, and what to do.
    """
    cupy = _import_cupy()
    _check_driver(cupy)
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:  # the loader raises classes of its own, no common base
        raise DeviceError(
            f"NVRTC cannot be loaded ({first_line(error)}): {INSTALL}, {OTHERWISE}"
        ) from error
    lt = _import_cublaslt()
    try:
        return _device(cupy.cuda.Device().id, stream)
    except (cupy.cuda.runtime.CUDARuntimeError, lt.cuBLASLtError) as error:
        raise DeviceError(
            f"the GPU cannot be used ({first_line(error)}): free it, {OTHERWISE}"
        ) from error


@cache
def _device(index: int, stream: int | None) -> CudaDevice:
    """One for each device and stream, so that networks share kernels, plans and workspace."""
    cupy, given = _import_cupy(), None
    if stream is not None:  # CuPy's view of it would destroy it, were it not kept here
        handle = types.SimpleNamespace(__cuda_stream__=lambda: (0, stream))
        given = cupy.cuda.Stream.from_external(handle)
    return CudaDevice(cupy, _import_cublaslt(), given)


def _import_cupy() -> Any:
    """CuPy: the one place where it is imported."""
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(f'backend "cupy" needs CuPy: {INSTALL}, {OTHERWISE}') from error
    return cupy


def _import_cublaslt() -> Any:
    try:
        from nvmath.bindings import cublasLt
    except ImportError as error:
        raise DeviceError(
            f'backend "cupy" needs nvmath-python for cublasLt: {INSTALL}, {OTHERWISE}'
        ) from error
    try:
        cublasLt.get_version()
    except Exception as error:  # NotSupportedError, DynamicLibNotFoundError and others
        raise DeviceError(
            f"cublasLt cannot be loaded ({first_line(error)}): {INSTALL}, {OTHERWISE}"
        ) from error
    return cublasLt


def _check_driver(cupy: Any) -> None:
    runtime = cupy.cuda.runtime
    try:
        if runtime.getDeviceCount() > 0:
            return
        reason = "it reports no device"
    except runtime.CUDARuntimeError as error:
        reason = first_line(error)
    if runtime.driverGetVersion() == 0:
        raise DeviceError(f"no NVIDIA driver is installed: install one, {OTHERWISE}")
    raise DeviceError(
        f"the NVIDIA driver offers no GPU ({reason}): look at nvidia-smi and CUDA_VISIBLE_DEVICES, "
        f"update the driver, {OTHERWISE}"
    )
