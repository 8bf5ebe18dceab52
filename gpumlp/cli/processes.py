"""A command that several processes run: rank 0 prints and writes for all."""

from __future__ import annotations

import io
import os
import sys

from gpumlp import distributed
from gpumlp.distributed import World, ending_together
from gpumlp.distributed.together import wait_for_first

_joined: World | None = None
_printed = io.StringIO()


def join() -> World:
    """The processes that were launched with this one; from now on only rank 0 prints.

    Raises:
        ImportError, OSError: there is no library for them, or it is another launcher's.
    """
    global _joined
    if _joined is None:
        try:
            _joined = distributed.world()
        except RuntimeError as error:
            raise OSError(str(error)) from error
        if _joined.rank > 0:
            _joined.errors = sys.stderr
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
            sys.stderr = _printed
    return _joined


def fail(error: Exception) -> None:
    """End all processes after an error that no command expects, with its traceback."""
    if _joined is not None and _joined.size > 1:
        with ending_together(_joined):
            raise error


def end(status: int) -> None:
    """End all processes if this one ends with an error.

    Where all have the error, only rank 0 prints it, and ends the others while they wait.
    """
    if _joined is None or _joined.size == 1 or status == 0:
        return
    if _joined.rank > 0:
        wait_for_first(_joined)
        lines = _printed.getvalue().strip().splitlines()
        said = lines[-1].removeprefix("gpumlp: ").removeprefix("error: ") if lines else ""
        _joined.fail(said or f"status {status}", status)
    sys.stdout.flush()
    _joined.end(status)
