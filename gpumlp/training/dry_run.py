"""A backend that allocates nothing and counts the bytes that it is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends import Backend
from gpumlp.io.types import Array


class DryRunBackend:
    """A backend whose arrays have no memory, and which counts the bytes that they would need.

    Everything but allocation is delegated to the real backend: its dtypes, and its rules of what
    is stored.

    Attributes:
        fed: the bytes that the feeds of streamed data would need.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._uncounted: dict[int, tuple[Array, int]] = {}
        self._own: dict[int, Array] = {}
        self.fed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike | None = None) -> Array:
        """An array of zeros that all share one entry; its bytes are noted."""
        a = self._without_memory(shape, self._backend.dtype if dtype is None else dtype)
        self._uncounted[id(a.base)] = a.base, a.nbytes
        return a

    def _without_memory(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        entry = np.zeros((), dtype)
        self._own[id(entry)] = entry
        return np.broadcast_to(entry, shape)

    def accepts(self, a: Any, dtype: np.dtype[Any]) -> bool:
        """Whether it is an array of this backend, and not one on the host."""
        return id(getattr(a, "base", None)) in self._own

    def feed(self, source: Array, rows: int, dtype: np.dtype[Any]) -> None:
        """Add the bytes of a feed to `fed`."""
        self.fed += self._backend.feed_memory(source, rows, dtype)

    def full(
        self, shape: tuple[int, ...], value: float, dtype: npt.DTypeLike | None = None
    ) -> Array:
        """As `empty`."""
        return self.empty(shape, dtype)

    def asarray(self, a: Array, dtype: npt.DTypeLike | None = None, out: Array = None) -> Array:
        """As `empty`; or `out`, if it is given."""
        return self.empty(np.shape(a), dtype) if out is None else out

    def to_host(self, a: Array) -> Array:
        """The array itself."""
        return a

    def placed(self, a: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Data of that shape.  It needs no bytes if the real backend uses `a` in place."""
        if self._backend.accepts(a, dtype):
            return self._without_memory(shape, dtype)
        return self.empty(shape, dtype)

    def count(self, arrays: Iterable[Array]) -> int:
        """The bytes of the buffers of these arrays; each buffer counts once."""
        entries = [a.base for a in arrays if a is not None]
        return sum(self._uncounted.pop(id(entry), (None, 0))[1] for entry in entries)

    def count_rest(self) -> int:
        """The bytes of all buffers that are not counted yet."""
        sizes = [size for _, size in self._uncounted.values()]
        self._uncounted.clear()
        return sum(sizes)
