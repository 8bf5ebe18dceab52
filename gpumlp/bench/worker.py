"""One competitor in a process of its own, and the pipe between it and the benchmark.

The process first sends `Started`. Then it receives calls, (function, arguments), and sends what
they return. If it cannot go on, it sends a `NotTimed`.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.bench.correct import Change, changes
from gpumlp.bench.peers import NotTimed, Problem, Step, builder
from gpumlp.bench.results import Result
from gpumlp.bench.timing import machine
from gpumlp.io.signals import TERMINATING
from gpumlp.io.threads import THREADS

CACHES = (  # variables that name the folders where libraries store what they compiled
    "CUPY_CACHE_DIR", "CUDA_CACHE_PATH", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR", "GPUMLP_CACHE",
)  # fmt: skip
SKIPPED = 20  # steps that loss scaling may skip at first; it halves its scale at each of them
WEEK = 7 * 24 * 3600.0  # seconds; a pipe cannot wait for more than 24 days

Started = tuple[Result, dict[str, Change]]
"""The result so far, and the change of θ in the first step; empty if the step does not train."""
Burst = tuple[float, int | None]
"""The seconds of a step, the mean of several in a row; and the peak memory so far."""


class Worker:
    """The process of one competitor. All its methods raise `NotTimed` if the process fails.

    Args:
        result: names the competitor, the case and the backend.
        log: file for everything that the process prints.
        caches: folder for what libraries compile. The start is warm if an earlier one has made it.
        until: `time.monotonic()` at which the process is stopped.
    """

    def __init__(self, result: Result, log: Path, caches: Path, until: float) -> None:
        self._log, self._until, self._burst = log, until, (1, False)
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(theirs, log, caches, result))
        try:
            with interrupts_blocked():
                self._process.start()
        except BaseException:  # Ctrl-C during the start, too
            self.close()
            raise
        theirs.close()

    def started(self) -> Started:
        """Wait for the first step."""
        started: Started = self._receive()
        return started

    def warm_up(self, seconds: float, burst_seconds: float) -> None:
        """Run the competitor for this time. From then on a burst takes about `burst_seconds`."""
        each, _ = self._call(warm_up, seconds)
        # a short step has a cold cache after another process, so an untimed one comes first
        self._burst = max(1, math.ceil(burst_seconds / each)), each < burst_seconds

    def burst(self) -> Burst:
        """Time several steps in a row."""
        burst: Burst = self._call(time_burst, *self._burst)
        return burst

    def profile(self) -> dict[str, Any]:
        """See `gpumlp.bench.profile`; the step must be this library's."""
        found: dict[str, Any] = self._call(methodcaller("profile"))
        return found

    def close(self) -> None:
        """Stop the process, whatever it is doing."""
        if self._process.pid is not None:
            self._process.kill()
            self._process.join()
        self._connection.close()

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with suppress(OSError):  # the process may have ended; `_receive` says why
            self._connection.send((function, arguments))
        return self._receive()

    def _receive(self) -> Any:
        """The next message of the process."""
        left = self._until - time.monotonic()
        try:
            if not self._connection.poll(None if left > WEEK else max(0.0, left)):
                raise NotTimed("the time was over before it was done", "late")
            message = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(10)  # seconds; the pipe is closed before the process ends
            printed = self._log.read_text(errors="replace") if self._log.exists() else ""
            last = "".join(f": {line}" for line in printed.strip().splitlines()[-1:])
            code = self._process.exitcode
            raise NotTimed(f"its process ended with status {code}{last}") from None
        if isinstance(message, NotTimed):
            raise message
        return message


def serve(connection: Connection, log: Path, caches: Path, result: Result) -> None:
    """Build the competitor, take its first step, then answer calls until the process is stopped."""
    with log.open("wb") as file:
        for output in (1, 2):  # a library that prints cannot disturb the benchmark's own output
            os.dup2(file.fileno(), output)
    kind_of_start = "warm" if caches.exists() else "cold"
    caches.mkdir(exist_ok=True)
    os.environ.update({name: str(caches / name.lower()) for name in CACHES})
    sys.path.insert(0, str(Path.cwd()))  # the user's own competitor may be in the current folder
    try:
        step, started = start(result, kind_of_start)
        connection.send(started)
        while True:
            function, arguments = connection.recv()
            connection.send(function(step, *arguments))
    except NotTimed as reason:
        failure = reason
    except ImportError as error:
        missing = f"{error.name} is not installed" if error.name else str(error)
        failure = NotTimed(missing, "missing")
    except Exception as error:  # a competitor's mistake must not stop the others
        traceback.print_exc()
        line = (str(error).strip().splitlines() or [""])[0]
        failure = NotTimed(f"{type(error).__name__}: {line}".rstrip(": "))
    connection.send(failure)


def start(result: Result, kind_of_start: str) -> tuple[Step, Started]:
    """The competitor after its first step, and what the start has shown."""
    problem = Problem(result.case, result.backend)
    begun = time.perf_counter()  # before the import of the library, and after the data is drawn
    step = builder(result.competitor)(problem)
    step.run()
    step.synchronize()
    seconds = time.perf_counter() - begun - problem.drawing
    found = changes(problem, step) if step.trains else {}
    for _ in range(SKIPPED if found and result.case.precision == "float16" else 0):
        if any(norm for _, norm, _ in found.values()):
            break
        step.run()  # loss scaling skips steps until its scale is small enough
        found = changes(problem, step)
    gpu_bytes = step.peak_bytes()
    result = replace(
        result,
        first_step={kind_of_start: seconds} if step.trains else {},
        peak_bytes=_peak_resident() if gpu_bytes is None else gpu_bytes,
        peak_of="resident memory" if gpu_bytes is None else "GPU memory as the library counts it",
        notes=json.loads(json.dumps(step.notes)),  # fails here if JSON cannot hold them
        machine=machine(),
    )
    return step, (result, found)


def _peak_resident() -> int | None:
    """The most bytes of this process that were in memory at once; None except on Linux."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def warm_up(step: Step, seconds: float) -> Burst:
    """Run for this time, in bursts that double; returns the last burst, without extra seconds."""
    until, steps = time.perf_counter() + seconds, 1
    while True:
        each, peak = time_burst(step, steps, lead=False)
        each -= step.extra_seconds
        if time.perf_counter() >= until:
            return each, peak
        if 2 * steps * each < seconds:
            steps *= 2


def time_burst(step: Step, steps: int, lead: bool) -> Burst:
    """Time so many steps in a row; if `lead`, after one step that is not timed."""
    if lead:
        step.run()
    step.synchronize()
    begun = time.perf_counter()
    step.run_many(steps)
    step.synchronize()
    return (time.perf_counter() - begun) / steps + step.extra_seconds, step.peak_bytes()


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
