"""What the public functions check, once: examples, targets and numbers.

Every message names the argument, what was expected and why, what came, and what to pass instead.
"""

from __future__ import annotations

import inspect
import math
import numbers
import reprlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from gpumlp import weights
from gpumlp.arrays import as_backend_array, real_array
from gpumlp.backends import Backend
from gpumlp.functions import ACTIVATIONS, Activation, Loss
from gpumlp.functions.embeddings import Embeddings
from gpumlp.functions.entry import lookup
from gpumlp.io.chunks import chunks, extent
from gpumlp.io.types import Array, HostArray

MOST_MODELS = 1_000_000  # more networks take hours to be drawn


def supervised(
    backend: Backend, loss: Loss, ends: tuple[int, int], x: Array, y: Array,
    sample_weight: Array = None, class_weight: weights.ClassWeight = None, suffix: str = "",
    embed: Embeddings | None = None,
) -> tuple[Array, Array, HostArray | None]:  # fmt: skip
    """Return x, y and the weights, as `examples`, `targets` and `example_weights` return them.

    ends: n_0 and n_L; suffix: follows the names x and y in the errors; embed: of the network.
    """
    n_0, n = ends
    x = examples(backend, x, n_0, f"x{suffix}", embed)
    y = targets(backend, loss, y, len(x), n, f"y{suffix}")
    host = y if isinstance(y, np.ndarray) or class_weight is None else backend.to_host(y)
    sample_weight = as_backend_array(sample_weight, backend, "sample_weight")
    if sample_weight is not None and backend.owns(sample_weight):
        sample_weight = backend.to_host(sample_weight)
    of_class = None
    if class_weight is not None:
        by_class = weights.class_weights(loss, host, n, class_weight, backend.dtype)
        of_class = weights.of_examples(loss, host, by_class, backend.dtype)
    return x, y, weights.example_weights(len(x), sample_weight, of_class)


def examples(
    backend: Backend, x: Array, n_0: int, name: str = "x", embed: Embeddings | None = None
) -> Array:
    """Return x (m, n_0), m ≥ 1, as an array of the backend or of the host, of a real dtype.

    The work that writes it on a GPU is finished.
    """
    x = real_array(backend, x, name, f"pass real numbers, e.g. {name}.astype('float32')")
    if x.ndim != 2:
        one_row = x.ndim == 1 and len(x) == n_0
        hint = f"{name}[None, :]" if one_row else f"{name} of shape (m, {n_0})"
        raise ValueError(f"{name} has shape {x.shape}, rows of {n_0} were expected; pass {hint}")
    if x.shape[1] != n_0:
        raise ValueError(
            f"{name} has {x.shape[1]} columns but the first layer has {n_0} inputs; "
            f"pass {name} of shape (m, {n_0})"
        )
    if len(x) == 0:
        raise ValueError(f"{name} has no rows; pass at least one example")
    backend.synchronize()  # it is the work of the caller's stream, and operations have another one
    if embed is not None:
        _codes(backend, x, embed, name)
    return x


def _codes(backend: Backend, x: Array, embed: Embeddings, name: str) -> None:
    """Raise ValueError unless each embedded column has whole numbers from 0 to c − 1."""
    categories = np.array([one.c for one in embed.each])
    for rows in chunks(x):
        given = x[rows][:, embed.coded]
        if not isinstance(given, np.ndarray):
            backend.synchronize()  # as in `examples`
            given = backend.to_host(given)
        values = given.astype(np.float64)
        good = (values >= 0) & (values < categories) & (values == np.floor(values))
        if not good.all():
            i, at = np.argwhere(~good)[0].tolist()
            one = embed.each[at]
            raise ValueError(
                f"{name}[{rows.start + i}, {one.column}] is {values[i, at]:.15g}, but this column "
                f"is embedded and has codes 0 … {one.c - 1}; encode its categories as these whole "
                "numbers, with one code for missing and unknown ones"
            )


def targets(backend: Backend, loss: Loss, y: Array, m: int, n: int, name: str = "y") -> Array:
    """Return the targets y as the loss reads them: integer labels (m,) as int32, or values (m, n).

    A column (m,) becomes (m, 1).  Raises if shape, dtype or range is wrong, or values not finite.
    """
    y = shaped_targets(backend, loss, y, m, n, name)
    ends = extent(y, name)
    if y.ndim == 1:
        y = _labels(y, n, ends, name)
    else:
        _range(backend, loss, y, ends, name)
    backend.synchronize()  # as in `examples`
    return y


def shaped_targets(
    backend: Backend, loss: Loss, y: Array, m: int, n: int, name: str = "y"
) -> Array:  # fmt: skip
    """Return y as real labels (m,) or values (m, n), which are not read."""
    names = f" (encode class names as 0 … {n - 1})" if loss.target == "class" else ""
    y = real_array(backend, y, name, f"pass numbers{names}")
    if len(y.shape) == 0 or len(y) != m:
        x = f"x{name[1:]}"
        raise ValueError(
            f"{name} has shape {y.shape} but {x} has {m} rows; pass one target per row"
        )
    if loss.target == "class" and y.ndim == 1:
        return y
    if y.ndim == 1 and n == 1:
        y = y.reshape(m, 1)
    if y.shape != (m, n):
        shapes = f"({m}, {n})" + (f" or labels of shape ({m},)" if loss.target == "class" else "")
        raise ValueError(
            f"{name} has shape {y.shape} but the output layer has {n} units; "
            f"pass {name} of shape {shapes}"
        )
    return y


def _labels(y: Array, n: int, ends: tuple[float, float], name: str) -> Array:
    if y.dtype.kind not in "iub" and bool((y != np.floor(y)).any()):
        raise ValueError(
            f"{name} has values that are not whole numbers; pass labels 0 … {n - 1}, "
            "or use a loss for regression"
        )
    low, high = ends
    if low < 0 or high >= n:
        raise ValueError(
            f"{name} has labels from {low:.15g} to {high:.15g} but the output layer has {n} units; "
            f"pass labels 0 … {n - 1}"
        )
    return y.astype(np.int32)


def _range(backend: Backend, loss: Loss, y: Array, ends: tuple[float, float], name: str) -> None:
    """Raise if values of y (m, n) are outside the range of the loss or of the backend's dtype."""
    low, high = ends
    if loss.target in ("binary", "class") and (low < 0 or high > 1):
        raise ValueError(
            f"{name} lies in [{low:g}, {high:g}] but {loss.name} takes values from 0 to 1; "
            "encode the classes as 0 and 1"
        )
    if loss.target == "count" and low < 0:
        raise ValueError(
            f"{name} has the value {low:g} but {loss.name} takes counts; pass values of 0 or more"
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


# ---- settings ------------------------------------------------------------------------------------


def widths(value: Any) -> tuple[int, ...]:
    """Return the widths n_0, …, n_L as a tuple of two or more positive whole numbers."""
    listed = isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, (str, bytes))
    if not listed or getattr(value, "ndim", 1) == 0 or len(value) < 2:
        raise ValueError(
            f"widths must list inputs, hidden layers and outputs, as [784, 256, 10]; "
            f"got {_short(value)}"
        )
    whole = tuple(positive_int(n, f"widths[{i}]") for i, n in enumerate(value))
    if max(whole) >= 1 << 31:
        raise ValueError(f"widths has {max(whole)}; a layer has at most {(1 << 31) - 1} units")
    return whole


def layer_activations(hidden_layers: int, hidden: Any, output: Any) -> list[Activation]:
    """Return f[1] … f[L] of the hidden layers and the output; f[0], which is unused, is identity.

    hidden: a name or an entry for all hidden layers, or a list with one for each.
    """
    each = hidden if isinstance(hidden, (list, tuple)) else [hidden]
    entries = [lookup(ACTIVATIONS, "activation", f) for f in each]
    if each is not hidden:
        entries *= hidden_layers
    elif len(each) != hidden_layers:
        raise ValueError(
            f"activation has {len(each)} entries but there are {hidden_layers} hidden layers; "
            "give one name for all, or one for each"
        )
    return [ACTIVATIONS["identity"], *entries, lookup(ACTIVATIONS, "output_activation", output)]


def known_arguments(function: Callable[..., Any], names: Iterable[str]) -> None:
    """Raise TypeError if one of the names is not an argument of the function."""
    known = inspect.signature(function).parameters
    for name in names:
        if name not in known:
            raise TypeError(
                f"{function.__name__} has no argument {name!r}; it has: {', '.join(known)}"
            )


def positive_int(value: Any, name: str, least: int = 1, most: int | None = None) -> int:
    """Return a whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be a whole number of {least} or more, got {_short(value)}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most:,}, got {_short(value)}")
    return int(value)


def positive_number(value: Any, name: str, least: float | None = None) -> float:
    """Return a finite number that is positive, or at least `least`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {_short(value)}")
    try:
        number = float(value)
    except OverflowError:  # of a whole number
        number = math.inf
    fits = number > 0 if least is None else number >= least
    if not (math.isfinite(number) and fits):
        bound = "more than 0" if least is None else f"{least:g} or more"
        raise ValueError(f"{name} must be finite and {bound}, got {_short(value)}")
    return number


def real_number(value: Any, name: str) -> float:
    """Return a number that is not NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise TypeError(f"{name} must be a number, got {_short(value)}")
    return float(value)


def text(value: Any, name: str) -> str:
    """Return a string."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {_short(value)}")
    return value


def boolean(value: Any, name: str) -> bool:
    """Return a truth value; no text or number stands for one."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {_short(value)}")
    return bool(value)


def one_each(values: Any, K: int, name: str) -> list[Any]:
    """Return the values as a list, if there is one for each of K networks."""
    single = isinstance(values, (str, bytes)) or getattr(values, "ndim", 1) == 0
    if single or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list with one for each member, got {_short(values)}")
    each = [v.item() if isinstance(v, np.generic) else v for v in values]
    if len(each) != K:
        raise ValueError(
            f"{name} has {len(each)} entries but there are {K} members; give one for each"
        )
    return each


def _short(value: Any) -> str:
    return " ".join(reprlib.repr(value).split())
