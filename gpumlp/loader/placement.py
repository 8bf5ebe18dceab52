"""Where examples lie: in the backend, or on the host, from where a minibatch at a time is brought."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.backends import Backend
from gpumlp.io.chunks import chunks
from gpumlp.io.mapped import map_of
from gpumlp.io.types import Array
from gpumlp.network import CHUNK, MLP

DATA = ("auto", "device", "stream")
SPARE = 1 << 29  # bytes for graphs, and for memory in pieces too small to be of use


def placed(backend: Backend, a: Array, dtype: np.dtype[Any], stream: bool) -> Array:
    """`a` in the backend, in `dtype`; or as it is, where it lies so or stays on the host."""
    if backend.accepts(a, dtype) or (stream and isinstance(a, np.ndarray)):
        return a
    out = backend.empty(a.shape, dtype)
    for rows in chunks(a):
        backend.asarray(a[rows], dtype=dtype, out=out[rows])
    return out


def streams(net: MLP, arrays: list[tuple[Array, np.dtype[Any]]], data: str, rows: int) -> bool:
    """Whether arrays on the host stay there, as `data`, one of `DATA`, asks.

    "auto": those that the backend has no memory for beside steps of `rows` examples stay there, or,
    in a backend that is the host, those on a disk.

    Raises:
        ValueError: another word.
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
    asked = sum(a.size * kind.itemsize for a, kind in moved)
    return bool(asked + _beside(net, rows, len(arrays[0][0])) > free)


def _beside(net: MLP, rows: int, m: int) -> int:
    """No fewer bytes than steps and evaluations need: z, h and gz, order, weights and costs."""
    widths = 2 * sum(net.widths) + 2 * max(net.widths)
    return (min(rows, m) + CHUNK) * widths * net.backend.storage.itemsize + 32 * m + SPARE
