"""Neighbouring calls of the library as one: row by row, or products and the update of θ."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from gpumlp.backends.cpu.works import Entrywise, Independent, RowWise, Scratch, Work
from gpumlp.io.types import HostArray as Array

# Beyond so many, threads that compute all columns of some rows would read too much of W each; and
# of few rows, beyond so many for each.
ROW_FLOPS, FEW_ROWS, FEW_ROWS_FLOPS = 1 << 28, 20, 1 << 18
MOST_PRODUCTS = 32  # as in products.hpp
MOST_BESIDE = 1 << 14  # entries that one thread updates, when those of the products are done


def joined(works: Iterable[Work], by_rows: int) -> list[Work]:
    """The calls, fewer.

    by_rows: the address of the function that does operations row by row.
    """
    found: list[Work] = []
    some: list[Work] = []
    memory = _Memory()

    def finish() -> None:
        if len(some) < 2:
            found.extend(some)
        elif isinstance(some[0].how, Independent):
            found.append(_products(some))
        else:
            found.extend(_of_rows(some, by_rows))
        some.clear()
        memory.clear()

    for work in works:
        if some and not _fits(work, some, memory):
            finish()
        if not some:
            memory.takes(work)
        some.append(work)
    finish()
    return found


def _fits(work: Work, others: Sequence[Work], memory: _Memory) -> bool:
    """Whether it can be done together with the others, which come before it."""
    last, how = others[-1].how, work.how
    if isinstance(last, Independent):
        if isinstance(how, Independent):
            return how.several == last.several and len(others) < MOST_PRODUCTS
        return isinstance(how, Entrywise) and _placed(how, others) is not None
    own, first = _row_wise(work), _row_wise(others[0])
    if not own or not first or own[0].m != first[0].m:
        return False
    return memory.takes(work)


# ---- products ------------------------------------------------------------------------------------


def _products(works: Sequence[Work]) -> Work:
    """Products, and perhaps an update after them."""
    product, update = works[0].how, works[-1].how
    assert isinstance(product, Independent)
    head: tuple[Any, ...] = (None, None, 0, 0)
    each: list[tuple[Work, int]] | None = [(work, 0) for work in works]
    if isinstance(update, Entrywise):
        *works, last = works
        each = _placed(update, works)
        head = update.part, Work(0, last.arguments), update.begin, update.end
    assert each is not None
    return Work(product.several, (len(each), *head, *chain.from_iterable(each)))


def _placed(update: Entrywise, products: Sequence[Work]) -> list[tuple[Work, int]] | None:
    """The products with their first entries in θ, from the last entry on.

    None: they are not the gradient of these entries, or too little of it.
    """
    first, size = update.dtheta.ctypes.data, update.dtheta.itemsize
    found, end, entries = list[tuple[Work, int]](), update.end, 0
    for work in sorted(products, key=_address, reverse=True):
        assert isinstance(work.how, Independent)
        start = (_address(work) - first) // size
        if not update.begin <= start or start + work.how.out.size > end:
            return None
        found.append((work, start))
        end, entries = start, entries + work.how.out.size
    return found if update.end - update.begin - entries <= MOST_BESIDE else None


def _address(product: Work) -> int:
    assert isinstance(product.how, Independent)
    return int(product.how.out.ctypes.data)


# ---- row by row ----------------------------------------------------------------------------------


class _Memory(list[tuple[int, int, int]]):
    """What matrices occupy, in order: the first byte, the end, the bytes from row to row."""

    def takes(self, work: Work) -> bool:
        """Add the matrices of an operation; False if their rows lie in other rows of the others."""
        for a in _matrices(work):
            begin, row = int(a.__array_interface__["data"][0]), a.strides[0]
            last = sum((n - 1) * step for n, step in zip(a.shape, a.strides, strict=True))
            span = begin, begin + last + a.itemsize, row
            i = bisect_left(self, (begin, 0, 0))
            if i < len(self) and self[i][0] == begin:
                if self[i][2] != row:
                    return False
                self[i] = max(self[i], span)
            else:
                self.insert(i, span)
            before, after = self[max(0, i - 1) : i], self[i + 1 : i + 2]
            if any(s[1] > begin for s in before) or any(s[0] < self[i][1] for s in after):
                return False
        return True


def _row_wise(work: Work) -> tuple[RowWise, ...]:
    return () if isinstance(work.how, Independent | Entrywise) else work.how


def _matrices(work: Work) -> list[Array]:
    """The arguments with a row for each example."""
    return [
        a for one in _row_wise(work) for a in one.arguments
        if isinstance(a, np.ndarray) and a.ndim and len(a) == one.m and a is not one.whole
    ]  # fmt: skip


def _of_rows(works: list[Work], function: int) -> list[Work]:
    each = [one for work in works for one in _row_wise(work)]
    m, flops = each[0].m, sum(one.flops for one in each)
    if flops > (ROW_FLOPS if m > FEW_ROWS else min(ROW_FLOPS, m * FEW_ROWS_FLOPS)):
        return works
    fields = (
        field for one in _with_memory(each)
        for field in (one.rows, one.end, Work(0, one.arguments), one.n)
    )  # fmt: skip
    return [Work(function, (m, flops, len(each), *fields))]


def _with_memory(operations: Iterable[RowWise]) -> Iterator[RowWise]:
    """Each operation with memory of its own, as all are done at the same time."""
    end = 0
    for one in operations:
        arguments = []
        for each in one.arguments:
            if isinstance(each, Scratch):
                each = each.behind(end)
                end = each.start + each
            arguments.append(each)
        yield one._replace(arguments=tuple(arguments))
