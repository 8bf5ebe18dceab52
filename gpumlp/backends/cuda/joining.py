"""Operations of a step that one launch does together: the first, the last, and those of a norm.

A launch of a small network takes as long as the gap before it, so each one less counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

from gpumlp.backends.cuda.columns import whole_columns, whole_columns_gradient
from gpumlp.backends.cuda.kernels import Kernels
from gpumlp.backends.declaration import Call

FIRST = ("begin", "gather", "gather")
FIRST_WEIGHTED = ("begin", "mean_weights", "gather", "gather")
PAIRS = {
    ("column_moments", "columns"): whole_columns,
    ("column_slopes", "columns_gradient"): whole_columns_gradient,
}


def join(calls: Sequence[Call], kernels: Kernels) -> list[Call]:
    """The calls with the gathers of x and y, and the weights of a minibatch, within `begin`.

    The last `output_gradient`, after which J does not change, does `end` too.  A norm over the
    columns of a whole minibatch computes its means and what depends on them.
    """
    done_by: dict[int, int] = {}  # call that is left out -> call that does its work
    works: dict[int, Any] = {}
    output_gradient: Any = kernels.output_gradient
    for names in (FIRST, FIRST_WEIGHTED):
        first = calls[: len(names)]
        if tuple(map(_name, first)) == names and _of_one_minibatch(first):
            begin, *weights, x, y = (_arguments(each) for each in first)
            works[0] = partial(kernels.begin_minibatch, begin, x, y, *weights)
            done_by |= dict.fromkeys(range(1, len(names)), 0)
    last = max((i for i, each in enumerate(calls) if _name(each) == "output_gradient"), default=-1)
    if last >= 0 and _name(calls[-1]) == "end" and not calls[-1].after:
        position, J, costs = _arguments(calls[-1])
        later = [each for call in calls[last + 1 : -1] for each in _arguments(call)]
        if len(J) == 1 and all(each is not J for each in later):
            end = position, costs
            works[last] = partial(output_gradient, *_arguments(calls[last]), end=end)
            done_by[len(calls) - 1] = last
    for i, (one, other) in enumerate(pairwise(calls)):
        pair = PAIRS.get((_name(one), _name(other)))
        if pair and one.stream == other.stream and not other.after:
            work = pair(kernels, _arguments(one), _arguments(other))
            if work is not None:
                works[i], done_by[i + 1] = work, i
    left = [i for i in range(len(calls)) if i not in done_by]
    place = {old: new for new, old in enumerate(left)}
    place |= {old: place[new] for old, new in done_by.items()}
    return [
        replace(
            calls[i], work=works.get(i, calls[i].work),
            after=tuple(dict.fromkeys(place[j] for j in calls[i].after)),
        )
        for i in left
    ]  # fmt: skip


def _name(call: Call) -> str:
    """The name of the operation; "" for another function, which is left alone."""
    return call.work.func.__name__ if isinstance(call.work, partial) else ""


def _arguments(call: Call) -> tuple[Any, ...]:
    return call.work.args if isinstance(call.work, partial) else ()


def shared(call: Call) -> bool:
    """Whether the call is one that other processes must do at the same point."""
    return _name(call) in ("exchange", "collect")


def _of_one_minibatch(calls: Sequence[Call]) -> bool:
    """Whether all read the whole index that `begin` writes, on one stream."""
    index = _arguments(calls[0])[4]
    return all(
        _arguments(each)[1] is index and each.stream == calls[0].stream for each in calls[1:]
    )
