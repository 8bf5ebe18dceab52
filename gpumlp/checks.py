"""What the public doors check of x, y and weights: once, on the host or as the room holds them.

Every message names the argument, what was expected and from where, what came, and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends import Array, Backend
from gpumlp.functions import Loss

HostArray = npt.NDArray[Any]


def examples(backend: Backend, x: npt.ArrayLike, n_0: int, name: str = "x") -> Array:
    """x as the room's or a host array of shape (m, n_0), m ≥ 1, with a real dtype."""
    x = x if backend.owns(x) else np.asarray(x)
    if x.dtype == object or x.dtype.kind not in "fiub":
        raise TypeError(
            f"{name} has dtype {x.dtype}; pass real numbers, e.g. {name}.astype('float32')"
        )
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


def finite(a: Array, name: str) -> None:
    """Raise unless every value is finite; the message names the first that is not."""
    if a.dtype.kind != "f" or np.isfinite(a.sum(dtype=np.float64)):
        return
    bad = np.argwhere(~np.isfinite(a))
    if len(bad):  # the sum alone can overflow
        place = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"{name}{list(place)} is {float(a[place])} ({len(bad)} such values); "
            f"remove or impute what is missing before training"
        )


def targets(
    backend: Backend, loss: Loss, y: npt.ArrayLike, m: int, n: int, name: str = "y"
) -> Array:
    """y as the loss takes it: integer labels (m,) as int32, or values (m, n).

    A column (m,) stands for (m, 1).  Raises where shape, dtype, range or finiteness is wrong.
    """
    y = y if backend.owns(y) else np.asarray(y)
    if y.dtype == object or y.dtype.kind not in "fiub":
        raise TypeError(
            f"{name} has dtype {y.dtype}; pass numbers (encode class names as 0 … {n - 1})"
        )
    if len(y.shape) == 0 or len(y) != m:
        raise ValueError(f"{name} has shape {y.shape} but x has {m} rows; pass one target a row")
    finite(y, name)
    if loss.target == "class" and y.ndim == 1:
        return _labels(y, n, name)
    if y.ndim == 1 and n == 1:
        y = y.reshape(m, 1)
    if y.shape != (m, n):
        shapes = f"({m}, {n})" + (f" or labels of shape ({m},)" if loss.target == "class" else "")
        raise ValueError(
            f"{name} has shape {y.shape} but the output layer has {n} units; pass {name} of shape {shapes}"
        )
    low, high = float(y.min()), float(y.max())
    if loss.target in ("binary", "class") and (low < 0 or high > 1):
        raise ValueError(
            f"{name} lies in [{low:g}, {high:g}]; {loss.name} takes values from 0 to 1"
        )
    if loss.target == "count" and low < 0:
        raise ValueError(f"{name} has the value {low:g}; {loss.name} takes counts, 0 and up")
    if loss.target == "class" and float(abs(y.sum(axis=1) - 1).max()) > 1e-3:
        raise ValueError(f"the rows of {name} are probabilities but do not all add up to 1")
    return y


def _labels(y: Array, n: int, name: str) -> Array:
    """Integer labels 0 … n−1 as int32."""
    if y.dtype.kind == "f" and bool((y != np.floor(y)).any()):
        raise ValueError(f"{name} has values that are no whole numbers; labels are 0 … {n - 1}")
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= n:
        raise ValueError(
            f"{name} has labels from {low} to {high} but the output layer has {n} units; "
            f"labels must be 0 … {n - 1}"
        )
    return y.astype(np.int32)


def example_weights(
    loss: Loss,
    y: Array,
    n: int,
    sample_weight: npt.ArrayLike | None,
    class_weight: Mapping[int, float] | npt.ArrayLike | str | None,
) -> HostArray | None:
    """The weight of each example, float64 (m,), or None for all alike.

    An example's class weight (its labels' mean, where its target is a row of probabilities)
    multiplies its sample weight.  "balanced" gives class c the weight m / (n · m_c).
    """
    m = len(y)
    weights = None
    if sample_weight is not None:
        weights = np.array(sample_weight, np.float64)
        if weights.shape != (m,):
            raise ValueError(
                f"sample_weight has shape {weights.shape}; pass one weight a row, ({m},)"
            )
        _nonnegative(weights, "sample_weight")
    if class_weight is not None:
        of_example = _class_weights(loss, np.asarray(y), n, class_weight)
        weights = of_example if weights is None else weights * of_example
    if weights is not None and not weights.sum() > 0:
        raise ValueError("all examples have weight 0; give at least one a positive weight")
    return weights


def _class_weights(loss: Loss, y: HostArray, n: int, class_weight: Any) -> HostArray:
    if loss.target not in ("class", "binary") or (loss.target == "binary" and y.shape[1:] != (1,)):
        raise ValueError(f"class_weight needs a classification, and {loss.name} here is none")
    classes = n if loss.target == "class" else 2
    rows = y if y.ndim == 2 and loss.target == "class" else None
    labels = None if rows is not None else np.rint(y).astype(int).reshape(-1)
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(f'class_weight must be "balanced" or weights, got {class_weight!r}')
        count = rows.sum(axis=0) if rows is not None else np.bincount(labels, minlength=classes)
        weight = len(y) / (classes * np.maximum(count, 1e-300)) * (count > 0)
    elif isinstance(class_weight, Mapping):
        unknown = [c for c in class_weight if c not in range(classes)]
        if unknown:
            raise ValueError(
                f"class_weight has the class {unknown[0]!r}; classes are 0 … {classes - 1}"
            )
        weight = np.array([class_weight.get(c, 1.0) for c in range(classes)], np.float64)
    else:
        weight = np.array(class_weight, np.float64)
    if weight.shape != (classes,):
        raise ValueError(
            f"class_weight has shape {weight.shape}; pass one weight a class, ({classes},)"
        )
    _nonnegative(weight, "class_weight")
    result: HostArray = rows @ weight if rows is not None else weight[labels]
    return result


def _nonnegative(weights: HostArray, name: str) -> None:
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(f"{name} has values that are negative or not finite; weights are 0 and up")


def positive_int(value: Any, name: str, least: int = 1) -> int:
    """A whole number from `least` on."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)
