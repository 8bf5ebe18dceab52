"""SIGTERM and SIGHUP act like Ctrl-C where a program, or a command of gpumlp, asked for it."""

# A block of `replacing`, `together` or `deferred` has several lines, within pytest.raises (PT012).

from __future__ import annotations

import signal
import threading
from contextvars import copy_context

import pytest

import gpumlp
from gpumlp.io.signals import Ending, Interrupt, deferred, interruptible, shared
from tests.support.training_cases import Hook, X, Y, regression

SIGNALS = [signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def _handlers():
    """Handlers are as they were, after each test."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    after = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before


@pytest.fixture(params=SIGNALS)
def number(request):
    return request.param


def test_a_command_ends_by_the_first_signal_only(number):
    ending = Ending()
    with ending:
        assert (ending.number, ending.name, ending.status) == (0, "Ctrl-C", 130)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        for other in SIGNALS:  # while it ends
            signal.raise_signal(other)
        assert (ending.name, ending.status) == (number.name, 128 + number)
    with ending:
        assert not ending.number


def test_a_command_leaves_handlers_and_ignored_signals_alone(number):
    for handler in (signal.SIG_IGN, lambda *_: None):
        before = signal.signal(number, handler)
        with Ending():
            assert signal.getsignal(number) is handler
        signal.signal(number, before)


def test_a_command_in_a_thread_installs_nothing(number):
    seen = []

    def work():
        with Ending():
            seen.append(signal.getsignal(number))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


def fit_with(press):
    trainer = gpumlp.Trainer(regression(), batch_size=16)
    return trainer.fit(X, Y, 9, callbacks=[Hook(lambda t: t.steps == 6 and press())]).stopped


def test_a_fit_in_a_command_ends_between_two_steps(number):
    with Ending() as ending:
        assert fit_with(lambda: [signal.raise_signal(number) for _ in range(3)]) == "interrupted"
        assert ending.status == 128 + number
        assert fit_with(lambda: None) == "interrupted"  # C code may have lost the first one's error


def test_a_signal_acts_again_later(number, monkeypatch):
    with Ending() as ending:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        monkeypatch.setattr("gpumlp.io.signals.LATER", -1.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert ending.status == 128 + number


def test_a_fit_takes_only_what_its_program_gave_to_ctrl_c(number):
    got = []
    before = signal.signal(number, lambda *_: got.append(number))
    assert fit_with(lambda: signal.raise_signal(number)) == "finished"
    assert got == [number]
    signal.signal(number, signal.default_int_handler)
    assert fit_with(lambda: signal.raise_signal(number)) == "interrupted"
    signal.signal(number, before)
    seen = []
    fit_with(lambda: seen.append(signal.getsignal(number)))
    assert seen == [before]


@pytest.mark.parametrize("first", [signal.SIGINT, *SIGNALS])
def test_deferred_signals_act_at_the_end(number, first):
    done = []
    with pytest.raises(KeyboardInterrupt), Ending() as ending:  # noqa: PT012
        with deferred():
            signal.raise_signal(first)
            done.append(1)
        done.append(2)
    assert done == [1]
    with ending, Interrupt() as interrupt:  # within a block that is not cut off either
        with deferred():
            signal.raise_signal(number)
        assert (interrupt.requested, ending.status) == (number, 128 + number)


@pytest.mark.parametrize("first", [signal.SIGINT, *SIGNALS])
@pytest.mark.parametrize("context", [deferred, Interrupt])
def test_a_signal_at_the_start_of_a_context_is_not_lost(monkeypatch, first, context):
    install, done = signal.signal, []

    def interrupted(number, handler):
        before = install(number, handler)
        if number == first and isinstance(handler, Interrupt):
            signal.raise_signal(number)
        return before

    def block():
        with Ending() as ending, context() as interrupt:
            done.append(1)
            assert ending.number == (0 if first == signal.SIGINT else first)
            assert interrupt is None or interrupt.requested == first
        done.append(2)

    monkeypatch.setattr(signal, "signal", interrupted)
    if context is deferred:
        with pytest.raises(KeyboardInterrupt):
            block()
    else:
        block()
    monkeypatch.undo()
    assert done == ([1] if context is deferred else [1, 2])


def test_a_signal_ends_contexts_that_share_it_and_an_error_only_the_inner_one():
    with shared() as outer:
        with shared() as inner:
            inner.requested = signal.SIGINT  # as after an error in one of several fits
            assert (inner.requested, outer.requested) == (signal.SIGINT, 0)
        with shared() as inner, interruptible() as innermost:
            assert innermost is inner
            signal.raise_signal(signal.SIGINT)
            assert (inner.requested, outer.requested) == (signal.SIGINT, signal.SIGINT)
        with shared() as later:
            assert later.requested == signal.SIGINT


def test_a_thread_sees_the_signal_of_the_context_around_it():
    found = []

    def fit():
        with shared() as own:
            found.append(own.requested)

    with shared():
        signal.raise_signal(signal.SIGINT)
        thread = threading.Thread(target=copy_context().run, args=(fit,))
        thread.start()
        thread.join()
    assert found == [signal.SIGINT]
