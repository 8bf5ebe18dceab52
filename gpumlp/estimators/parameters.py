"""The arrays of `coefs_` and `intercepts_`: copies, which the network takes back by assignment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from gpumlp.arrays import real_host_array
from gpumlp.io.types import HostArray

Assign = Callable[[Sequence[Any]], list[HostArray]]


class ReadOnlyCopy(np.ndarray):
    """A copy that cannot be written to, so that a change that has no effect is not lost silently.

    Its copies can be written to, and results of arithmetic and pickles are plain arrays.
    """

    def __setitem__(self, key: Any, value: Any) -> None:
        self._refuse()
        super().__setitem__(key, value)

    def __array_ufunc__(
        self, ufunc: Any, method: str, *inputs: Any, out: Any = (), **named: Any
    ) -> Any:
        for a in out:
            if isinstance(a, ReadOnlyCopy):
                a._refuse()
        if out:
            named["out"] = tuple(_plain(a) for a in out)
        return getattr(ufunc, method)(*map(_plain, inputs), **named)

    def __reduce__(self) -> Any:
        return np.asarray(self).__reduce__()

    def _refuse(self) -> None:
        if not self.flags.writeable:
            raise ValueError(
                "coefs_ and intercepts_ hold copies of the network's parameters; change a copy, "
                "W = e.coefs_[0].copy(), and assign it: e.coefs_[0] = W"
            )


class ParameterList(list[HostArray]):
    """Read-only copies of parameters; assigning to an entry assigns to the network.

    assign: writes a whole list to the network, and returns what it holds then.
    """

    def __init__(self, arrays: Sequence[HostArray], assign: Assign) -> None:
        super().__init__(map(_read_only, arrays))
        self._assign = assign

    def __setitem__(self, index: Any, value: Any) -> None:
        changed: list[Any] = list(self)
        changed[index] = value
        super().__setitem__(slice(None), map(_read_only, self._assign(changed)))

    def _refuse(self, *arguments: Any, **named: Any) -> Any:
        raise TypeError(
            "the list has one array for each layer of the network; assign to its entries, or call "
            "fit with other hidden_layer_sizes"
        )

    append = extend = insert = pop = remove = clear = reverse = sort = _refuse
    __delitem__ = __iadd__ = __imul__ = _refuse

    def __reduce_ex__(self, protocol: Any) -> Any:  # as a plain list
        return list, (list(self),)


def checked(values: Sequence[Any], now: Sequence[HostArray], name: str) -> list[HostArray]:
    """Return the values as arrays of the shapes that the parameters have `now`."""
    if not isinstance(values, (list, tuple)) or len(values) != len(now):
        raise ValueError(f"{name} must be a list of {len(now)} arrays, one for each layer")
    arrays = [real_host_array(a, f"{name}[{i}]", "pass numbers") for i, a in enumerate(values)]
    for i, (array, old) in enumerate(zip(arrays, now, strict=True)):
        if array.shape != old.shape:
            raise ValueError(
                f"{name}[{i}] has shape {array.shape}, but the network's is {old.shape}; for a "
                "network of other widths, set hidden_layer_sizes and call fit"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{name}[{i}] has values that are not finite; pass finite numbers")
    return [np.asarray(a) for a in arrays]


def _plain(a: Any) -> Any:
    return np.asarray(a) if isinstance(a, ReadOnlyCopy) else a


def _read_only(a: HostArray) -> HostArray:
    copied = np.array(a).view(ReadOnlyCopy)
    copied.flags.writeable = False
    return copied


def shown(e: Any, name: str) -> ParameterList:
    """The `coefs_` or `intercepts_` of the estimator e; assigning to an entry assigns to e."""
    if not hasattr(e, "net_"):
        check_is_fitted(e, "models_")
        raise AttributeError(
            f"{name} are the parameters of one network; those of several are in ensemble_.nets"
        )
    host, layers = e.net_.backend.to_host, e.net_.layers
    arrays = [host(layer.W).T if name == "coefs_" else host(layer.b) for layer in layers]
    return ParameterList(arrays, lambda values: assign(e, name, values))


def assign(e: Any, name: str, values: Sequence[Any]) -> list[HostArray]:
    """Write the weights or biases of all layers to e's network, or none on an error."""
    kind = "weight" if name == "coefs_" else "bias"
    new = {f"{2 * i}.{kind}": a.T for i, a in enumerate(checked(values, shown(e, name), name))}
    e.net_.assign(e.net_.tensors() | new)
    return list(shown(e, name))
