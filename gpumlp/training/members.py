"""What the fits of an ensemble's members share: threads, and a folder of checkpoints."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextvars import copy_context
from pathlib import Path

from gpumlp.io.signals import Interrupt
from gpumlp.io.threads import one_thread
from gpumlp.storage import PathLike
from gpumlp.training import checkpoint as files


def call(
    work: Callable[[int], None], members: Sequence[int], threads: int, interrupt: Interrupt
) -> None:
    """work(member) for each, so many at a time; on an error the others end after their step."""

    def alone(i: int) -> None:
        with one_thread():
            work(i)

    if min(threads, len(members)) < 2:
        for i in members:
            work(i)
        return
    with ThreadPoolExecutor(min(threads, len(members)), thread_name_prefix="member") as pool:
        # in the caller's context, which has its np.errstate
        futures = [pool.submit(copy_context().run, alone, i) for i in members]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            interrupt.requested = interrupt.requested or signal.SIGINT
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def folder(checkpoint: PathLike | None, every: int | None, resume: bool) -> Path | None:
    """The folder of checkpoints, which is made; None for none."""
    file = None if checkpoint is None else Path(checkpoint) / "member-0.safetensors"
    if checkpoint is None:
        files.checked(file, every, resume)
        return None
    found = Path(checkpoint)
    if found.is_file():
        raise ValueError(
            f"checkpoint={str(checkpoint)!r} is a file, and an ensemble needs a folder, with a "
            "file for each member; pass the path of a folder"
        )
    found.mkdir(parents=True, exist_ok=True)
    files.checked(file, every, resume)
    return found
