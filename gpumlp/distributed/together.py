"""One process that fails ends all, in place of leaving the others to wait for it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from gpumlp.distributed.world import World
from gpumlp.errors import first_line

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
LATER = 1.0  # seconds that a rank other than 0 waits with an error, which rank 0 may have as well
OURS = {str(Path(__file__)), str(Path(__file__).with_name("__main__.py")), "<frozen runpy>"}


@contextmanager
def ending_together(world: World) -> Iterator[None]:
    """A context whose errors end all processes of a world.

    An exception prints its traceback and one line, and all end with status 1.  A call of sys.exit
    with a status other than 0 ends all with that status, Ctrl-C with 130.  Where all ranks fail,
    only rank 0 prints; the others wait for `LATER` before they do.  A world of one behaves as
    without the context.

    Args:
        world: as of `gpumlp.distributed.world()`.
    """
    try:
        yield
    except BaseException as error:
        status = exit_status(error)
        if world.size == 1 or status == 0:
            raise
        wait_for_first(world)
        if not isinstance(error, (SystemExit, KeyboardInterrupt)):
            lines = traceback.format_exception(type(error), error, of_script(error.__traceback__))
            world.print_error("".join(lines))
        world.fail(reason(error), status)


def wait_for_first(world: World) -> None:
    """Leave an error that all ranks have to rank 0, which ends this process as well."""
    if world.rank > 0:
        with suppress(KeyboardInterrupt):  # a further Ctrl-C only ends the wait
            time.sleep(LATER)


def exit_status(error: BaseException) -> int:
    """The exit status by which Python would end after this exception."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if not isinstance(error, SystemExit):
        return 1
    return error.code if isinstance(error.code, int) else int(error.code is not None)


def reason(error: BaseException) -> str:
    """Why the process ends, in one line."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted by Ctrl-C"
    if isinstance(error, SystemExit):
        return f"sys.exit({error.code!r})"
    kind, text = type(error).__name__, first_line(error)
    return kind if text == kind else f"{kind}: {text}"


def of_script(trace: TracebackType | None) -> TracebackType | None:
    """The part of a traceback that begins in the script."""
    while trace is not None and trace.tb_frame.f_code.co_filename in OURS:
        trace = trace.tb_next
    return trace
