"""A backend that allocates nothing and notes what it was asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends import Backend
from gpumlp.io.types import Array


class DryRunBackend:
    """A backend whose arrays have no memory, and that notes what they would take.

    What is no allocation is the real backend's: types, and the rules of what is kept.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._noted: dict[int, tuple[Array, int]] = {}
        self._ours: dict[int, Array] = {}
        self.fed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike | None = None) -> Array:
        """Zeros that all are one entry, which stands for the whole from here on."""
        a = self._standing(shape, self._backend.dtype if dtype is None else dtype)
        self._noted[id(a.base)] = a.base, a.nbytes
        return a

    def _standing(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        entry = np.zeros((), dtype)
        self._ours[id(entry)] = entry
        return np.broadcast_to(entry, shape)

    def accepts(self, a: Any, dtype: np.dtype[Any]) -> bool:
        """Whether it is an array of this backend's; what lies on the host does not."""
        return id(getattr(a, "base", None)) in self._ours

    def feed(self, source: Array, rows: int, dtype: np.dtype[Any]) -> None:
        """Nothing, but `fed` grows by what it would take."""
        self.fed += self._backend.feed_memory(source, rows, dtype)

    def full(
        self, shape: tuple[int, ...], value: float, dtype: npt.DTypeLike | None = None
    ) -> Array:
        """The same."""
        return self.empty(shape, dtype)

    def asarray(self, a: Array, dtype: npt.DTypeLike | None = None, out: Array = None) -> Array:
        """The same, or `out`."""
        return self.empty(np.shape(a), dtype) if out is None else out

    def to_host(self, a: Array) -> Array:
        """The array as it is."""
        return a

    def placed(self, a: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Data of that shape; what the backend can use as it is takes nothing."""
        if self._backend.accepts(a, dtype):
            return self._standing(shape, dtype)
        return self.empty(shape, dtype)

    def take(self, arrays: Iterable[Array]) -> int:
        """The bytes of the buffers that these are views of; no buffer counts again."""
        entries = [a.base for a in arrays if a is not None]
        return sum(self._noted.pop(id(entry), (None, 0))[1] for entry in entries)

    def rest(self) -> int:
        """The bytes of all that was not taken yet."""
        sizes = [size for _, size in self._noted.values()]
        self._noted.clear()
        return sum(sizes)
