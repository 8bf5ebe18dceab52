"""Where examples are: in the backend's memory, or on the host, from where they are streamed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.backends import Backend
from gpumlp.io.chunks import chunks
from gpumlp.io.mapped import map_of
from gpumlp.io.types import Array
from gpumlp.network import CHUNK, MLP

DATA = ("auto", "device", "stream")
SPARE = 1 << 29  # bytes for graphs, and for memory in pieces too small to be of use


def place(
    net: MLP, x: Array, y: Array, target: np.dtype[Any], data: str, rows: int
) -> tuple[Array, Array]:
    """x and y in the backend, x in its storage type and y in `target`; or unchanged, for streaming.

    x is (m, n_0), y (m, n_L) or labels (m,).  Arrays that the backend uses in place are not copied.
    Labels, which need half as many bytes as the order of the examples, are always in the backend.
    For `data` and `rows` see `streams`.
    """
    backend = net.backend
    stream = streams(net, [(x, backend.storage), (y, target)], data, rows)
    return (
        _placed(backend, x, backend.storage, stream),
        _placed(backend, y, target, stream and y.ndim == 2),
    )


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

    Args:
        net: the network.
        arrays: each array with the dtype that the backend needs.
        data: "auto", "device" or "stream".
        rows: the number of examples of a step.

    Raises:
        ValueError: `data` is something else.
    """
    if data not in DATA:
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
    widths = 2 * sum(net.widths) + 2 * max(net.widths)
    return (min(rows, m) + CHUNK) * widths * net.backend.storage.itemsize + 32 * m + SPARE
