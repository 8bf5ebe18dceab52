"""The backends, and the function that chooses one."""

from __future__ import annotations

from gpumlp.backends.numpy.backend import NumpyBackend
from gpumlp.backends.operations import Backend
from gpumlp.errors import DeviceError, is_one_of
from gpumlp.io.types import Array

__all__ = ["Array", "Backend", "get_backend", "has_precision", "host_backend"]

REDUCED = ("tf32", "bfloat16", "float16")  # not on every backend
PRECISIONS = ("float64", "float32", *REDUCED)


def get_backend(backend: str | Backend = "auto", precision: str = "float32") -> Backend:
    """The backend called "cupy", "cpu" or "numpy".

    "auto" is the first of these that can be used.  A backend itself is returned as it is.

    Raises:
        ValueError, TypeError: the backend or the precision is unknown, or the backend does not have
            the precision.
        gpumlp.DeviceError: the backend cannot be used; the message says why.
    """
    if not isinstance(backend, str):
        if not hasattr(backend, "affine_activation"):
            kind = type(backend).__name__
            raise TypeError(
                f'backend must be "auto", "cupy", "cpu", "numpy" or a backend, got {kind}'
            )
        return backend
    if not is_one_of(precision, PRECISIONS):
        raise ValueError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    if backend == "numpy":
        return NumpyBackend(precision)
    if backend == "cpu":
        from gpumlp.backends.cpu.backend import CpuBackend

        return CpuBackend(precision)
    if backend not in ("auto", "cupy"):
        raise ValueError(f'unknown backend {backend!r}; known: "auto", "cupy", "cpu", "numpy"')
    from gpumlp.backends.cuda import open_device

    try:
        device = open_device()
    except DeviceError:
        if backend == "cupy":
            raise
        return host_backend(precision)
    from gpumlp.backends.cuda.backend import CudaBackend

    return CudaBackend(device, precision)


def has_precision(backend: str | Backend, precision: object) -> bool:
    """Whether networks on the backend can have a precision that a file names.

    Raises: as `get_backend`, if the backend cannot be used at all.
    """
    get_backend(backend)
    if not is_one_of(precision, REDUCED):
        return True
    try:
        return get_backend(backend, str(precision)).precision == precision
    except ValueError:
        return False


def host_backend(precision: str) -> Backend:
    """The backend "cpu", or "numpy" where the compiled library is missing."""
    try:
        return get_backend("cpu", precision)
    except DeviceError:
        if precision in REDUCED:
            raise
        return NumpyBackend(precision)
