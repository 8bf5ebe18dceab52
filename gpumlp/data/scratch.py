"""What is larger than memory: rows in files, read a slice at a time, and the temporary files that hold them."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from gpumlp.io.types import HostArray

LARGE = 128 << 20  # bytes of an array from which on it goes into a file
SPARE = 64 << 20  # bytes of the disk that are left to others


class Sliced(ABC):
    """Rows (m, n) that are read when asked for: ``x[a:b]`` is an array, and so is np.asarray(x)."""

    ndim = 2
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def __getitem__(self, rows: slice) -> HostArray:
        """The rows, as a new array."""

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> HostArray:
        if copy is False:
            raise ValueError("what is on a disk cannot be an array without a copy")
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)


class OnDisk(Sliced):
    """Rows (m, n) of a file: ``rows[a:b]`` reads a slice, as a new array.

    It is read, not mapped: pages that were read this way are no part of the process's memory.

    Args:
        file: open for reading; closed with the last user of this object.
        shape, dtype: of the rows.
        offset: the byte where they begin.
        columns_first: whether the file has one column after the other.
    """

    def __init__(
        self, file: BinaryIO, shape: tuple[int, int], dtype: npt.DTypeLike, offset: int = 0,
        columns_first: bool = False,
    ) -> None:  # fmt: skip
        self.file, self.shape, self.dtype = file, shape, np.dtype(dtype)
        self._offset, self._columns_first = offset, columns_first
        weakref.finalize(self, file.close)

    def __getitem__(self, rows: slice) -> HostArray:
        start, stop, _ = rows.indices(len(self))
        (m, n), count = self.shape, max(stop - start, 0)
        if self._columns_first:
            columns = [self._read(j * m + start, count) for j in range(n)]
            return np.stack(columns, axis=1)
        return self._read(start * n, count * n).reshape(count, n)

    def _read(self, start: int, count: int) -> HostArray:
        """So many numbers of the file, from one on."""
        out = np.empty(count, self.dtype)
        self.file.seek(self._offset + start * self.dtype.itemsize)
        if count and self.file.readinto(out.view(np.uint8)) < out.nbytes:  # type: ignore[attr-defined]
            raise ValueError("rows are beyond the file's end: it has been cut since")
        return out

    def fileno(self) -> int:
        """The file's number, to read it by."""
        return self.file.fileno()

    def mapped(self) -> HostArray:
        """All rows, mapped: for reading them in any order."""
        self.file.flush()
        array = np.memmap(self.file, self.dtype, "r", self._offset, self.shape)
        array.file = self  # type: ignore[attr-defined]  # which has no name: see `rows_of`
        return array


class Selection(Sliced):
    """Some rows and columns of what is read a slice at a time, and in another dtype.

    Args:
        source: (m, n).
        columns: the columns to keep, in this order.
        dtype: what they are cast to.
        index: the rows to keep, ascending; None for all.
    """

    def __init__(
        self,
        source: Matrix,
        columns: HostArray,
        dtype: npt.DTypeLike,
        index: HostArray | None = None,
    ) -> None:
        self._source, self._columns, self._index = source, columns, index
        self.dtype = np.dtype(dtype)
        self.shape = (len(source) if index is None else len(index), len(columns))

    def __getitem__(self, rows: slice) -> HostArray:
        if self._index is None:
            part = np.asarray(self._source[rows])
        else:  # from the first to the last of them in one go
            at = self._index[rows]
            span = slice(at[0], at[-1] + 1) if len(at) else slice(0, 0)
            part = np.asarray(self._source[span])[at - (at[0] if len(at) else 0)]
        return np.ascontiguousarray(part[:, self._columns], self.dtype)


Matrix = HostArray | Sliced
"""(m, n) numbers with shape, dtype and len, of which ``x[a:b]`` is an array."""


def taken(x: Matrix, index: HostArray) -> Matrix:
    """The rows of x that `index` names; of what is on a disk it must be ascending."""
    if isinstance(x, np.ndarray):
        return x[index]
    return Selection(x, np.arange(x.shape[1]), x.dtype, index)


class Scratch:
    """Where arrays go that come piece by piece: into memory, or into files where they are large.

    The files have no name any more once they are open: however the process ends, they are gone.

    Args:
        folder: of the files; None for the system's folder of temporary files.
        stream: True for files always, False for never, None for arrays larger than `LARGE`.

    Attributes:
        used: the bytes that were asked for in files.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, stream: bool | None = None
    ) -> None:
        self.folder = Path(tempfile.gettempdir() if folder is None else folder)
        self._stream, self.used = stream, 0.0

    def on_disk(self, size: float) -> bool:
        """Whether so many bytes go into a file."""
        return size > LARGE if self._stream is None else self._stream

    def file(self, size: float) -> BinaryIO:
        """A new file for so many bytes.

        Raises:
            OSError: the folder does not exist, or its disk is full.
        """
        free = shutil.disk_usage(self._existing()).free
        if size + SPARE > free:
            raise OSError(
                f"{self.folder} has {free / 1e9:.2f} GB free, but temporary files need "
                f"{size / 1e9:.2f} GB; name a folder with more, --scratch DIR"
            )
        self.used += size
        file: Any = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115  (its reader closes it)
        return file  # type: ignore[no-any-return]

    def store(self, rows: int, columns: int, dtype: npt.DTypeLike) -> Store:
        """A place for about so many rows."""
        size = float(rows) * columns * np.dtype(dtype).itemsize
        return Store(columns, dtype, self.file(size) if self.on_disk(size) else None)

    def _existing(self) -> Path:
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"there is no folder {self.folder} for temporary files; make it, or name another, "
                "--scratch DIR"
            )
        return self.folder


class Store:
    """Rows that come piece by piece, in memory or in a file."""

    def __init__(self, columns: int, dtype: npt.DTypeLike, file: BinaryIO | None) -> None:
        self._columns, self._dtype, self._file = columns, np.dtype(dtype), file
        self._parts: list[HostArray] = []
        self._rows = 0

    def append(self, part: HostArray) -> None:
        """Add rows (k, columns)."""
        part = np.ascontiguousarray(part, self._dtype)
        self._rows += len(part)
        if self._file is None:
            self._parts.append(part)
        else:
            self._file.write(part.data if part.size else b"")

    def rows(self) -> HostArray | OnDisk:
        """All of them: an array, or to be read from the file."""
        shape = (self._rows, self._columns)
        if self._file is not None:
            return OnDisk(self._file, shape, self._dtype)
        if len(self._parts) == 1:
            return self._parts[0]
        out = np.empty(shape, self._dtype)
        start = 0
        while self._parts:  # each is freed once it is copied
            part = self._parts.pop(0)
            out[start : start + len(part)] = part
            start += len(part)
        return out

    def array(self) -> HostArray:
        """All of them as an array, mapped where it is a file's."""
        rows = self.rows()
        return rows.mapped() if isinstance(rows, OnDisk) else rows
