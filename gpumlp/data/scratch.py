"""Matrices larger than memory: rows in files, read in slices, and the temporary files for them."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from gpumlp.io.types import HostArray

LARGE = 128 << 20  # bytes; larger arrays are stored in a file
RESERVED = 64 << 20  # bytes of free disk space that are left to other programs


class LazyMatrix(ABC):
    """A matrix (m, n) whose rows are read when ``x[a:b]`` or ``np.asarray(x)`` is evaluated."""

    ndim = 2
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def __getitem__(self, rows: slice) -> HostArray:
        """These rows, as a new array."""

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> HostArray:
        if copy is False:
            raise ValueError("a matrix on disk cannot become an array without a copy")
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)


Matrix = HostArray | LazyMatrix
"""A matrix (m, n) of numbers. It has a shape, a dtype and a length, and ``x[a:b]`` is an array."""


class FileMatrix(LazyMatrix):
    """Rows (m, n) of a file, from byte `offset` on; with `columns_first` column after column.

    They are read, not mapped: pages of a mapped file would count as the process's memory. The open
    file is closed when this object is no longer used.
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
            return np.stack([self._read(j * m + start, count) for j in range(n)], axis=1)
        return self._read(start * n, count * n).reshape(count, n)

    def _read(self, start: int, count: int) -> HostArray:
        """`count` numbers of the file, from number `start` on."""
        out = np.empty(count, self.dtype)
        self.file.seek(self._offset + start * self.dtype.itemsize)
        if count and self.file.readinto(out.view(np.uint8)) < out.nbytes:  # type: ignore[attr-defined]
            raise ValueError("rows are missing: the file has been cut since it was opened")
        return out

    def fileno(self) -> int:
        """The number of the open file."""
        return self.file.fileno()


class SelectedMatrix(LazyMatrix):
    """Some columns of another matrix, in another dtype; `index`: its rows, ascending, or all."""

    def __init__(
        self, source: Matrix, columns: HostArray, dtype: npt.DTypeLike,
        index: HostArray | None = None,
    ) -> None:  # fmt: skip
        self._source, self._columns, self._index = source, columns, index
        self.dtype = np.dtype(dtype)
        self.shape = (len(source) if index is None else len(index), len(columns))

    def __getitem__(self, rows: slice) -> HostArray:
        if self._index is None:
            part = self._source[rows]
        else:  # one read from the first to the last of these rows
            at = self._index[rows]
            first, last = (at[0], at[-1]) if len(at) else (0, -1)
            part = self._source[first : last + 1][at - first]
        return np.ascontiguousarray(part[:, self._columns], self.dtype)


def select_rows(x: Matrix, index: HostArray) -> Matrix:
    """The rows of x with these numbers; for a matrix on disk they must be ascending."""
    if isinstance(x, np.ndarray):
        return x[index]
    return SelectedMatrix(x, np.arange(x.shape[1]), x.dtype, index)


class Scratch:
    """Storage for arrays that arrive in pieces: in memory, or in temporary files if they are large.

    The files have no name. However the process ends, they are gone.

    Args:
        folder: the folder of the files; None for the system's folder of temporary files.
        stream: True to always use files, False to never use them, None to use files for arrays
            larger than `LARGE`.

    Attributes:
        used: the number of bytes that were requested in files.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, stream: bool | None = None
    ) -> None:
        self.folder = Path(tempfile.gettempdir() if folder is None else folder)
        # commands that read with a model have no such option
        self._chosen_by = "the environment variable TMPDIR" if folder is None else "--scratch DIR"
        self._stream, self.used = stream, 0.0

    def on_disk(self, size: float) -> bool:
        """Whether an array of `size` bytes is stored in a file."""
        return size > LARGE if self._stream is None else self._stream

    def file(self, size: float) -> BinaryIO:
        """A new file for `size` bytes; OSError if there is no folder, or its disk is full."""
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"there is no folder {self.folder} for temporary files; create it, or name "
                "another one, --scratch DIR"
            )
        free = shutil.disk_usage(self.folder).free
        if size + RESERVED > free:
            raise OSError(
                f"{self.folder} has {free / 1e9:.2f} GB free, but temporary files need "
                f"{size / 1e9:.2f} GB; name a folder with more free space, {self._chosen_by}"
            )
        self.used += size
        try:
            return cast("BinaryIO", tempfile.TemporaryFile(dir=self.folder))  # its reader closes it
        except OSError as error:  # the folder is read-only
            raise OSError(
                f"cannot write temporary files to {self.folder} ({error.strerror}); name another "
                f"folder, {self._chosen_by}"
            ) from error

    def store(self, rows: int, columns: int, dtype: npt.DTypeLike) -> Store:
        """A store for about `rows` rows."""
        size = float(rows) * columns * np.dtype(dtype).itemsize
        return Store(columns, dtype, self.file(size) if self.on_disk(size) else None)


class Store:
    """Rows that arrive in pieces, in memory or in a file."""

    def __init__(self, columns: int, dtype: npt.DTypeLike, file: BinaryIO | None) -> None:
        self._columns, self._dtype, self._file = columns, np.dtype(dtype), file
        self._array: HostArray = np.empty((0, columns), self._dtype)
        self._rows = 0

    def append(self, part: HostArray) -> None:
        """Add rows (k, columns)."""
        part = np.ascontiguousarray(part, self._dtype)
        self._rows += len(part)
        if self._file is None:
            # the system moves the pages of a large array, which is not copied
            self._array.resize((self._rows, self._columns), refcheck=False)
            self._array[self._rows - len(part) :] = part
        else:
            self._file.write(part.data if part.size else b"")

    def rows(self) -> HostArray | FileMatrix:
        """All rows, as an array or as a matrix that is read from the file."""
        if self._file is None:
            return self._array
        return FileMatrix(self._file, (self._rows, self._columns), self._dtype)

    def array(self) -> HostArray:
        """All rows as an array, which maps the file if they are in one, to be read in any order."""
        rows = self.rows()
        if not isinstance(rows, FileMatrix):
            return rows
        rows.file.flush()
        array = np.memmap(rows.file, rows.dtype, "r", 0, rows.shape)
        # a temporary file has no name by which `io.mapped.rows_of` could open it again
        array.file = rows  # type: ignore[attr-defined]
        return array
