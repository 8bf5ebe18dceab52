"""The arguments of calls of the library, in one array."""

from __future__ import annotations

import copy
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gpumlp.backends.cpu.works import Scratch, Work
from gpumlp.io.types import HostArray as Array

ITSELF, SCRATCH, ROOTS = range(3)  # what an address counts from; after them the other roots
Words = npt.NDArray[np.int64]


class Code:
    """Calls, with addresses as distances from where their arrays begin: `roots`.

    At first all arrays that are not `roots` have their own addresses, and are kept alive.

    Attributes:
        scratch: the bytes of memory that the calls share, one after the other.
    """

    def __init__(self, works: Iterable[Work]) -> None:
        self._format, self._values = ["="], list[Any]()
        self._bases = list[tuple[int, int]]()  # the places of addresses, and what they count from
        self._arrays: list[tuple[int, Array]] = []  # by the places of their addresses
        self.scratch = 0
        calls = [(work.function, 8 * self._place(work)) for work in works]
        self._calls = np.array(calls, np.int64).reshape(-1, 2)
        packed = struct.pack("".join(self._format), *self._values)
        self._words: Words = np.frombuffer(packed, np.int64)
        self._at, self._base = np.array(self._bases, np.intp).reshape(-1, 2).T

    def _place(self, work: Work) -> int:
        """Add the arguments as the fields of 8 bytes of a struct; the place of the first."""
        inner = {id(each): self._place(each) for each in work.arguments if isinstance(each, Work)}
        start = len(self._values)
        for at, each in enumerate(work.arguments, start):
            value: Any = each or 0 if each is None or isinstance(each, float) else each
            if isinstance(each, np.ndarray):
                value = each.ctypes.data
                self._arrays.append((at, each))
            elif isinstance(each, Work):
                value = 8 * inner[id(each)]
                self._bases.append((at, ITSELF))
            elif isinstance(each, Scratch):
                value, self.scratch = each.start, max(self.scratch, each.start + each)
                self._bases.append((at, SCRATCH))
            self._format.append("d" if isinstance(each, float) else "q")
            self._values.append(value)
        return start

    def relative(self, roots: Sequence[Array]) -> Self | None:
        """The code for other arrays in the place of these; None where two of these overlap.

        It keeps none of `roots` alive.
        """
        spans = sorted(
            (a.ctypes.data, a.ctypes.data + a.nbytes, i) for i, a in enumerate(roots) if a.nbytes
        )
        begins = np.array([begin for begin, _, _ in spans])
        ends = np.array([end for _, end, _ in spans])
        if (ends[:-1] > begins[1:]).any():
            return None
        found = copy.copy(self)
        found._words, found._arrays = self._words.copy(), []
        found._bases = list(self._bases)
        for at, a in self._arrays:
            address = int(self._words[at])
            i = int(np.searchsorted(begins, address, side="right")) - 1
            if i < 0 or address >= ends[i]:
                found._arrays.append((at, a))
                continue
            found._words[at] -= begins[i]
            found._bases.append((at, ROOTS + spans[i][2]))
        found._at, found._base = np.array(found._bases, np.intp).reshape(-1, 2).T
        found._format, found._values = [], []
        return found

    def at(self, scratch: Array, roots: Sequence[Array]) -> tuple[Words, Words]:
        """The calls, (number, 2), and their arguments, in memory that the calls point to."""
        words, calls = self._words.copy(), self._calls.copy()
        bases = np.array([a.ctypes.data for a in (words, scratch, *roots)], np.int64)
        words[self._at] += bases[self._base]
        calls[:, 1] += bases[0]
        return calls, words
