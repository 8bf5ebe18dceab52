"""Which calls of a step one launch does together, and what others then wait for."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpumlp import NORMS
from gpumlp.backends.cuda.joining import CudaJoining
from gpumlp.backends.declaration import Call

INDEX, J = "index", "J"


class Backend(CudaJoining):
    _kernels: Any = SimpleNamespace(
        launch=lambda *a: a,
        wide=4,
        pack_of=lambda cols, *_: 4 if cols % 4 == 0 else 1,
        aligned=lambda *_: True,
    )

    def _begin_minibatch(self, *a: Any) -> Any:
        return "begin_minibatch", *a

    def _output_gradient(self, *a: Any, end: Any) -> Any:
        return "output_gradient", *a, end


BACKEND = Backend()


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
    return [each.work()[0] for each in BACKEND._joined(calls)]


def test_the_first_launch_gathers_and_the_loss_ends_the_step() -> None:
    first, loss, update = BACKEND._joined([BEGIN, X, Y, LOSS, UPDATE, END])
    assert first.work() == ("begin_minibatch", BEGIN.work.args, X.work.args, Y.work.args)
    assert loss.work() == ("output_gradient", "loss", J, ("position", "costs"))
    assert update is not None


def test_weights_of_examples_are_shared_out_by_the_first_launch() -> None:
    first, *_ = BACKEND._joined([BEGIN, WEIGHTS, X, Y, LOSS, UPDATE, END])
    assert first.work()[2:] == (X.work.args, Y.work.args, WEIGHTS.work.args)


def test_others_wait_for_the_launch_that_does_the_work() -> None:
    """Positions are counted again; to wait for a gather is to wait for the first launch."""
    product = call("weight_gradient", "gz", stream=1, after=(1, 2, 3))
    last = call("update", "theta", after=(4,))
    calls = BACKEND._joined([BEGIN, X, Y, LOSS, product, last, END])
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
    first, second = BACKEND._joined([LOSS, LOSS, END])
    assert first.work() == ("output_gradient", "loss", J)
    assert second.work() == ("output_gradient", "loss", J, ("position", "costs"))


def test_another_function_is_left_alone() -> None:
    other = Call(lambda: ("other",))
    assert done([other, other]) == ["other", "other"]


def batch_norm(rows: int, cols: int = 24, **changes: Any) -> list[Call]:
    """The four calls of a step, forward and backward."""
    x, y, gy, gx = (np.zeros((rows, cols), np.float32) for _ in range(4))
    phi, dphi, running = (np.zeros((2, cols), np.float32) for _ in range(3))
    s, t = np.zeros((3, cols), np.float32), np.zeros((2, cols), np.float32)
    norm = NORMS["batch"]
    a: dict[str, Any] = {"of": rows, "after": (), "t": t, "x of y": x} | changes
    return [
        call("column_moments", norm, x, s, running),
        call("columns", norm, a["x of y"], phi, s, y, after=a["after"]),
        call("column_slopes", norm, x, phi, gy, s, a["of"], a["t"], dphi),
        call("columns_gradient", norm, x, phi, gy, s, a["t"], None, gx, after=a["after"]),
    ]


def test_a_norm_of_columns_is_one_launch_each_way() -> None:
    forward, backward = BACKEND._joined(batch_norm(1024))
    name, file, geometry, arguments, stage = forward.work()
    assert (name, file, stage) == ("whole_columns", "whole_columns.cu", NORMS["batch"])
    assert geometry == ((3, 1), (2, 128))
    assert backward.work()[:3] == ("whole_columns_gradient", "whole_columns.cu", geometry)
    assert arguments[-4:] == (1024, 24, 24, 1)
    assert backward.work()[3][-4:] == (1024, 24, 24, 0)


@pytest.mark.parametrize(
    ("rows", "changes", "joined"),
    [
        (1025, {}, 0),
        (32, {"cols": 23}, 0),  # no accesses of several entries
        (32, {"after": (0,)}, 0),  # waits for another stream
        (32, {"x of y": np.zeros((32, 24), np.float32)}, 1),
        (32, {"of": 64}, 1),  # a micro-batch
        (32, {"t": None}, 1),  # t is 0
    ],
)
def test_a_norm_that_needs_two_launches(rows: int, changes: Any, joined: int) -> None:
    assert len(BACKEND._joined(batch_norm(rows, **changes))) == 4 - joined
