"""A program: the operations that Algorithms 6.3 and 6.4 ask for, as a list of data.

The loops of `gpumlp.backprop` run with a `Program` in a backend's place, and with `Buffer`s in the
place of arrays.  The program notes each operation instead of doing it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from gpumlp.backends.declaration import OPERATIONS, Operation


@dataclass(eq=False, repr=False)
class Buffer:
    """An array of a program, before it has memory.

    Attributes:
        held: whether it exists between steps, such as θ.  The others are in the step's arena.
        whole, start: the buffer that this one is a part of, from its entry `start`; None if it is
            none.
        shared: whether the networks of an ensemble that are trained in one program have it in
            common.  The array of any other buffer then has a leading dimension K.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    held: bool = False
    whole: Buffer | None = None
    start: int = 0
    shared: bool = False

    @property
    def size(self) -> int:
        """The number of entries."""
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        """The bytes of an entry."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """The bytes of all entries."""
        return self.size * self.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def root(self) -> Buffer:
        """The buffer that has the memory."""
        return self if self.whole is None else self.whole

    def part(self, name: str, start: int, shape: tuple[int, ...]) -> Buffer:
        """A part of this buffer, from its entry `start`."""
        at = self.start + start
        return Buffer(name, shape, self.dtype, self.held, self.root, at, self.shared)

    def rows(self, m: int, start: int = 0) -> Buffer:
        """The rows start … start + m; the buffer itself if these are all."""
        if m == len(self):
            return self
        below = self.shape[1:]
        return self.part(self.name, start * prod(below), (m, *below))

    def of(self, array: Any, members: int = 0) -> Any:
        """The array of this buffer, from the array of `root`.

        members: the networks of the program, if there are several; see `shared`.
        """
        if self.whole is None:
            return array
        entries = slice(self.start, self.start + self.size)
        if members and not self.shared:
            return array.reshape(members, -1)[:, entries].reshape(members, *self.shape)
        return array.reshape(-1)[entries].reshape(self.shape)


@dataclass(eq=False, repr=False)
class Op:
    """One operation of a program, with its arguments by name.

    Attributes:
        stream, multiprocessors: see `declaration.Call`.
        members: the networks of an ensemble that it is for, (first, end); None: all.
        by_rows: whether it may be done on some rows while its neighbours are done on others.
    """

    operation: Operation
    arguments: dict[str, Any]
    stream: int = 0
    multiprocessors: int = 0
    members: tuple[int, int] | None = None
    by_rows: bool = False

    @property
    def name(self) -> str:
        """The name of the operation."""
        return self.operation.name

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arguments

    @property
    def buffers(self) -> dict[str, Buffer]:
        """The arguments that are buffers."""
        return {k: v for k, v in self.arguments.items() if isinstance(v, Buffer)}

    @property
    def writes(self) -> list[Buffer]:
        """The buffers that it writes."""
        written = self.operation.writes | self.operation.updates
        return [b for name, b in self.buffers.items() if name in written]

    @property
    def reads(self) -> list[Buffer]:
        """The buffers that it reads."""
        return [b for name, b in self.buffers.items() if name not in self.operation.writes]

    @property
    def part(self) -> tuple[int, int] | None:
        """The part of θ that it updates; None: all that it names."""
        return self.arguments.get("part") if "theta" in self else None

    @property
    def products(self) -> list[tuple[int, int, int]]:
        """(m, n, k) of each matrix product (m, k) (k, n)."""
        return self.operation.products(self.arguments)

    @property
    def flops(self) -> int:
        """The multiplications and additions of its products."""
        return sum(2 * m * n * k for m, n, k in self.products)

    @property
    def bytes(self) -> int:
        """What it reads and writes if it moves every array once."""
        return self.operation.bytes(self.arguments)

    def having(self, **arguments: Any) -> Op:
        """The operation with other arguments."""
        return replace(self, arguments={**self.arguments, **arguments})


class Program(list[Op]):
    """Operations in order.  ``program.affine_activation(…)`` adds the operation of that name."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name not in OPERATIONS:
            raise AttributeError(name)
        return lambda *args, **kwargs: self.append(op(name, *args, **kwargs))

    def inputs(self) -> tuple[Buffer | None, Buffer | None]:
        """x and y of the first minibatch, where the program reads them before it writes them."""
        first = {"embed": "x", "affine_activation": "h_below"}
        x = next((each[first[each.name]] for each in self if each.name in first), None)
        y = next((each["y"] for each in self if each.name == "output_gradient"), None)
        written = {b for each in self for b in each.writes}
        return None if x in written else x, None if y in written else y


def op(name: str, *args: Any, **kwargs: Any) -> Op:
    """One operation with its arguments."""
    return Op(OPERATIONS[name], OPERATIONS[name].arguments(*args, **kwargs))
