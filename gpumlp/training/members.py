"""What the fits of an ensemble's members share: threads, checkpoints, and what came of them."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, suppress
from contextvars import copy_context
from pathlib import Path

from gpumlp.backends import Backend
from gpumlp.ensemble import Ensemble
from gpumlp.errors import DivergenceError
from gpumlp.io.signals import shared
from gpumlp.io.threads import blas_threads, one_thread
from gpumlp.loader.batches import Minibatches
from gpumlp.loader.examples import Examples
from gpumlp.storage import PathLike
from gpumlp.training import checkpoint as files
from gpumlp.training.history import Histories, History
from gpumlp.training.loop import Fit
from gpumlp.training.stepping import Stepping

Open = Callable[[int, Minibatches, Examples], AbstractContextManager[Fit]]
"""The fit of a member, ready to begin."""
Ended = Callable[[int, DivergenceError | None], None]
"""Is called with a member whose fit has ended, and with the error if it diverged."""


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


def train(
    ensemble: Ensemble, trainers: Sequence[Stepping], numbers: Sequence[int],
    data: Sequence[Examples], opened: Open, ended: Ended,
) -> None:  # fmt: skip
    """Train these members, each by itself, as many at a time as the backend has threads for.

    data: the examples that member i trains on are at i modulo their number.
    """

    def alone(i: int) -> None:
        examples = data[i % len(data)]
        try:
            batches = trainers[i].batches(examples)
            with opened(i, batches, examples) as run:
                run.train(batches)
            ended(i, None)
        except DivergenceError as error:
            ended(i, error)

    call(alone, numbers, count(ensemble.backend))


def folder(checkpoint: PathLike | None, every: int | None, resume: bool) -> Path | None:
    """The folder of checkpoints, which is made; None for none."""
    if checkpoint is None:
        files.checked(None, every, resume)
        return None
    found = Path(checkpoint)
    if found.is_file():
        raise ValueError(
            f"checkpoint={str(checkpoint)!r} is a file, and an ensemble needs a folder, with a "
            "file for each member; pass the path of a folder"
        )
    found.mkdir(parents=True, exist_ok=True)
    files.checked(found / "member-0.safetensors", every, resume)
    return found


class Ends:
    """How the fits of an ensemble's members end.

    Args:
        progress: whether to print a line on stderr when a member ends.

    Attributes:
        lost: the members that diverged, in this fit or before, and what was not finite.
    """

    def __init__(self, ensemble: Ensemble, trainers: Sequence[Stepping], progress: bool) -> None:
        self._ensemble, self._trainers, self._progress = ensemble, trainers, progress
        self.lost = dict.fromkeys(ensemble.diverged, "it diverged before")
        self._found: dict[int, History] = {}
        self._errors: dict[int, DivergenceError] = {}

    def ended(self, i: int, error: DivergenceError | None) -> None:
        """The fit of member i has ended; it diverged if an error is given."""
        history = self._found[i] = self._trainers[i].history
        if error is not None:
            self._ensemble.diverged.add(i)
            self.lost[i], history.stopped = error.what, "diverged"
            self._errors[i] = error.with_traceback(None)
        if self._progress:
            with suppress(OSError, ValueError):  # stderr has gone
                print(f"member {i}: {history!r}", file=sys.stderr, flush=True)

    def histories(self) -> Histories:
        """The histories of all members.

        Raises:
            DivergenceError: the trainings of all members diverged.
            ValueError: they had diverged before.
        """
        columns = next((list(history) for history in self._found.values()), [])
        for i in set(self.lost) - set(self._found):
            self._found[i] = History(columns)
            self._found[i].stopped = "diverged"
        K = len(self._ensemble)
        if len(self.lost) == K and not self._errors:
            raise ValueError("all members diverged before; train a new Ensemble with a lower lr")
        if len(self.lost) == K:
            first = self._errors[min(self._errors)]  # whichever thread was the first
            raise DivergenceError(f"all {K} members: {first}", first.what)
        return Histories([self._found[i] for i in range(K)], dict(sorted(self.lost.items())))
