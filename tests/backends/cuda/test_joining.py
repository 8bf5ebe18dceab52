"""Which calls of a step one launch does together, and what others then wait for."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from gpumlp.backends.cuda.joining import join
from gpumlp.backends.declaration import Call

INDEX, J = "index", "J"
KERNELS: Any = SimpleNamespace(
    begin_minibatch=lambda *a: ("begin_minibatch", *a),
    output_gradient=lambda *a, end=None: ("output_gradient", *a, end),
)


def call(name: str, *arguments: Any, stream: int = 0, after: tuple[int, ...] = ()) -> Call:
    def operation(*arguments: Any) -> Any:
        return name, *arguments

    operation.__name__ = name
    return Call(partial(operation, *arguments), stream, after)


BEGIN = call("begin", "position", "order", "controls", 4, INDEX, "control", "factors", J)
X, Y = call("gather", "all x", INDEX, "x"), call("gather", "all y", INDEX, "y")
WEIGHTS = call("mean_weights", "all weights", INDEX, "weights")
LOSS = call("output_gradient", "loss", J)
UPDATE, END = call("update", "theta"), call("end", "position", J, "costs")


def done(calls: list[Call]) -> list[str]:
    return [each.work()[0] for each in join(calls, KERNELS)]


def test_the_first_launch_gathers_and_the_loss_ends_the_step() -> None:
    first, loss, update = join([BEGIN, X, Y, LOSS, UPDATE, END], KERNELS)
    assert first.work() == ("begin_minibatch", BEGIN.work.args, X.work.args, Y.work.args)
    assert loss.work() == ("output_gradient", "loss", J, ("position", "costs"))
    assert update is not None


def test_weights_of_examples_are_shared_out_by_the_first_launch() -> None:
    first, *_ = join([BEGIN, WEIGHTS, X, Y, LOSS, UPDATE, END], KERNELS)
    assert first.work()[2:] == (X.work.args, Y.work.args, WEIGHTS.work.args)


def test_others_wait_for_the_launch_that_does_the_work() -> None:
    """Positions are counted again; to wait for a gather is to wait for the first launch."""
    product = call("weight_gradient", "gz", stream=1, after=(1, 2, 3))
    last = call("update", "theta", after=(4,))
    calls = join([BEGIN, X, Y, LOSS, product, last, END], KERNELS)
    assert [(each.stream, each.after) for each in calls] == [
        (0, ()), (0, ()), (1, (0, 1)), (0, (2,))
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("calls", "names"),
    [
        ([BEGIN, X, LOSS, UPDATE], ["begin", "gather", "output_gradient", "update"]),  # y streamed
        (
            [BEGIN, call("gather", "all x", "a part of it", "x"), Y, LOSS],
            ["begin", "gather", "gather", "output_gradient"],
        ),
        (
            [BEGIN, X, Y, LOSS, call("penalty", "theta", J), END],
            ["begin_minibatch", "output_gradient", "penalty", "end"],
        ),
        ([LOSS, END], ["output_gradient"]),
        ([UPDATE, END], ["update", "end"]),
        ([LOSS, LOSS, UPDATE, END], ["output_gradient", "output_gradient", "update"]),
    ],
)
def test_what_is_joined(calls: list[Call], names: list[str]) -> None:
    assert done(calls) == names


def test_only_the_last_loss_ends_the_step() -> None:
    first, second = join([LOSS, LOSS, END], KERNELS)
    assert first.work() == ("output_gradient", "loss", J)
    assert second.work() == ("output_gradient", "loss", J, ("position", "costs"))


def test_another_function_is_left_alone() -> None:
    other = Call(lambda: ("other",))
    assert done([other, other]) == ["other", "other"]
