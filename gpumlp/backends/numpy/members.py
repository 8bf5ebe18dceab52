"""Operations on the arrays of several networks, which have a leading dimension K."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from gpumlp.io.threads import BLOCK_BYTES
from gpumlp.io.types import HostArray as Array

Method = TypeVar("Method", bound=Callable[..., None])


def one_by_one(
    operation: Method, together: Callable[[Sequence[Any]], bool] = lambda arguments: False
) -> Method:
    """The operation, done for one network after the other unless `together` takes its arguments.

    Its first array is (K, m, n) then, and all its arrays have the leading dimension.
    """

    @wraps(operation)
    def done(self: Any, *arguments: Any) -> None:
        first = next(a for a in arguments if isinstance(a, np.ndarray))
        if first.ndim == 2 or together(arguments):
            operation(self, *arguments)
            return
        for i in range(len(first)):
            operation(self, *(a[i] if isinstance(a, np.ndarray) else a for a in arguments))

    return done  # type: ignore[return-value]


def one_by_one_if_large(operation: Method) -> Method:
    """The operation, done for one network after the other if the arrays of one fill a block.

    So its sums have the same order as for a network alone.
    """

    def small(arguments: Sequence[Any]) -> bool:
        each = (a for a in arguments if isinstance(a, np.ndarray) and a.ndim == 3)
        return all(a.nbytes <= BLOCK_BYTES * len(a) for a in each)

    return one_by_one(operation, small)


def product(a: Array, b: Array, out: Array) -> None:
    """out ← a b: matrices, or K pairs of them."""
    np.dot(a, b, out=out) if out.ndim == 2 else np.matmul(a, b, out=out)


def transposed(a: Array) -> Array:
    """aᵀ of each matrix."""
    return a.T if a.ndim == 2 else a.swapaxes(1, 2)


def runs(control: Array) -> Iterator[tuple[Any, Array]]:
    """Neighbouring networks with equal rows of `control`, which do not skip the step.

    Yields their index into arrays with the leading dimension, and the row.  Of a network alone,
    whose control is (numbers,), the index is `...`.
    """
    if control.ndim == 1:
        yield ..., control
        return
    starts = [0, *(np.flatnonzero((control[1:] != control[:-1]).any(axis=1)) + 1), len(control)]
    for first, end in pairwise(starts):
        if control[first, 0] != 0:
            yield first if end == first + 1 else slice(first, end), control[first]
