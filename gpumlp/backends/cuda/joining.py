"""Operations of a step that one launch does together: the first, the last, and those of a norm.

A launch of a small network takes as long as the gap before it, so each one less counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

from gpumlp.backends.cuda.columns import CudaColumns
from gpumlp.backends.cuda.kernels import THREADS, i32, i64
from gpumlp.backends.cuda.layers import CudaLayers
from gpumlp.backends.declaration import Call
from gpumlp.io.types import Array

FIRST = ("begin", "gather", "gather")
FIRST_WEIGHTED = ("begin", "mean_weights", "gather", "gather")
PAIRS = {  # and the method of the backend that does both
    ("column_moments", "columns"): "_whole_columns",
    ("column_slopes", "columns_gradient"): "_whole_columns_gradient",
}


class CudaJoining(CudaLayers, CudaColumns):
    """What `CudaBackend` inherits."""

    def _joined(self, calls: Sequence[Call]) -> list[Call]:
        """The calls with the gathers of x and y, and the weights of a minibatch, within `begin`.

        The last `output_gradient`, after which J does not change, does `end` too.  A norm over the
        columns of a whole minibatch computes its means and what depends on them.
        """
        done_by: dict[int, int] = {}  # call that is left out -> call that does its work
        works: dict[int, Any] = {}
        for names in (FIRST, FIRST_WEIGHTED):
            first = calls[: len(names)]
            if tuple(map(_name, first)) == names and _of_one_minibatch(first):
                begin, *weights, x, y = (_arguments(each) for each in first)
                works[0] = partial(self._begin_minibatch, begin, x, y, *weights)
                done_by |= dict.fromkeys(range(1, len(names)), 0)
        last = max(
            (i for i, each in enumerate(calls) if _name(each) == "output_gradient"), default=-1
        )
        if last >= 0 and _name(calls[-1]) == "end" and not calls[-1].after:
            position, J, costs = _arguments(calls[-1])
            later = [each for call in calls[last + 1 : -1] for each in _arguments(call)]
            if len(J) == 1 and all(each is not J for each in later):
                loss: Any = self._output_gradient
                works[last] = partial(loss, *_arguments(calls[last]), end=(position, costs))
                done_by[len(calls) - 1] = last
        for i, (one, other) in enumerate(pairwise(calls)):
            pair = PAIRS.get((_name(one), _name(other)))
            if pair and one.stream == other.stream and not other.after:
                work = getattr(self, pair)(_arguments(one), _arguments(other))
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

    def _begin_minibatch(
        self, begin: tuple[Any, ...], x: tuple[Array, ...], y: tuple[Array, ...],
        weights: tuple[Array, ...] = (),
    ) -> None:  # fmt: skip
        """`Backend.begin`, `gather` of x and y, and `mean_weights`: their arguments."""
        kernels = self._kernels
        position, order, controls, size, index, control, factors, J = begin
        rows, labels = index.size, y[2].ndim == index.ndim
        grids, lanes, columns, packed = [], [], [], []
        for source, _, out in (x, y):
            columns.append(1 if out.ndim == index.ndim else out.shape[-1])
            pack = kernels.pack_of(columns[-1], source, out)
            grid, block = kernels.tile(rows, columns[-1], pack)
            grids.append(grid)
            lanes.append(block[0])
            packed.append(pack > 1)
        grid = sum(across for across, *_ in grids) + 1, max(high for _, high, _ in grids)
        all_weights, _, shares = weights or (factors, None, factors)  # not read without weights
        arguments = (
            position, order, controls, index, control, factors, J, x[0], x[2], y[0], y[2],
            all_weights, shares, *map(i64, (size, rows, control.size, J.size, *columns)),
            *map(i32, (*packed, grids[0][0], *lanes, rows // index.shape[-1] if weights else 0)),
        )  # fmt: skip
        geometry = grid, (THREADS, 1)
        wide = x[2].dtype != kernels.storage
        kernels.launch("begin_minibatch", "step.cu", geometry, arguments, labels=labels, wide=wide)


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
