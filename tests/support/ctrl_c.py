"""Ctrl-C as a terminal sends it, from any thread of a fit."""

import os
import signal
import threading
import time

from gpumlp.io.signals import interruptible


def press():
    """Ctrl-C; return when its handler was called."""
    os.kill(os.getpid(), signal.SIGINT)
    wait()


def wait():
    """Wait until the fit around this thread knows of a Ctrl-C, which the main thread handles."""
    if threading.current_thread() is threading.main_thread():
        return
    until = time.monotonic() + 60
    with interruptible() as interrupt:
        while not interrupt.requested:
            assert time.monotonic() < until
            time.sleep(1e-3)
