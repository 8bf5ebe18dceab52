"""Signals that end a process: Ctrl-C (SIGINT), SIGTERM and SIGHUP.

A program decides itself what SIGTERM and SIGHUP do to it.  The library takes them only where they
are to act like Ctrl-C: where the handler is `ending`, which the commands of `gpumlp` install in the
main thread, or Python's `signal.default_int_handler`, which users can install themselves.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from types import FrameType
from typing import Any, Self

TERMINATING = [
    number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
]  # Windows has no SIGHUP
LATER = 5.0  # seconds, in which a command cleans up


class Ending:
    """A context, of a command, in which SIGTERM and SIGHUP raise KeyboardInterrupt as Ctrl-C does.

    Only the first one raises: a terminal that is closed, or a service that is stopped, may send
    several, and they must not cut off the cleaning up.  Modules of C may lose a KeyboardInterrupt
    in an import, so one that comes `LATER` raises, too, and an `Interrupt` knows of the first.  It
    does nothing in a thread other than the main one, nor to a signal that is ignored, as under
    nohup, or has a handler already.

    Attributes:
        number: that of the first SIGTERM or SIGHUP; 0 if none came.
    """

    def __init__(self) -> None:
        self.number, self._since = 0, 0.0
        self._installed: list[int] = []

    def install(self) -> list[int]:
        """Handle the signals from now on; which ones."""
        self.number, numbers = 0, []
        if threading.current_thread() is threading.main_thread():
            numbers = [n for n in TERMINATING if signal.getsignal(n) is signal.SIG_DFL]
        for number in numbers:
            signal.signal(number, self)
        return numbers

    def __enter__(self) -> Self:
        self._installed += self.install()
        return self

    def __exit__(self, *error: object) -> None:
        while self._installed:
            signal.signal(self._installed.pop(), signal.SIG_DFL)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.note(number):
            raise KeyboardInterrupt

    def note(self, number: int) -> bool:
        """Note a signal; whether it is the first, or comes later."""
        now = time.monotonic()
        first = self.number == 0
        self.number = self.number or number
        acts = first or now > self._since + LATER
        self._since = now if acts else self._since
        return acts

    @property
    def name(self) -> str:
        """What ended the command: "Ctrl-C", or the name of the signal."""
        return signal.Signals(self.number).name if self.number else "Ctrl-C"

    @property
    def status(self) -> int:
        """The exit status: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + (self.number or signal.SIGINT)


ending = Ending()  # of this process


class Interrupt:
    """A context in which a first signal only sets `requested`: the current step is completed.

    It takes Ctrl-C, and SIGTERM and SIGHUP where they act like Ctrl-C, see above.  A Ctrl-C after
    the first signal raises KeyboardInterrupt immediately.  The context does nothing in a thread
    other than the main one, where Python handles no signals, and if SIGINT is ignored, as under
    nohup or in a shell's background job, it stays ignored.

    Args:
        outer: the context around this one, whose signals count here, and to which they are passed.
        later: whether only signals count that come in this context.

    Attributes:
        requested: the number of the first signal, or of one that ended the command before; or 0.
    """

    def __init__(self, outer: Interrupt | None = None, later: bool = False) -> None:
        self._requested, self._outer, self._later = 0, outer, later
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> int:
        """See above; to set it ends what is in this context, not what is around it."""
        return self._requested or (0 if self._outer is None else self._outer.requested)

    @requested.setter
    def requested(self, number: int) -> None:
        self._requested = number

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, *TERMINATING):
                handler = signal.getsignal(number)
                if number == signal.SIGINT:
                    # a handler of None was installed outside Python and could not be restored
                    taken = handler not in (None, signal.SIG_IGN)
                else:
                    like_ctrl_c = handler is signal.default_int_handler
                    taken = like_ctrl_c or isinstance(handler, (Ending, Interrupt))
                if isinstance(handler, Ending) and not self._later:
                    self._requested = self._requested or handler.number
                if taken:
                    self._previous[number] = handler  # a signal may come before `signal` returns
                    signal.signal(number, self)
        return self

    def __exit__(self, *error: object) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        previous = self._previous.get(number)
        if not isinstance(previous, Ending) or previous.note(number):
            inner: Interrupt | None = self
            while inner is not None:
                inner._requested = inner._requested or number
                inner = inner._outer


_outer: ContextVar[Interrupt | None] = ContextVar("_outer", default=None)


@contextlib.contextmanager
def shared() -> Iterator[Interrupt]:
    """One `Interrupt` for all that `interruptible` says here, also in threads of this context."""
    with Interrupt(_outer.get()) as interrupt:
        token = _outer.set(interrupt)
        try:
            yield interrupt
        finally:
            _outer.reset(token)


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupt]:
    """That of `shared` around it, else an `Interrupt` of its own."""
    outer = _outer.get()
    with Interrupt() if outer is None else contextlib.nullcontext(outer) as interrupt:
        yield interrupt


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """A short block that no signal cuts off; a signal acts at its end."""
    with Interrupt(later=True) as interrupt:
        yield
    if number := interrupt.requested:
        if isinstance(signal.getsignal(number), Ending):  # which knows of it already
            raise KeyboardInterrupt
        signal.raise_signal(number)
