"""Arrays that map files: they are read without filling the memory of the process."""

from __future__ import annotations

import contextlib
import mmap
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from gpumlp.io.types import HostArray

LARGE_MAP = 256 << 20  # bytes: rows of larger maps are read from the file instead of the map
AROUND = 2 << 20  # bytes that Linux may map around a byte that is read: its largest folio
DONTNEED: Any = getattr(mmap, "MADV_DONTNEED", None)  # Windows has none
Reader = Callable[[int, int, int, int, int, int], int]
"""read(file, start, size, index, count, out) of addresses returns how many rows it has read."""
SHARED = ("r", "r+", "w+")  # the modes of np.memmap whose array shows the file as it is


def map_of(a: Any) -> mmap.mmap | None:
    """Return the map that contains the memory of `a`, or None if `a` maps no file."""
    while isinstance(a, np.ndarray):
        a = a.base
    a = a.obj if isinstance(a, memoryview) else a
    return a if isinstance(a, mmap.mmap) else None


def large(a: Any) -> bool:
    """Whether `a` is in a map of more than `LARGE_MAP` bytes."""
    file = map_of(a)
    return file is not None and len(file) > LARGE_MAP


# ---- reading in order ----------------------------------------------------------------------------


def can_unmap(a: Any) -> bool:
    """Whether `a` maps a file, without changes that are only in memory, as in mode "c"."""
    file = map_of(a)
    if file is None or DONTNEED is None:
        return False
    with memoryview(file) as view:
        return view.readonly or _memmap_of(a) is not None


def unmap_pages(part: HostArray) -> None:
    """Unmap the pages in and around `part`, which `can_unmap`, after it was read.

    They stay in the page cache of the system, and the next access maps them again.
    """
    file, (low, high) = map_of(part), np.lib.array_utils.byte_bounds(part)
    assert file is not None
    origin = np.frombuffer(file, np.uint8).ctypes.data
    start = max(low - origin - AROUND, 0) // mmap.PAGESIZE * mmap.PAGESIZE
    with contextlib.suppress(OSError):  # pages that are locked in memory stay mapped
        file.madvise(DONTNEED, start, high + AROUND - origin - start)


# ---- reading in any order ------------------------------------------------------------------------


class FileRows:
    """Rows (k, …) of a file, read by their index without mapping the file.

    Reading a row takes about 1.5 µs, and compiled half of it.  The first access through a map takes
    longer, and leaves up to 2 MiB mapped: the folio of the page cache that holds the row (measured
    on Linux 6.18).

    Args:
        file: open for reading.
        start: the byte at which row 0 begins; the other rows follow without gaps.
        shape, dtype: of all rows together.
        compiled: reads many rows without the interpreter's lock, `Library.read_rows`; None if there
            is no library.
    """

    def __init__(
        self, file: IO[bytes], start: int, shape: tuple[int, ...], dtype: np.dtype[Any],
        compiled: Reader | None = None,
    ) -> None:  # fmt: skip
        self._file, self._start, self.shape, self.dtype = file, start, shape, dtype
        self.compiled = compiled

    def read(self, index: npt.NDArray[np.int64], out: HostArray) -> None:
        """out ← rows[index], cast like NumPy casts.

        Raises:
            OSError: the file cannot be read, or was truncated.
        """
        direct = out.dtype == self.dtype and out.flags.c_contiguous
        rows = out if direct else np.empty((len(index), *self.shape[1:]), self.dtype)
        into, size, done = rows.reshape(-1).view(np.uint8), rows[:1].nbytes, 0
        file, index = self._file.fileno(), np.ascontiguousarray(index, np.int64)
        if self.compiled is not None:
            places = index.ctypes.data, len(index), into.ctypes.data
            done = self.compiled(file, self._start, size, *places)
        offsets = (self._start + index[done:] * size).tolist()
        for i, offset in zip(range(done * size, rows.nbytes, size), offsets, strict=True):
            if os.preadv(file, (into.data[i : i + size],), offset) < size:
                raise OSError(
                    "rows are beyond the end of the file: it was truncated after it was mapped"
                )
        if not direct:
            np.copyto(out, rows, casting="unsafe")


def rows_of(a: HostArray, compiled: Reader | None = None) -> HostArray | FileRows:
    """Return the rows of `a` in its file if it is in a `large` map of a known file, else `a`.

    compiled: as in `FileRows`.
    """
    memmap = _memmap_of(a) if large(a) and hasattr(os, "preadv") else None
    if memmap is None or not a.flags.c_contiguous:
        return a
    start = memmap.offset + a.ctypes.data - memmap.ctypes.data
    if file := getattr(memmap, "file", None):  # a temporary file, which has no name
        return FileRows(file, start, a.shape, a.dtype, compiled)
    try:
        file = Path(memmap.filename).open("rb")  # noqa: SIM115  (closed with its reader)
    except (OSError, TypeError):
        return a
    rows = FileRows(file, start, a.shape, a.dtype, compiled)
    weakref.finalize(rows, file.close)
    same = _is_mapped(file, memmap.ctypes.data)  # another file may have the name now
    return rows if same else a


def _is_mapped(file: IO[bytes], address: int) -> bool:
    """Whether this file is mapped at the address, according to Linux."""
    found = os.fstat(file.fileno())
    with contextlib.suppress(OSError), Path("/proc/self/maps").open("rb") as maps:
        for line in maps:
            span, _, _, device, inode = line.split(maxsplit=5)[:5]
            low, high = (int(end, 16) for end in span.split(b"-"))
            if low <= address < high:
                number = os.makedev(*(int(part, 16) for part in device.split(b":")))
                return (number, int(inode)) == (found.st_dev, found.st_ino)
    return False


def _memmap_of(a: Any) -> Any:
    """Return the np.memmap that made the map of `a`, or None if it may differ from its file."""
    while isinstance(a, np.ndarray):
        if isinstance(a, np.memmap) and not isinstance(a.base, np.ndarray) and a.mode in SHARED:
            return a
        a = a.base
    return None
