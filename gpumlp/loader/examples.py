"""Examples for a training: checked once, and placed once; those on the host are streamed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from gpumlp import checks
from gpumlp.backends import Backend
from gpumlp.errors import is_one_of
from gpumlp.functions.embeddings import Embeddings
from gpumlp.io.chunks import chunks, extent
from gpumlp.io.mapped import large, map_of
from gpumlp.io.types import Array, HostArray
from gpumlp.network import CHUNK, MLP
from gpumlp.step.settings import input_type
from gpumlp.weights import ClassWeight, weighted_targets

DATA = ("auto", "device", "stream")
SPARE = 1 << 29  # bytes for graphs, and for memory in pieces too small to be of use


@dataclass(frozen=True)
class Examples:
    """Checked examples, in the backend or on the host.

    Attributes:
        x: (m, n_0) in the backend, in `kind`; or on the host, of any real dtype.
        y: (m, n_L) or labels (m,) in the backend, in `target`; or (m, n_L) on the host.
        weights: (m,) float64 on the host, or None if all are equal.
        target: the dtype of y for the loss: the backend's, or int32 for labels.
        kind: the dtype of x in a step: see `input_type`.
        streamed: whether x and y are streamed: they are not in the backend, or in a large file.
        labelled: y for metrics, where `weights.weighted_targets` changed it; else None.
    """

    x: Array
    y: Array
    weights: HostArray | None
    target: np.dtype[Any]
    kind: np.dtype[Any]
    labelled: Array = None
    streamed: tuple[bool, ...] = (False, False)

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
    ) -> Self:
        """The arguments of a public function, as in `Trainer.fit`, checked and placed.

        `suffix` is added to the names x and y in errors; `rows` is the number of examples of a
        step, for `streams`.
        """
        backend, ends = net.backend, (net.widths[0], net.widths[-1])
        x, y, weights = checks.supervised(
            backend, net.loss, ends, x, y, sample_weight, class_weight, suffix, net.embed
        )
        check_range(backend, x, f"x{suffix}", net.embed)
        given, y = y, weighted_targets(backend, net.loss, y, ends[1], class_weight)
        target = np.dtype(np.int32) if y.ndim == 1 else backend.dtype
        of_x = input_type(backend, net.embed)
        stream = streams(net, [(x, of_x), (y, target)], data, rows)
        x = _placed(backend, x, of_x, stream)
        # labels need half as many bytes as the order of the examples: they are not streamed
        y = _placed(backend, y, target, stream and y.ndim == 2)
        streamed = tuple(
            not backend.accepts(a, kind) or large(a) for a, kind in ((x, of_x), (y, target))
        )
        return cls(x, y, weights, target, of_x, None if y is given else given, streamed)

    @classmethod
    def of_validation(cls, net: MLP, validation: Any, **placement: Any) -> Self | None:
        """The argument `validation` of `Trainer.fit`; `placement`: data and rows of `checked`."""
        if validation is None:
            return None
        x, y, weights = parts_of(validation)
        try:
            return cls.checked(net, x, y, weights, suffix="_val", **placement)
        except (TypeError, ValueError) as error:  # errors of weights do not name the data set
            raise type(error)(f"validation: {error}") from error

    def shares(self, backend: Backend) -> Array | None:
        """The weights in the backend, of which the sum is 1; or None."""
        return None if self.weights is None else backend.asarray(self.weights / self.weights.sum())


def parts_of(validation: Any) -> tuple[Array, Array, Array]:
    """x_val, y_val and the weights, or None for these; ValueError if it is no such tuple."""
    if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
        raise ValueError("validation must be (x_val, y_val) or (x_val, y_val, sample_weight_val)")
    x, y, *weights = validation
    return x, y, weights[0] if weights else None


def check_range(
    backend: Backend, x: Array, name: str, embed: Embeddings | None = None
) -> None:  # fmt: skip
    """Raise ValueError unless x is finite, also in the backend's storage type, but for codes."""
    # NumPy has no limits of bfloat16, whose range is that of float32
    kind = backend.storage if backend.storage.kind == "f" else np.dtype(np.float32)
    low, high = extent(x, name)
    if embed is not None:  # the codes are not rounded to it
        low, high = _extent_of_columns(x, embed.plain)
    largest, limit = max(high, -low), float(np.finfo(kind).max)
    if largest > limit:
        raise ValueError(
            f"{name} has values up to {largest:g}, beyond the network's {backend.storage}; "
            "rescale it"
        )


def _extent_of_columns(x: Array, columns: Sequence[int]) -> tuple[float, float]:
    parts = (x[rows][:, columns] for rows in chunks(x) if columns)
    each = [extent(part, "x") for part in parts]
    return min((low for low, _ in each), default=0.0), max((high for _, high in each), default=0.0)


def stacked(
    backend: Backend, parts: Sequence[Examples]
) -> tuple[Examples, list[Examples], list[int]]:
    """The examples of all parts in one array, the parts as views of it, and their first rows.

    None of them is streamed.
    """
    if len(parts) == 1:
        return parts[0], list(parts), [0]
    counts = [len(each.x) for each in parts]
    firsts = [sum(counts[:i]) for i in range(len(parts))]

    def joined(name: str) -> Array:
        arrays = [getattr(each, name) for each in parts]
        whole = backend.empty((sum(counts), *arrays[0].shape[1:]), arrays[0].dtype)
        for first, a in zip(firsts, arrays, strict=True):
            backend.asarray(a, dtype=a.dtype, out=whole[first : first + len(a)])
        return whole

    x, y, weights = joined("x"), joined("y"), None
    if parts[0].weights is not None:
        weights = np.concatenate([w / w.max() for each in parts if (w := each.weights) is not None])
    views = [
        replace(each, x=x[first : first + m], y=y[first : first + m])
        for each, first, m in zip(parts, firsts, counts, strict=True)
    ]
    return replace(parts[0], x=x, y=y, weights=weights), views, firsts


# ---- placement -----------------------------------------------------------------------------------


def _placed(backend: Backend, a: Array, dtype: np.dtype[Any], stream: bool) -> Array:
    """`a` in the backend, in `dtype`; `a` itself if it is that already, or stays on the host."""
    if backend.accepts(a, dtype) or (stream and isinstance(a, np.ndarray)):
        return a
    out = backend.empty(a.shape, dtype)
    for rows in chunks(a):
        backend.asarray(a[rows], dtype=dtype, out=out[rows])
    return out


def streams(net: MLP, arrays: Sequence[tuple[Array, np.dtype[Any]]], data: str, rows: int) -> bool:
    """Whether arrays on the host stay there and are streamed, as `data`, one of `DATA`, asks.

    With "auto" they are streamed if they and the steps of `rows` examples do not fit in the
    backend's memory; in a backend on the host, if they are mapped files.

    arrays: each array with the dtype that the backend needs.
    """
    if not is_one_of(data, DATA):
        raise ValueError(f'data must be "auto", "device" or "stream", got {data!r}')
    if data != "auto":
        return data == "stream"
    backend = net.backend
    moved = [(a, kind) for a, kind in arrays if not backend.accepts(a, kind)]
    free = backend.free_memory()
    if free is None:
        return any(map_of(a) is not None for a, _ in moved)
    needed = sum(a.size * kind.itemsize for a, kind in moved)
    return bool(needed + _of_steps(net, rows, len(arrays[0][0])) > free)


def _of_steps(net: MLP, rows: int, m: int) -> int:
    """The bytes of steps and evaluations, at least: z, h and gz, order, weights and costs."""
    of_layers = net.theta.layout.read
    widths = 2 * sum(of_layers) + 2 * max(of_layers)
    return (min(rows, m) + CHUNK) * widths * net.backend.storage.itemsize + 32 * m + SPARE
