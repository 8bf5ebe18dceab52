"""Arrays of other libraries, which a caller has imported: read, and returned as the same kind."""

from __future__ import annotations

import re
import reprlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gpumlp.backends import Backend
from gpumlp.errors import first_line
from gpumlp.io.types import Array, HostArray

ROWS = (list, tuple, np.ndarray)
NUMBERS = re.compile(r"(u?int|float|bool)\d*", re.IGNORECASE)  # dtypes of data frames
TIMES = re.compile("date|time|period|duration", re.IGNORECASE)
ON_HOST, ON_GPU = (1, 3), (2, 13)  # DLPack's device types for host memory and CUDA memory


def as_backend_array(a: Any, backend: Backend, name: str = "x", *, to_host: bool = False) -> Any:
    """Return `a` as an array of the backend or of the host, over the same memory if possible.

    The work that writes `a` on a GPU is finished when this function returns.  A tensor that
    requires grad is detached.  Lists, data frames and others without array memory are returned
    unchanged.

    Args:
        a: an array of NumPy, CuPy, torch, JAX or cuDF, or of any library that supports DLPack or
            ``__cuda_array_interface__``; of any shape, strides and dtype.  A bfloat16 tensor of
            torch on the host becomes float32, which represents its values exactly.
        backend: only the CUDA backend reads an array on a GPU, and only on its own GPU.
        name: what the errors call `a`.
        to_host: copy an array from a GPU if the backend computes on the host, in place of an error.

    Raises:
        ValueError: `a` is on a GPU and the backend is not, or is on another one.
        TypeError: `a` cannot be read: it is sparse, for example, or NumPy lacks its dtype.
    """
    if backend.owns(a) or isinstance(a, np.ndarray):
        return a
    try:
        if _library(a) == "cudf":
            a = a.to_cupy()
        gpu = _gpu(a)
        if gpu is None:
            return _host_array(a)
        if not backend.on_host:
            adopted = backend.adopt(a.detach() if is_tensor(a) else a)
        elif to_host:
            return a.get() if hasattr(a, "get") else _host_array(a)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise TypeError(
            f"{name}, a {_kind(a)}, cannot be read as an array ({first_line(error)}); "
            "pass a dense array of real numbers"
        ) from error
    if backend.on_host:
        raise ValueError(
            f"{name}, a {_kind(a)}, is on {gpu} but this network computes on the host; "
            f'pass {_host_copy(a, name)}, or build the network with backend="cupy"'
        )
    if not backend.owns(adopted):
        raise ValueError(
            f"{name}, a {_kind(a)}, is on {gpu} but this network is on {backend.describe()}; "
            "move one to the other's GPU"
        )
    backend.synchronize()
    return adopted


def as_kind_of(result: Array, like: Any) -> Array:
    """Return `result`, of the backend or the host, as the kind of array that `like` is.

    The new array is on the device of `like`, and shares memory if the result is there too.  The
    result itself is returned if `like` is of no other library, or if the result has no numbers.
    JAX makes float32 of float64 unless it is configured for 64 bits.
    """
    shared = hasattr(result, "__dlpack__") and _is_number(result, "fiubc")
    if isinstance(like, np.ndarray) or not shared:
        return result
    if isinstance(result, np.ndarray):
        result = np.require(result, requirements=["C", "W", "A"])  # other libraries need these
    if is_tensor(like):
        return sys.modules["torch"].from_dlpack(result).to(like.device)
    if _library(like) in ("cupy", "cudf"):
        return sys.modules["cupy"].asarray(result)
    if not hasattr(like, "__array_namespace__"):
        return result
    return like.__array_namespace__().from_dlpack(result, device=like.device)


def real_array(backend: Backend, a: Any, name: str, hint: str, *, to_host: bool = False) -> Array:
    """Return `a` as a real array of the backend or the host; `hint` ends the error if it is not."""
    a = as_backend_array(a, backend, name, to_host=to_host)
    if not backend.owns(a) or isinstance(a, np.ndarray):
        return real_host_array(a, name, hint)
    if not _is_number(a, "fiub"):
        raise TypeError(f"{name} has dtype {a.dtype}; {hint}")
    return a


def real_host_array(a: Any, name: str, hint: str) -> HostArray:
    """Return `a` as a plain NumPy array; raise TypeError unless its dtype is real."""
    check_container(a, name)
    if hasattr(a, "nnz") and hasattr(a, "toarray"):
        estimators = ", or use gpumlp.estimators, which read it" if name.startswith("x") else ""
        raise TypeError(
            f"{name} is sparse, a {type(a).__name__}; pass a dense array: {name}.toarray()"
            f"{estimators}"
        )
    if hasattr(a, "with_columns"):
        check_times(a, name)
    try:
        array: HostArray = np.asarray(a)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of different length, for example
        raise ValueError(
            f"{name} cannot be read as an array ({_lengths(a) or first_line(error)}); "
            "pass numbers, rows of equal length"
        ) from error
    if not _is_number(array, "fiub"):
        raise TypeError(f"{name} has dtype {array.dtype}{_what_to_pass(a, array, name, hint)}")
    return array


def check_fits(a: Array, dtype: np.dtype[Any], name: str) -> None:
    """Raise ValueError if a finite number of the array would become infinite in the dtype."""
    if a.dtype.kind != "f" or a.dtype.itemsize <= dtype.itemsize:
        return
    size, limit = abs(a), float(np.finfo(dtype).max)
    if bool(((size > limit) & (size < np.inf)).any()):
        raise ValueError(f"{name} has values beyond the network's {dtype}; rescale it")


def check_container(a: Any, name: str) -> None:
    """Raise ValueError if `a` has masked values, which others would read as if they were data."""
    if isinstance(a, np.ma.MaskedArray) and a.mask.any():
        raise ValueError(
            f"{name} has masked values; fill or remove them, for example with {name}.filled(0)"
        )


def check_times(frame: Any, name: str) -> None:
    """Raise TypeError if a data frame has dates or times, which polars makes whole numbers of."""
    if hasattr(frame, "collect"):  # a lazy one, which is no array
        return
    arrow = hasattr(frame, "schema") and hasattr(frame, "column_names")
    names, kinds = (
        (frame.column_names, frame.schema.types) if arrow else (frame.columns, frame.dtypes)
    )
    times = [str(c) for c, kind in zip(names, kinds, strict=True) if TIMES.match(str(kind))]
    if times:
        raise TypeError(
            f"{name} has columns of dates or times: {', '.join(times[:8])}; pass numbers in their "
            "place, such as days, months or hours"
        )


def is_tensor(a: Any) -> bool:
    """Whether `a` is a tensor of torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(a, torch.Tensor)


def _lengths(rows: Any) -> str:
    """The first row whose length differs from that of row 0; "" if no length does."""
    lengths = [len(row) if hasattr(row, "__len__") else 1 for row in rows]
    odd = next((i for i, n in enumerate(lengths) if n != lengths[0]), None)
    return "" if odd is None else f"row 0 has {lengths[0]} entries, row {odd} has {lengths[odd]}"


def _what_to_pass(a: Any, array: HostArray, name: str, hint: str) -> str:
    """The end of the error for an array that is not of real numbers: a correction for its kind."""
    numbers = hint.partition(", e.g. ")[0]
    plain = numbers.partition(" (")[0]
    corrections = {
        "M": f"days: ({name} - numpy.datetime64('2000-01-01')) / numpy.timedelta64(1, 'D')",
        "m": f"seconds: {name} / numpy.timedelta64(1, 's')",
        "c": f"{name}.real",
    }
    if array.dtype.kind in corrections:
        return f"; {plain}, e.g. {corrections[array.dtype.kind]}"
    if array.dtype.names:
        return f"; {plain}: numpy.lib.recfunctions.structured_to_unstructured({name})"
    if array.ndim == 0 and array.dtype == object and a is not None:
        return f", since it is a {type(a).__name__}; {plain}{_how_to_collect(a, name)}"
    try:
        array.astype(np.float32)
    except (TypeError, ValueError, OverflowError):
        if array.dtype == object and all(isinstance(row, ROWS) for row in array.flat):
            if lengths := _lengths(array):
                return f" ({lengths}); {plain}, rows of equal length"
            return f", an array of arrays; pass numpy.stack(list({name}))"
        if hasattr(a, "columns") and hasattr(a, "dtypes"):
            return _of_frame(a, name, numbers)
        value = next(filter(_is_no_number, array.flat))
        if isinstance(value, int):
            return f", with {reprlib.repr(value)}; pass numbers that float64 holds"
        return f", with {value.item() if hasattr(value, 'item') else value!r}; {numbers}"
    if not hasattr(a, "astype"):
        hint = hint.replace(f"{name}.astype('float32')", f"numpy.array({name}, 'float32')")
    return f"; {hint}"


def _of_frame(frame: Any, name: str, numbers: str) -> str:
    """The columns of a data frame that are not numbers, and a correction."""
    kinds = zip(frame.columns, map(str, frame.dtypes), strict=True)
    odd = [f"{c!r} ({kind})" for c, kind in kinds if not NUMBERS.match(kind)]
    if not odd:
        return f", since it has missing values; fill them: {name}.fillna(0).astype('float32')"
    more = ", …" if len(odd) > 3 else ""
    return (
        f", because of {', '.join(odd[:3])}{more}; {numbers}: encode such columns or leave them "
        f"out, then {name}.astype('float32')"
    )


def _how_to_collect(a: Any, name: str) -> str:
    """The expression that makes an array of an object that is none."""
    if isinstance(a, Mapping):
        return f": numpy.column_stack(list({name}.values()))"
    if hasattr(a, "__fspath__"):
        return f": read the file first, for example with numpy.load({name})"
    for method in ("collect", "compute"):  # of polars and of dask
        if hasattr(a, method):
            return f": {name}.{method}()"
    return f": numpy.array(list({name}))" if isinstance(a, Iterable) else ""


def _is_no_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return True
    return False


def _is_number(a: Array, kinds: str) -> bool:
    return a.dtype.kind in kinds or a.dtype.name == "bfloat16"


def _host_array(a: Any) -> Any:
    if is_tensor(a):
        torch = sys.modules["torch"]
        return (a.float() if a.dtype == torch.bfloat16 else a).numpy(force=True)
    if not hasattr(a, "__dlpack__"):
        return a
    return np.asarray(a) if hasattr(a, "__array__") else np.from_dlpack(a)


def _gpu(a: Any) -> str | None:
    """The device of `a` in words; None for the host."""
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


def _host_copy(a: Any, name: str) -> str:
    """The expression that copies `a` to the host in its own library."""
    calls = {"torch": f"{name}.cpu()", "cupy": f"{name}.get()"}
    return calls.get("torch" if is_tensor(a) else _library(a), f"numpy.asarray({name})")
