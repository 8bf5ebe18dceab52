"""Other libraries' arrays: taken as they lie, and results given back as the same kind.

NumPy alone is imported: whoever passes a tensor has its library at hand already.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from gpumlp.backends import Backend
from gpumlp.io.types import Array, HostArray

ON_HOST, ON_GPU = (1, 3), (2, 13)  # DLPack's device types: the host's memory and CUDA's


def as_backend_array(a: Any, backend: Backend, name: str = "x", *, across: bool = False) -> Any:
    """`a` as an array of the backend or of the host, over the same memory where that can be.

    The producer's work on a GPU, on torch's current stream say, is done before it is read.  A
    tensor that requires grad is detached.  What gives no memory away, lists and data frames, is
    returned as it is.

    Args:
        a: an array of NumPy, CuPy, torch, JAX or cuDF, or of any library that has DLPack or
            ``__cuda_array_interface__``; of any shape, strides and dtype.  bfloat16 of torch's on
            the host becomes float32, which holds it exactly.
        backend: an array on a GPU is taken over by the CUDA backend alone, and on its own GPU.
        name: what the errors call it.
        across: copy from a GPU to the host where the backend needs it, in place of the error.

    Raises:
        ValueError: it lies on a GPU and the backend does not, or on another one.
        TypeError: it cannot be read: sparse, say, or of a dtype that NumPy has not.
    """
    if backend.owns(a) or isinstance(a, np.ndarray):
        return a
    try:
        if _library(a) == "cudf":
            a = a.to_cupy()
        gpu = _gpu(a)
        if gpu is None:
            return _on_host(a)
        if backend.name != "numpy":
            ours = backend.adopt(a.detach() if is_tensor(a) else a)
        elif across:
            return a.get() if hasattr(a, "get") else _on_host(a)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise TypeError(
            f"{name}, a {_kind(a)}, cannot be read as an array ({reason}); "
            "pass a dense array of real numbers"
        ) from error
    if backend.name == "numpy":
        raise ValueError(
            f"{name}, a {_kind(a)}, is on {gpu} but this network computes on the host; "
            f'pass {_downloaded(a, name)}, or build the network with backend="cupy"'
        )
    if not backend.owns(ours):
        raise ValueError(
            f"{name}, a {_kind(a)}, is on {gpu} but this network is on {backend.describe()}; "
            "move one to the other's GPU"
        )
    backend.synchronize()
    return ours


def readable(backend: Backend, a: Any, name: str, remedy: str) -> Array:
    """`a` as an array of the backend or the host, with a real dtype."""
    a = as_backend_array(a, backend, name)
    if not backend.owns(a) or isinstance(a, np.ndarray):
        return numbers(a, name, remedy)
    _real(a, name, remedy)
    return a


def numbers(a: Any, name: str, remedy: str) -> HostArray:
    """`a` as a plain NumPy array with a real dtype."""
    if isinstance(a, np.ma.MaskedArray) and a.mask.any():
        raise ValueError(f"{name} is masked in places; fill or remove those")
    try:
        array: HostArray = np.asarray(a)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of unlike length; a GPU's tensor
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(
            f"{name} cannot be read as an array ({reason}); pass numbers, rows of equal length"
        ) from error
    _real(array, name, remedy)
    return array


def _real(a: Array, name: str, remedy: str) -> None:
    if a.dtype.kind not in "fiub" and a.dtype.name != "bfloat16":
        raise TypeError(f"{name} has dtype {a.dtype}; {remedy}")


def as_kind_of(result: Array, like: Any) -> Array:
    """`result`, of the backend or the host, as the kind of array that `like` is, on its device.

    It shares memory where the device is the same.  Where `like` is of no other library's kind, or
    the result is no array of numbers, `result` itself.  JAX's keep float32 unless it was told to
    use 64 bits.
    """
    if isinstance(like, np.ndarray) or not hasattr(result, "__dlpack__"):
        return result
    if result.dtype.kind not in "fiubc" and result.dtype.name != "bfloat16":
        return result
    if isinstance(result, np.ndarray):
        result = np.require(result, requirements=["C", "W", "A"])  # as the others can share it
    if is_tensor(like):
        return sys.modules["torch"].from_dlpack(result).to(like.device)
    if _library(like) in ("cupy", "cudf"):
        return sys.modules["cupy"].asarray(result)
    if not hasattr(like, "__array_namespace__"):
        return result
    return like.__array_namespace__().from_dlpack(result, device=like.device)


def is_tensor(a: Any) -> bool:
    """Whether it is torch's."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(a, torch.Tensor)


def _on_host(a: Any) -> Any:
    """The NumPy array over the memory of one on the host; a copy of one that is not."""
    if is_tensor(a):
        torch = sys.modules["torch"]
        return (a.float() if a.dtype == torch.bfloat16 else a).numpy(force=True)
    if not hasattr(a, "__dlpack__"):
        return a
    return np.asarray(a) if hasattr(a, "__array__") else np.from_dlpack(a)


def _gpu(a: Any) -> str | None:
    """Where `a` is, in words, unless it is on the host."""
    if is_tensor(a):
        return None if a.device.type == "cpu" else str(a.device)
    if hasattr(a, "__dlpack_device__"):
        kind, index = a.__dlpack_device__()
        if kind in ON_HOST:
            return None
        return f"GPU {index}" if kind in ON_GPU else f"a device of DLPack's type {int(kind)}"
    return "a GPU" if hasattr(a, "__cuda_array_interface__") else None


def _library(a: Any) -> str:
    return type(a).__module__.partition(".")[0]


def _kind(a: Any) -> str:
    return f"{_library(a)} {type(a).__name__}"


def _downloaded(a: Any, name: str) -> str:
    """How its user copies it to the host."""
    ways = {"torch": f"{name}.cpu()", "cupy": f"{name}.get()"}
    return ways.get("torch" if is_tensor(a) else _library(a), f"numpy.asarray({name})")
