"""Processes beside the benchmark: how they start, and those that only keep cores busy."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpumlp.io.signals import TERMINATING
from gpumlp.io.threads import THREADS

ONE_THREAD = dict.fromkeys(THREADS, "1")  # environment variables
START_SECONDS = 60.0


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Start processes that Ctrl-C, SIGTERM and SIGHUP do not reach: only the benchmark answers."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *TERMINATING})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def load(count: int) -> Iterator[None]:
    """Let so many other processes compute meanwhile.

    Raises:
        RuntimeError: they do not start.
    """
    from unittest import mock  # it imports asyncio, which other commands do not need

    spawn = multiprocessing.get_context("spawn")
    computing = spawn.Semaphore(0)
    others = [spawn.Process(target=_multiply, args=(computing,), daemon=True) for _ in range(count)]
    try:
        # the processes see these variables, too
        with interrupts_blocked(), mock.patch.dict(os.environ, ONE_THREAD):
            for other in others:
                other.start()
        for _ in others:
            if not computing.acquire(timeout=START_SECONDS):
                raise RuntimeError("the processes that keep the cores busy did not start")
        yield
    finally:
        for other in others:
            if other.pid is not None:
                other.kill()
                other.join()


def _multiply(computing: Any) -> None:
    """Multiply matrices, on one thread, as long as the benchmark lives."""
    a = np.random.default_rng(0).normal(size=(400, 400))
    parent = multiprocessing.parent_process()
    computing.release()
    while parent is not None and parent.is_alive():
        a = a @ a
        a /= np.abs(a).max()
