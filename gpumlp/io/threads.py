"""Threads for elementwise work on the NumPy backend, as many as BLAS uses; and to work ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import cache
from typing import Any, TypeVar

import numpy as np

from gpumlp.io.types import HostArray

BLOCK_BYTES = 512 << 10  # of one operand: half of a core's L2 cache; `Threads` says why not less

THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")  # environment variables

_single = ContextVar("single", default=False)

T = TypeVar("T")
R = TypeVar("R")


class Threads:
    """`map` over a shared pool.  The calling thread works too.

    NumPy releases the interpreter lock during each call and then waits for it, about 50 µs if
    threads compete.  So a thread gets at least two items, and an item should be long.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def map(self, call: Callable[[T], Any], items: Sequence[T]) -> list[Any]:
        """Return [call(item) for item in items]; each thread computes a run of neighbours."""
        threads = min(at_most(self.count), len(items) // 2)
        if threads <= 1:
            return [call(item) for item in items]
        cuts = [len(items) * i // threads for i in range(threads + 1)]

        def run(i: int) -> list[Any]:
            return [call(item) for item in items[cuts[i] : cuts[i + 1]]]

        pool = _pool(self.count, os.getpid())
        # in the caller's context, which has its np.errstate
        others = [pool.submit(copy_context().run, run, i) for i in range(1, threads)]
        results = run(0)
        for other in others:
            results += other.result()
        return results

    def over_rows(self, block: Callable[[slice], Any], a: HostArray) -> list[Any]:
        """Return [block(rows) for blocks of rows, or of entries, of `a`]."""
        if a.nbytes <= BLOCK_BYTES:  # most steps of a small network: 1 µs less
            return [block(slice(0, len(a)))]
        return self.map(block, blocks(0, len(a), a.nbytes // len(a)))


@contextmanager
def one_thread() -> Iterator[None]:
    """In this context the operations that this thread calls compute on it alone.

    Those of other threads do not: a process can so compute independent things on all its cores.
    Products of NumPy itself take the threads that BLAS has.
    """
    token = _single.set(True)
    try:
        yield
    finally:
        _single.reset(token)


def at_most(threads: int) -> int:
    """The number of threads that an operation may use here: 1 in `one_thread`, else `threads`."""
    return 1 if _single.get() else threads


def ahead(call: Callable[[T], R], items: Iterable[T], count: int = 2) -> Generator[R, None, None]:
    """Yield call(item) for the items, in order; threads compute the next `count` meanwhile.

    The threads end with the iterator, also if it is closed early.  What they raise is raised here.

    Raises:
        RuntimeError: a fork of the process goes on with the iterator; it has none of the threads.
    """
    if not count:
        yield from map(call, items)
        return
    process, waiting = os.getpid(), deque[Future[R]]()

    def result() -> R:
        if os.getpid() != process:
            raise RuntimeError("a fork cannot go on with an iterator of its parent; begin again")
        return waiting.popleft().result()

    with ThreadPoolExecutor(count, thread_name_prefix="gpumlp-ahead") as pool:
        for item in items:
            waiting.append(pool.submit(call, item))
            if len(waiting) > count:
                yield result()
        while waiting:
            yield result()


def blocks(low: int, high: int, row_bytes: int) -> list[slice]:
    """Return slices of at most `BLOCK_BYTES`, or of one row, that cover the rows [low, high).

    They depend on sizes alone, so a run repeats bit for bit with any number of threads.
    """
    size = max(1, BLOCK_BYTES // max(1, row_bytes))
    return [slice(i, min(i + size, high)) for i in range(low, high, size)]


@cache
def _pool(count: int, process: int) -> ThreadPoolExecutor:
    """Return the pool of a process: after a fork, the child has none of its parent's threads."""
    return ThreadPoolExecutor(count - 1, thread_name_prefix="gpumlp")


def blas_threads() -> int:
    """Return the number of threads that NumPy's BLAS uses, at least 1."""
    counts = [int(pool["num_threads"]) for pool in _blas_pools()]
    if counts:
        return max(1, *counts)
    for variable in THREADS:
        if os.environ.get(variable, "").isdigit():
            return max(1, int(os.environ[variable]))
    return cores()


def share_cores(processes: int) -> None:
    """Limit BLAS to this process' share of the cores, if `processes` use all cores of a machine.

    It does nothing where a variable limits BLAS, where the process may use only some of the cores,
    as some launchers arrange it, or without threadpoolctl.
    """
    limited = any(os.environ.get(name) for name in THREADS)
    if not limited and cores() == os.cpu_count() and (controller := _controller()) is not None:
        controller.limit(limits=max(1, cores() // processes), user_api="blas")


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def blas_name() -> str:
    """Return the name and version of NumPy's BLAS and, if known, of its kernels.

    OpenBLAS chooses kernels for the processor, unless OPENBLAS_CORETYPE names others.
    """
    built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    name = f"{built['name']} {built['version']}"
    kernels = [
        p["architecture"] for p in _blas_pools() if "numpy" in p["filepath"] and "architecture" in p
    ]
    if kernels:
        name += f", {kernels[0]} kernels"
    chosen = os.environ.get("OPENBLAS_CORETYPE")
    return f"{name} (OPENBLAS_CORETYPE={chosen})" if chosen else name


def _blas_pools() -> list[dict[str, Any]]:
    """Return what threadpoolctl, if installed, reports of the BLAS libraries of this process."""
    controller = _controller()
    pools: list[dict[str, Any]] = [] if controller is None else controller.info()
    return [pool for pool in pools if pool["user_api"] == "blas"]


@cache
def _controller() -> Any:
    """Return a controller of the loaded libraries: to find them takes about 5 ms."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController()
