"""Examples as a training takes them, checked: in the backend, or on the host and streamed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp import checks
from gpumlp.backends import Backend
from gpumlp.io.chunks import extent
from gpumlp.io.types import Array
from gpumlp.loader.placement import placed, streams
from gpumlp.network import MLP, ClassWeight


@dataclass(frozen=True)
class Examples:
    """Checked examples, in the backend or on the host.

    Attributes:
        x: (m, n_0) in the backend, in its storage type; or on the host, of any real dtype.
        y: (m, n_L) or labels (m,) in the backend, in `target`; or (m, n_L) on the host.
        weights: (m,) float64 on the host, or None for all alike.
        target: the dtype of y as the loss takes it: the backend's, or int32 for labels.
    """

    x: Array
    y: Array
    weights: npt.NDArray[Any] | None
    target: np.dtype[Any]

    @classmethod
    def checked(
        cls,
        net: MLP,
        x: Array,
        y: Array,
        sample_weight: Array | None = None,
        class_weight: ClassWeight = None,
        suffix: str = "",
        *,
        data: str = "auto",
        rows: int = 0,
    ) -> Examples:
        """What a public function takes, checked; `suffix` follows the names x and y in the errors.

        An array of the backend that already has the right dtype and layout is not copied.  Where it
        lies otherwise: see `placement.streams`.  Labels, half as large as their order, are always
        in the backend.
        """
        backend, ends = net.backend, (net.widths[0], net.widths[-1])
        x, y, weights = checks.supervised(
            backend, net.loss, ends, x, y, sample_weight, class_weight, suffix
        )
        _representable(backend, x, f"x{suffix}")
        target = np.dtype(np.int32) if y.ndim == 1 else backend.dtype
        stream = streams(net, [(x, backend.storage), (y, target)], data, rows)
        x = placed(backend, x, backend.storage, stream)
        y = placed(backend, y, target, stream and y.ndim == 2)
        return cls(x, y, weights, target)


def held_out(net: MLP, validation: Any, **placement: Any) -> Examples | None:
    """The validation data, checked; `placement`: where, as in `Examples.checked`."""
    if validation is None:
        return None
    if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
        raise ValueError("validation must be (x_val, y_val) or (x_val, y_val, sample_weight_val)")
    x, y, weights = validation if len(validation) == 3 else (*validation, None)
    try:
        return Examples.checked(net, x, y, weights, suffix="_val", **placement)
    except (TypeError, ValueError) as error:  # the weights' errors do not say whose they are
        raise type(error)(f"validation: {error}") from error


def _representable(backend: Backend, x: Array, name: str) -> None:
    """Raise unless x is finite, and stays so in the backend's storage type."""
    # bfloat16, of which NumPy knows no limits, reaches as far as float32
    kind = backend.storage if backend.storage.kind == "f" else np.dtype(np.float32)
    low, high = extent(x, name)
    largest, limit = max(high, -low), float(np.finfo(kind).max)
    if largest > limit:
        raise ValueError(
            f"{name} has values up to {largest:g}, beyond the network's {backend.storage}; rescale it"
        )
