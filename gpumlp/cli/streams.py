"""Stdout and stderr that cannot be written: closed, on a full disk, or with a reader that has gone.

A command runs to its end all the same, so that its files are written. What stderr cannot show is
lost; what stdout cannot show is remembered, and decides the exit status at the end.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any


class _Raw(io.FileIO):
    """An open file whose writes do not fail; `error` keeps why one did. An absent one is closed."""

    def __init__(self, number: int, absent: bool) -> None:
        super().__init__(number, "w", closefd=False)
        self.absent = absent
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        """Write, or drop what cannot be written."""
        if self.absent:
            self.error = OSError(errno.EBADF, "it is closed")
        try:
            if self.error is None and (written := super().write(content)) is not None:
                return written
        except OSError as error:
            self.error = error
        return len(memoryview(content).cast("B"))


_stdout: _Raw | None = None
_needed = True


def protect() -> None:
    """Replace stdout and stderr of the process by streams whose writes do not fail."""
    global _stdout
    if os.name == "nt":
        return
    missing = [number for number in range(3) if not _is_open(number)]
    for _ in missing:  # a file that is opened later must not become stdout or stderr
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is not None and stream is not getattr(sys, f"__{name}__"):
            continue  # the caller's own
        raw = _Raw(number, number in missing)
        encoding = getattr(stream, "encoding", None) or "utf-8"
        lines = number == 2 or raw.isatty()
        text = io.TextIOWrapper(
            io.BufferedWriter(raw), encoding, errors="replace", line_buffering=lines
        )
        setattr(sys, name, text)
        if number == 1:
            _stdout = raw


def not_needed() -> None:
    """Stdout has only a summary of files: it may be closed, or its reader may have gone."""
    global _needed
    _needed = False


def check_stdout() -> None:
    """Raise OSError if some of stdout could not be written."""
    if _stdout is not None:
        sys.stdout.flush()
        if isinstance(_stdout.error, BrokenPipeError):
            raise _stdout.error
        if _stdout.error is not None:
            raise OSError(f"stdout cannot be written: {_stdout.error.strerror}")


def end(status: int) -> tuple[int, str]:
    """The exit status of a command that ended with `status`, and an error message or ""."""
    try:
        check_stdout()
    except BrokenPipeError:
        return status or int(_needed), ""
    except OSError as error:
        if not status and (_needed or not _stdout or not _stdout.absent):
            return 2, f"{error}{'' if _needed else '; the files are written'}"
    return status, ""


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
