"""Copies of rows from host memory: what the `feed` operations of both backends share."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from gpumlp.io.mapped import FileRows, Reader, rows_of
from gpumlp.io.threads import Threads, blocks
from gpumlp.io.types import Array, HostArray

Index = npt.NDArray[np.int64]


class Feed(Protocol):
    """Copies rows of an array in host memory to the backend, one minibatch after the other.

    The CUDA backend copies the rows while the GPU computes.  Neither call may be part of a recorded
    step.
    """

    def fetch(self, index: Index) -> None:
        """Start to copy the rows `index`.  Unused rows of an earlier `fetch` are lost."""

    def copy_into(self, out: Array) -> None:
        """out ← the fetched rows, cast as NumPy casts.  `out` has as many rows as were fetched."""


def take_rows(threads: Threads, source: HostArray | FileRows, index: Index, out: HostArray) -> None:
    """out ← source[index], cast as NumPy casts.  Only these rows are read, copied and cast."""
    # np.take copies the whole array first if its memory has gaps or is not aligned
    direct = isinstance(source, np.ndarray) and source.flags.c_contiguous and source.flags.aligned

    def block(part: slice) -> None:
        if isinstance(source, FileRows):
            source.read(index[part], out[part])
        elif direct and source.dtype == out.dtype:  # mode "raise" would buffer the output
            np.take(source, index[part], axis=0, out=out[part], mode="clip")
        else:
            rows = source.take(index[part], axis=0) if direct else source[index[part]]
            np.copyto(out[part], rows, casting="unsafe")

    width = max(source.dtype.itemsize, out.itemsize) * out[0].size
    if isinstance(source, FileRows) and source.compiled is None:
        threads = Threads(1)  # many short calls: the interpreter's lock makes threads slow
    threads.map(block, blocks(0, len(index), width))


class HostFeed:
    """The `Feed` of the host's backends: `copy_into` reads the rows from the source.

    compiled: as in `FileRows`.
    """

    def __init__(self, source: HostArray, threads: Threads, compiled: Reader | None = None) -> None:
        self._source, self._threads = rows_of(source, compiled), threads
        self._index = np.empty(0, np.int64)

    def fetch(self, index: Index) -> None:
        self._index = index

    def copy_into(self, out: HostArray) -> None:
        take_rows(self._threads, self._source, self._index, out)
