"""What the public functions check of x, y and numbers: once, on the host or as the backend holds them.

Every message names the argument, what was expected and from where, what came, and the remedy.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpumlp.arrays import as_backend_array, readable
from gpumlp.backends import Backend
from gpumlp.example_weights import example_weights
from gpumlp.functions import Loss
from gpumlp.io.chunks import chunks, extent
from gpumlp.io.types import Array, HostArray


def supervised(
    backend: Backend,
    loss: Loss,
    ends: tuple[int, int],
    x: Array,
    y: Array,
    sample_weight: Array | None,
    class_weight: Mapping[int, float] | Array | str | None,
    suffix: str = "",
) -> tuple[Array, Array, HostArray | None]:
    """(x, y, weights) as `examples`, `targets` and `example_weights` return them.

    ends: n_0 and n_L; suffix: what follows the names x and y in the errors.
    """
    n_0, n = ends
    x = examples(backend, x, n_0, f"x{suffix}")
    y = targets(backend, loss, y, len(x), n, f"y{suffix}")
    backend.synchronize()  # the checks worked on the caller's stream, the operations work on the backend's
    host = y if isinstance(y, np.ndarray) or class_weight is None else backend.to_host(y)
    sample_weight = as_backend_array(sample_weight, backend, "sample_weight")
    if sample_weight is not None and backend.owns(sample_weight):
        sample_weight = backend.to_host(sample_weight)
    return x, y, example_weights(loss, host, n, sample_weight, class_weight)


def examples(backend: Backend, x: Array, n_0: int, name: str = "x") -> Array:
    """The examples x as an array of the backend or the host: (m, n_0), m ≥ 1, of a real dtype."""
    x = readable(backend, x, name, f"pass real numbers, e.g. {name}.astype('float32')")
    if x.ndim != 2:
        hint = (
            f"{name}[None, :]" if x.ndim == 1 and len(x) == n_0 else f"{name} of shape (m, {n_0})"
        )
        raise ValueError(f"{name} has shape {x.shape}, rows of {n_0} were expected; pass {hint}")
    if x.shape[1] != n_0:
        raise ValueError(
            f"{name} has {x.shape[1]} columns but the first layer has {n_0} inputs; "
            f"pass {name} of shape (m, {n_0})"
        )
    if len(x) == 0:
        raise ValueError(f"{name} has no rows; pass at least one example")
    return x


def targets(backend: Backend, loss: Loss, y: Array, m: int, n: int, name: str = "y") -> Array:
    """The targets y as the loss takes them: integer labels (m,) as int32, or values (m, n).

    A column (m,) stands for (m, 1).  Raises where shape, dtype, range or finiteness is wrong.
    """
    names = f" (encode class names as 0 … {n - 1})" if loss.target == "class" else ""
    y = readable(backend, y, name, f"pass numbers{names}")
    if len(y.shape) == 0 or len(y) != m:
        raise ValueError(f"{name} has shape {y.shape} but x has {m} rows; pass one target a row")
    ends = extent(y, name)
    if loss.target == "class" and y.ndim == 1:
        return _labels(y, n, ends, name)
    if y.ndim == 1 and n == 1:
        y = y.reshape(m, 1)
    if y.shape != (m, n):
        shapes = f"({m}, {n})" + (f" or labels of shape ({m},)" if loss.target == "class" else "")
        raise ValueError(
            f"{name} has shape {y.shape} but the output layer has {n} units; "
            f"pass {name} of shape {shapes}"
        )
    _range(backend, loss, y, ends, name)
    return y


def _labels(y: Array, n: int, ends: tuple[float, float], name: str) -> Array:
    """Integer labels 0 … n−1 as int32."""
    if y.dtype.kind not in "iub" and bool((y != np.floor(y)).any()):
        raise ValueError(
            f"{name} has values that are not whole numbers; pass labels 0 … {n - 1}, "
            "or use a loss of regression"
        )
    low, high = ends
    if low < 0 or high >= n:
        raise ValueError(
            f"{name} has labels from {low:.15g} to {high:.15g} but the output layer has {n} units; "
            f"pass labels 0 … {n - 1}"
        )
    return y.astype(np.int32)


def _range(backend: Backend, loss: Loss, y: Array, ends: tuple[float, float], name: str) -> None:
    """Raise unless the values of y (m, n) are such as the loss and the backend's dtype can take."""
    low, high = ends
    if loss.target in ("binary", "class") and (low < 0 or high > 1):
        raise ValueError(
            f"{name} lies in [{low:g}, {high:g}] but {loss.name} takes values from 0 to 1; "
            "encode the classes as 0 and 1"
        )
    if loss.target == "count" and low < 0:
        raise ValueError(
            f"{name} has the value {low:g} but {loss.name} takes counts; pass values of 0 and up"
        )
    if loss.target == "class" and any(
        float(abs(y[rows].sum(axis=1, dtype=np.float64) - 1).max()) > 1e-3 for rows in chunks(y)
    ):
        raise ValueError(
            f"the rows of {name} are probabilities but do not all add up to 1; "
            "divide each row by its sum"
        )
    if max(-low, high) > float(np.finfo(backend.dtype).max):
        raise ValueError(
            f"{name} lies in [{low:g}, {high:g}], beyond the network's {backend.dtype}; rescale it"
        )


def widths(value: Any) -> tuple[int, ...]:
    """The widths n_0, …, n_L as a tuple of whole numbers from 1 on, two or more."""
    listed = isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, (str, bytes))
    if not listed or len(value) < 2:
        raise ValueError(
            f"widths must list inputs, hidden layers and outputs, as [784, 256, 10]; "
            f"got {_short(value)}"
        )
    whole = tuple(positive_int(n, f"widths[{i}]") for i, n in enumerate(value))
    if max(whole) >= 1 << 31:
        raise ValueError(f"widths has {max(whole)}; a layer has at most {(1 << 31) - 1} units")
    return whole


def positive_int(value: Any, name: str, least: int = 1) -> int:
    """A whole number from `least` on."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be a whole number of {least} or more, got {_short(value)}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def _short(value: Any) -> str:
    """The value in one short line."""
    return " ".join(reprlib.repr(value).split())


def positive_number(value: Any, name: str, least: float | None = None) -> float:
    """A finite number above 0, or from `least` on."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name} must be a number, got {_short(value)}")
    low = value > 0 if least is None else value >= least
    if not (math.isfinite(value) and low):
        bound = "more than 0" if least is None else f"{least:g} or more"
        raise ValueError(f"{name} must be finite and {bound}, got {value}")
    return float(value)
