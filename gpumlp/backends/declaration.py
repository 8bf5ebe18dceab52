"""What a program knows of a backend and of an operation: what it writes, its products and bytes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from gpumlp.functions import Optimizer, Regularizer

Method = TypeVar("Method", bound=Callable[..., None])
Count = Callable[[Any], int]
Products = Callable[[Any], list[tuple[int, int, int]]]
"""Functions of the arguments of an operation, as attributes: arrays with shape and size."""


@dataclass(eq=False, repr=False)
class Operation:
    """A method of `Backend`, declared by `operation`.

    Attributes:
        writes: the parameters that the operation overwrites without reading them.
        updates: the parameters that it reads and writes.
        by_rows: whether a row of the matrices that it writes, one for each example, depends on the
            same rows of those that it reads.
    """

    name: str
    signature: inspect.Signature
    writes: frozenset[str]
    updates: frozenset[str]
    list_products: Products
    count_bytes: Count | None
    by_rows: bool = False

    @cached_property
    def parameters(self) -> list[str]:
        """The names of the parameters, in order."""
        return list(self.signature.parameters)[1:]

    def arguments(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The arguments of a call by name, with the defaults."""
        if len(args) == len(self.parameters) and not kwargs:  # binding takes ten times as long
            return dict(zip(self.parameters, args, strict=True))
        bound = self.signature.bind(None, *args, **kwargs)
        bound.apply_defaults()
        return dict(list(bound.arguments.items())[1:])

    def products(self, arguments: Mapping[str, Any]) -> list[tuple[int, int, int]]:
        """(m, n, k) of each matrix product (m, k) (k, n)."""
        return self.list_products(SimpleNamespace(**arguments))

    def bytes(self, arguments: Mapping[str, Any]) -> int:
        """The bytes that it reads and writes, if it moves every array once."""
        if self.count_bytes is not None:
            return self.count_bytes(SimpleNamespace(**arguments))
        moved: dict[int, int] = {
            id(a): a.nbytes for a in arguments.values() if hasattr(a, "nbytes")
        }
        again = {id(arguments[name]) for name in self.updates if arguments[name] is not None}
        return sum(moved.values()) + sum(moved[each] for each in again)


class Facts(Protocol):
    """What a backend says of itself."""

    name: str
    """ "numpy", "cpu" or "cupy"."""
    on_host: bool
    """Whether its arrays are NumPy's."""
    precision: str
    """ "float64", "float32" or "bfloat16"; the CUDA backend also has "tf32" and "float16"."""
    dtype: np.dtype[Any]
    """The type of θ: float64 or float32."""
    storage: np.dtype[Any]
    """The type of activations, gradients and the θ that products read: `dtype` or a 16-bit type."""
    scales_loss: bool
    """Whether the loss is scaled dynamically so that gradients do not vanish (in float16)."""
    folds: bool
    """Whether `weight_gradient` can add to W in place, so that dW needs no memory."""
    branches: int
    """The multiprocessors that operations beside each other share; 0 if none run beside others."""
    compiles: bool
    """Whether `compile` makes one call of a program, which can also do many steps."""
    row_flops: int
    """Neighbouring operations on rows, of so many FLOPs at most, are done row by row; 0: never."""
    rounds_slots: bool
    """Whether optimizer slots may be bfloat16 with stochastic rounding."""
    keeps_remainder: bool
    """Whether operations of a step may take θ as 16 bits and a remainder."""

    def __copy__(self) -> Self:
        return self  # a backend stands for a device

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def describe(self) -> str:
        """A description of the backend for `repr` and the command line."""

    def owns(self, a: object) -> bool:
        """Whether `a` is an array of this backend."""

    def accepts(self, a: object, dtype: np.dtype[Any]) -> bool:
        """Whether the operations can use `a` without a copy as an array of `dtype`."""

    def updates_in_product(
        self, optimizer: Optimizer, regularizer: Regularizer, slot_type: np.dtype[Any],
        shape: tuple[int, int],
    ) -> bool:  # fmt: skip
        """Whether `weight_update` can be faster than a product and `update`, for a W of `shape`."""
        return False

    def networks_at_a_time(self, widths: Sequence[int]) -> int:
        """The most networks of these widths that the operations can take at a time."""
        return 1 << 16

    def free_memory(self) -> int | None:
        """The bytes that new arrays may still use; None if arrays use the host's own memory."""
        return None

    def feed_memory(self, source: npt.NDArray[Any], rows: int, dtype: np.dtype[Any]) -> int:
        """The bytes of the backend's memory that `feed` allocates."""
        return 0

    def own_memory(self, widest: int) -> int:
        """The bytes that the backend allocates for itself if no layer is wider than `widest`."""
        return 0

    def scratch_memory(self, program: Iterable[Any]) -> int:
        """The bytes that a compiled program holds beside its buffers.

        program: operations with `name` and `arguments`, among them buffers with shape and dtype.
        """
        return 0

    def movable(
        self, run: Callable[[int], None], roots: Sequence[Any]
    ) -> Callable[[Sequence[Any]], Callable[[int], None]] | None:
        """A function that returns what `run` is for other arrays of the same shapes; or None.

        run: what `compile` returned.
        roots: the arrays in whose place the others are; the function keeps none of them.
        """
        return None


@dataclass(eq=False, repr=False)
class Call:
    """An operation of a program with its arrays.

    Attributes:
        work: calls the operation.
        stream: 0 for the main stream; work on other streams may run beside it.
        after: the positions of earlier calls, on other streams, that must have finished.
        multiprocessors: how many of them it uses, to leave the others to what runs beside it; 0:
            all.
    """

    work: Callable[[], None]
    stream: int = 0
    after: tuple[int, ...] = ()
    multiprocessors: int = 0


OPERATIONS: dict[str, Operation] = {}
"""All declared operations, by name."""


def _none(arguments: Any) -> list[tuple[int, int, int]]:
    return []


def operation(
    writes: str = "",
    updates: str = "",
    products: Products = _none,
    moves: Count | None = None,
    *,
    by_rows: bool = False,
) -> Callable[[Method], Method]:
    """Declare a method of `Backend`.

    writes, updates: names of parameters, separated by spaces; see `Operation`.
    products, moves, by_rows: see `Operation`; moves=None: the bytes are those of all arrays.
    """

    def declare(method: Method) -> Method:
        OPERATIONS[method.__name__] = Operation(
            method.__name__, inspect.signature(method), frozenset(writes.split()),
            frozenset(updates.split()), products, moves, by_rows,
        )  # fmt: skip
        return method

    return declare


def update_bytes(a: Any) -> int:
    """Of `update`: θ, its rounded copy, which is also read if θ is split, dθ and the slots."""
    begin, end = a.part or (0, a.theta.size)
    copies = 0 if a.rounded is a.theta else 2 if a.theta.dtype.kind == "i" else 1
    entry = 2 * a.theta.itemsize + copies * a.rounded.itemsize
    slots = a.slots.shape[0] * a.slots.itemsize
    return int((end - begin) * (entry + a.dtheta.itemsize + 2 * slots))


def product_update_bytes(a: Any) -> int:
    """Of `weight_update`: gz, h, and of W what `update` moves, without dW."""
    n = a.gz.shape[1] * a.h_below.shape[1]
    entry = 2 * a.theta.itemsize + (0 if a.rounded is a.theta else a.rounded.itemsize)
    slots = a.slots.shape[0] * a.slots.itemsize
    return int(a.gz.nbytes + a.h_below.nbytes + n * (entry + 2 * slots))


def square_products(a: Any) -> list[tuple[int, int, int]]:
    """Of `orthogonalize`: five times X Xᵀ, A A and A X of each of the K matrices."""
    r, n = a.A.shape[-1], max(a.X.shape[1:])
    return 5 * len(a.X) * [(r, r, n), (r, r, r), (r, n, r)]
