"""Libraries that train one network take turns, each in a process of its own.

Before the timing, an epoch in the order of the data must change the parameters of all alike. A
library that fails to start or fails this check is reported and left out.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.epochs import AVX512, COMPETITORS, MEDIUM, Arrays, Network, of_gpumlp
from gpumlp.bench.worker import ONE_THREAD

SECONDS = 0.3  # of a turn, unless its epochs are given
# What rounding explains of a change of θ: a few per cent after a hundred steps of Adam. If products
# round to bfloat16, it is up to 0.18 of it.
MOST_ROUNDING = (0.1, 0.3)
# If an epoch is longer than a turn, a library has no further turn after so many seconds: torch's
# threads, which spin, need up to 100 times as long on a busy machine.
MOST_SECONDS = 30.0


class Race:
    """The processes of the competitors on a network; those that started and passed the check.

    Only one of them computes at a time: libraries whose threads spin would stop each other.

    Args:
        network: what they train.
        names: keys of COMPETITORS.
        epochs: those of the check.
        one_thread: all run on one thread of the same core.

    Raises:
        ValueError: the backend "cpu" failed.
    """

    def __init__(
        self, network: Network, names: list[str], epochs: int = 1, one_thread: bool = False
    ) -> None:
        self._shuffle = network.steps > 1
        self._counts: dict[str, int] = {}
        self._spent = dict.fromkeys(names, 0.0)
        self._ends: dict[str, Any] = {}
        self._processes: list[Any] = []
        train, parameters = of_gpumlp(network, "numpy")
        before = [t.copy() for t in parameters()]
        train(epochs, False)
        with tempfile.TemporaryDirectory() as folder, one_core() if one_thread else nullcontext():
            ends = {name: self._start(network, name, Path(folder)) for name in names}
            for name, end in ends.items():
                try:
                    ask(end, epochs, False)
                    check(ask(end), parameters(), before, MOST_ROUNDING[name == MEDIUM])
                    self._ends[name] = end
                except ValueError as error:
                    if name == "cpu":
                        raise
                    print(f"{network}: {name} is left out: {error}", flush=True)

    def warm_up(self) -> None:
        """Train a little; from now on a turn takes about SECONDS, or one epoch."""
        for name, end in self._ends.items():
            first = ask(end, 1, self._shuffle)
            each = ask(end, 3, self._shuffle) if first < SECONDS else first
            self._counts[name] = max(1, round(SECONDS / each))

    def turns(self, i: int, epochs: int | None = None) -> dict[str, float]:
        """Let each competitor train once, in an order that depends on i; seconds of an epoch.

        epochs: how many; None: what `warm_up` found, and only while it has time for more turns.
        """
        names = [
            name
            for name in self._ends
            if epochs or self._counts[name] > 1 or self._spent[name] < MOST_SECONDS
        ]
        seconds = {}
        for name in names if i % 2 else reversed(names):
            time.sleep(0.05)  # the threads of the process before come to rest
            count = epochs or self._counts[name]
            seconds[name] = ask(self._ends[name], count, self._shuffle)
            self._spent[name] += count * seconds[name]
        return {name: seconds[name] for name in names}

    def end(self) -> dict[str, Arrays]:
        """End the processes; return the parameters that they have trained."""
        parameters = {name: ask(end) for name, end in self._ends.items()}
        for end in self._ends.values():
            end.close()
        for process in self._processes:
            process.join(10)
        return parameters

    def _start(self, network: Network, name: str, folder: Path) -> Any:
        """Start the process of a competitor; return the end of its pipe."""
        spawn = multiprocessing.get_context("spawn")
        end, theirs = spawn.Pipe()
        process = spawn.Process(target=work, args=(theirs, network, name), daemon=True)
        try:
            with mock.patch.dict(os.environ, intel_mkl(folder) if name == AVX512 else {}):
                process.start()
            self._processes.append(process)
        except (OSError, subprocess.CalledProcessError) as error:
            theirs.send(error)
        theirs.close()
        return end


def work(connection: Any, network: Network, name: str) -> None:
    """Train so many epochs, shuffled or not, and answer the seconds of one; or the parameters."""
    with suppress(EOFError):  # until the pipe is closed
        try:
            train, parameters = COMPETITORS[name](network)
            while True:
                epochs, *shuffle = connection.recv()
                if not epochs:
                    connection.send(parameters())
                    continue
                start = time.perf_counter()
                train(epochs, *shuffle)
                connection.send((time.perf_counter() - start) / epochs)
        except Exception as error:
            if isinstance(error, EOFError):
                raise
            lines = str(error).strip().splitlines()
            connection.send(ValueError(f"{type(error).__name__}: {lines[0] if lines else ''}"))


def ask(end: Any, epochs: int = 0, shuffle: bool = False) -> Any:
    """Let a process train; return the seconds of an epoch, or for 0 epochs its parameters.

    Raises:
        ValueError: it failed.
    """
    with suppress(OSError):  # the process may have ended; its last message says why
        end.send((epochs, shuffle))
    try:
        answer = end.recv()
    except (EOFError, OSError):
        raise ValueError("its process has ended") from None
    if isinstance(answer, Exception):
        raise ValueError(str(answer)) from answer
    return answer


def check(got: Arrays, want: Arrays, before: Arrays, most: float) -> None:
    """Raise ValueError if the change of θ differs by more than `most` of it."""
    start, one, other = (np.concatenate([t.ravel() for t in each]) for each in (before, got, want))
    difference = np.linalg.norm(one - other) / np.linalg.norm(other - start)
    if not difference < most:
        raise ValueError(f"its change of θ differs by {difference:.2g} of it")


@contextmanager
def one_core() -> Iterator[None]:
    """Start processes that have one core and one thread."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    with mock.patch.dict(os.environ, ONE_THREAD):
        if cores:
            os.sched_setaffinity(0, {max(cores)})
        try:
            yield
        finally:
            if cores:
                os.sched_setaffinity(0, cores)


def intel_mkl(folder: Path) -> dict[str, str]:
    """Return variables with which MKL takes an AMD processor for Intel's, and so uses AVX-512.

    A library that is loaded first answers for MKL's own test (pytorch/builder, pull request 1245).
    """
    path = folder / "intel.so"
    source = "int mkl_serv_intel_cpu_true(void) { return 1; }"
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=source, text=True, check=True, capture_output=True)
    return {"LD_PRELOAD": str(path)}
