"""A command that several processes run: rank 0 prints and writes for all."""

from __future__ import annotations

import io
import os
import sys
import time

from gpumlp import distributed
from gpumlp.distributed import World

LATER = 1.0  # seconds that a rank other than 0 waits with an error, which rank 0 may have as well

_joined: World | None = None
_printed = io.StringIO()


def join() -> World:
    """The processes that were launched with this one; from now on only rank 0 prints."""
    global _joined
    if _joined is None:
        _joined = distributed.world()
        _silence(_joined.rank > 0)
    return _joined


def _silence(silent: bool) -> None:
    if silent:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  (for the rest)
        sys.stderr = _printed


def end(status: int) -> None:
    """End all processes if this one ends with an error.

    Where all have the error, only rank 0 prints it, and ends the others while they wait.
    """
    if _joined is None or _joined.size == 1 or status == 0:
        return
    if _joined.rank > 0:
        time.sleep(LATER)
        sys.stderr = sys.__stderr__
        lines = _printed.getvalue().strip().splitlines()
        _joined.fail(lines[-1].removeprefix("gpumlp: ") if lines else f"status {status}", status)
    sys.stdout.flush()
    _joined.end(status)
