"""What the fits of an ensemble's members share: threads, and a folder of checkpoints."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextvars import copy_context
from pathlib import Path

from gpumlp.backends import Backend
from gpumlp.io.signals import shared
from gpumlp.io.threads import blas_threads, one_thread
from gpumlp.storage import PathLike
from gpumlp.training import checkpoint as files


def count(backend: Backend) -> int:
    """The number of networks that are trained at a time."""
    # NumPy holds the interpreter lock between its short calls; a GPU has one stream of steps
    return blas_threads() if backend.on_host and backend.compiles else 1


def call(work: Callable[[int], None], members: Sequence[int], threads: int) -> None:
    """work(member) for each, so many at a time, each on one thread.

    Ctrl-C, and an error in one of them, end all fits among the work after a step.
    """

    def alone(i: int) -> None:
        with one_thread():
            work(i)

    with shared() as interrupt:
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
