"""Iterators whose items threads compute ahead."""

import multiprocessing
import threading
import time

import pytest

from gpumlp.io.threads import ahead


def helpers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "ahead" in thread.name]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_results_come_in_order_and_few_are_ahead(count):
    begun = []

    def items():
        for i in range(6):
            begun.append(i)
            yield i

    for i, found in enumerate(
        ahead(lambda i: time.sleep(0.002 * (6 - i)) or i * i, items(), count)
    ):
        assert found == i * i
        assert len(begun) <= i + 1 + count
    assert helpers() == []


@pytest.mark.parametrize("where", ["call", "items", "close"])
def test_threads_end_with_the_iterator(where):
    def items():
        yield from range(1, 5)
        if where == "items":
            raise KeyError("items")

    results = ahead(lambda i: 1 / (i - 3 if where == "call" else i), items())
    assert next(results) != 0
    if where == "close":
        assert helpers()
        results.close()
    else:
        with pytest.raises((KeyError, ZeroDivisionError)):
            list(results)
    assert helpers() == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:.*fork:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
def test_fork_does_not_wait_for_threads_that_it_lacks():
    results = ahead(lambda i: i, range(9))
    assert next(results) == 0

    def child():
        with pytest.raises(RuntimeError, match="begin again"):
            next(results)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert list(results) == [*range(1, 9)]
