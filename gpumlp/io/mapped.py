"""Files that arrays map, read so that their pages do not fill the process's memory."""

from __future__ import annotations

import contextlib
import mmap
import os
import weakref
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gpumlp.io.types import HostArray

HELD = 256 << 20  # bytes of a map whose rows are gathered from it: all may become resident
AROUND = 2 << 20  # bytes that Linux may map around one that is read: its largest folio
DONTNEED: Any = getattr(mmap, "MADV_DONTNEED", None)  # Windows has none
SHARED = ("r", "r+", "w+")  # of np.memmap's modes those that show the file as it is


def map_of(a: Any) -> mmap.mmap | None:
    """The map that a's memory is part of; None where it is no file's."""
    while isinstance(a, np.ndarray):
        a = a.base
    a = a.obj if isinstance(a, memoryview) else a
    return a if isinstance(a, mmap.mmap) else None


def large(a: Any) -> bool:
    """Whether `a` lies in a map of more than `HELD` bytes."""
    file = map_of(a)
    return file is not None and len(file) > HELD


# ---- front to end --------------------------------------------------------------------------------


def can_let_go(a: Any) -> bool:
    """Whether `a` maps a file, and has no changes that the file does not get, as mode "c" has."""
    file = map_of(a)
    if file is None or DONTNEED is None:
        return False
    with memoryview(file) as view:
        return view.readonly or _origin(a) is not None


def let_go(part: HostArray) -> None:
    """Unmap the pages of `part`, which has been read, and around it; of what `can_let_go`.

    The system's page cache keeps them, and reading maps them again.
    """
    file, (low, high) = map_of(part), np.lib.array_utils.byte_bounds(part)
    assert file is not None
    origin = np.frombuffer(file, np.uint8).ctypes.data
    start = max(low - origin - AROUND, 0) // mmap.PAGESIZE * mmap.PAGESIZE
    with contextlib.suppress(OSError):  # pages that are locked in memory stay there
        file.madvise(DONTNEED, start, high + AROUND - origin - start)


# ---- in any order --------------------------------------------------------------------------------


class File(Protocol):
    """What is open for reading."""

    def fileno(self) -> int:
        """Its number."""


class FileRows:
    """Rows (k, …) that are read from a file, by their index, without mapping it.

    A row takes about 1 µs.  Through a map the first time takes longer, and leaves up to 2 MiB
    mapped, the folio of the page cache that it is in (measured on Linux 6.18).

    Args:
        file: open for reading.
        start: the byte where row 0 begins; the others follow without gaps.
        shape, dtype: of all rows.
    """

    def __init__(
        self, file: File, start: int, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self._file, self._start, self.shape, self.dtype = file, start, shape, dtype

    def take(self, index: npt.NDArray[np.int64], out: HostArray) -> None:
        """out ← rows[index], cast as NumPy casts.

        Raises:
            OSError: the file cannot be read, or has been cut.
        """
        direct = out.dtype == self.dtype and out.flags.c_contiguous
        rows = out if direct else np.empty((len(index), *self.shape[1:]), self.dtype)
        into, size = rows.reshape(-1).view(np.uint8).data, rows[:1].nbytes
        file = self._file.fileno()
        offsets = (self._start + index * size).tolist()
        for i, offset in zip(range(0, rows.nbytes, size), offsets, strict=True):
            if os.preadv(file, (into[i : i + size],), offset) < size:
                raise OSError("rows are beyond the file's end: it has been cut since it was mapped")
        if not direct:
            np.copyto(out, rows, casting="unsafe")


def rows_of(a: HostArray) -> HostArray | FileRows:
    """`a`; where it lies in a `large` map of a file that can be told, its rows in the file."""
    origin = _origin(a) if large(a) and hasattr(os, "preadv") else None
    if origin is None or not a.flags.c_contiguous:
        return a
    start = origin.offset + a.ctypes.data - origin.ctypes.data
    file = getattr(origin, "file", None)
    return FileRows(file, start, a.shape, a.dtype) if file else _reopened(a, origin, start)


def _reopened(a: HostArray, origin: Any, start: int) -> HostArray | FileRows:
    """The rows of the file by its name, unless that is another file's by now."""
    try:
        file = Path(origin.filename).open("rb")  # noqa: SIM115  (closed with its reader)
    except (OSError, TypeError):
        return a
    rows = FileRows(file, start, a.shape, a.dtype)
    weakref.finalize(rows, file.close)
    return rows if _is_mapped(file, origin.ctypes.data) else a


def _is_mapped(file: File, address: int) -> bool:
    """Whether Linux says that the file is what is mapped there."""
    found = os.fstat(file.fileno())
    with contextlib.suppress(OSError), Path("/proc/self/maps").open() as maps:
        for line in maps:
            span, _, _, device, inode = line.split(maxsplit=5)[:5]
            low, high = (int(end, 16) for end in span.split("-"))
            if low <= address < high:
                number = os.makedev(*(int(part, 16) for part in device.split(":")))
                return (number, int(inode)) == (found.st_dev, found.st_ino)
    return False


def _origin(a: Any) -> Any:
    """The np.memmap that made a's map, if it shows the file as it is; else None."""
    while isinstance(a, np.ndarray):
        if isinstance(a, np.memmap) and not isinstance(a.base, np.ndarray) and a.mode in SHARED:
            return a
        a = a.base
    return None
