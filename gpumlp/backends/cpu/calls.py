"""The library's functions with their arguments, of which all operations are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpumlp.backends.cpu import source
from gpumlp.backends.cpu.flags import INSTRUCTION_SETS
from gpumlp.backends.cpu.loading import Library
from gpumlp.backends.cpu.works import (
    C_TYPES,
    Independent,
    NotCompiledError,
    RowWise,
    Scratch,
    Work,
)
from gpumlp.backends.numpy.blas import Blas
from gpumlp.functions import Activation, Loss, Regularizer
from gpumlp.functions.activations import softmax
from gpumlp.functions.entry import Entry
from gpumlp.functions.losses import softmax_cross_entropy
from gpumlp.functions.stages import Stage
from gpumlp.io.types import HostArray as Array

INNER = 1024  # of products in 16 bits: sums of more entries lie in memory before they are rounded
# From so many FLOPs on, BLAS computes a product, in pieces of so many and at least so many rows or
# columns: it copies its operands anew for each piece.  With AVX-512 the library's own products are
# as fast at any size (docs/cpu.md), and elsewhere those of few rows or inner entries.
BLAS_FLOPS, PIECE_FLOPS, LEAST_WIDTH, FEW = 1 << 28, 1 << 26, 256, 12
BLOCKS, AVX512_BLOCKS = (96, 256), (192, 512)  # KiB of a thread's blocks of a and b: panels.hpp
AMX_BLOCKS = 1536  # of both
PLAIN, TRANSPOSED = 111, 112  # CBLAS's flags
NOTHING = (None, None, None)  # after a product


class Calls:
    """The calls of the library for these types of θ and of activations, which `Lowering` combines.

    Raises:
        NotCompiledError: by each method, if an entry of the user's own is not compiled.
    """

    def __init__(
        self, library: Library, blas: Blas, dtype: np.dtype[Any], storage: np.dtype[Any]
    ) -> None:
        self._library, self._blas, self._dtype = library, blas, dtype
        self._wide = 16 * INSTRUCTION_SETS[library.instruction_set].has_wide_vectors
        self._real, self._stored = C_TYPES[dtype.name], C_TYPES[storage.name]

    def _plain(self, name: str, *arguments: Any, real: str = "") -> Work:
        """The call of a function that depends on no entry.  real: the type, if not that of θ."""
        return self._work(lambda name: self._address(name, real), name, arguments)

    def _address(self, name: str, real: str = "") -> int:
        return self._library.address(f"{real or self._real}_{name}")

    def _work(
        self, address: Callable[[str], int], name: str, arguments: tuple[Any, ...], real: str = ""
    ) -> Work:
        """The call of a function, which may also be done row by row."""
        work = Work(address(name), arguments)
        if name not in BY_ROWS:
            return work
        end, at = BY_ROWS[name]
        last = self._address(end, real) if end else 0
        rows = RowWise(address(name + ON_ROWS), last, arguments, *arguments[at : at + 2])
        return work._replace(how=(rows,))

    def _is_16_bit(self, a: Array | None) -> int:
        return int(a is not None and a.dtype != self._dtype)

    def _of(
        self, entry: Entry, name: str, *arguments: Any, omega: Regularizer | None = None
    ) -> Work:
        """The call of an entry's function, whose last arguments are the entry's parameters."""
        own = [np.array(source.parameters(entry), F64)]
        if omega is not None:
            own.append(np.array(source.parameters(omega), F64))
        real = self._stored if isinstance(entry, Activation | Loss | Stage) else self._real

        def address(name: str) -> int:
            if entry.is_built_in() and entry.name in (softmax.name, softmax_cross_entropy.name):
                whole, suffix, _ = name.partition(ON_ROWS)
                return self._address(f"{ROW_WISE[entry.name, whole]}{suffix}", real)
            symbol = f"{source.struct_name(entry)}_{name}"
            found = self._library.operation(real, symbol, entry, omega)
            if not found:
                raise NotCompiledError(entry.name)
            return found

        return self._work(address, name, (*arguments, *own), real)

    def _product_and(
        self, a: Array, b: Array, out: Array, f: Activation, name: str, *arguments: Any
    ) -> Iterator[Work]:
        """out ← a b, and an operation of f on it: by columns within the product, if that can be."""
        work, part = self._of(f, name, *arguments), 0
        if not (f.is_built_in() and f.name == softmax.name):
            part = self._library.operation(
                self._stored, f"{source.struct_name(f)}_{name}_part", f, None
            )
        then = (part, work.function, work) if part else NOTHING
        product = self._product(a, b, out, None, then, how="by rows")
        if any(each is work for each in product.arguments):
            yield product._replace(how=(*product.how, *work.how))
        else:
            yield from (product, work)

    def _product(
        self, a: Array, b: Array, out: Array, factors: Array | None = None,
        then: tuple[Any, ...] = NOTHING, *, how: str = "",
    ) -> Work:  # fmt: skip
        """out ← a b, or α a b + β out; a and b may be columns, or transposes, of C arrays.

        then: the fields of `Next` in program.hpp, which a product by BLAS leaves out.
        how: "independent" of neighbouring products of this kind; "by rows" with its neighbours,
            which do not write b.
        """
        (m, k), n = a.shape, b.shape[1]
        halves = self._is_16_bit(a)
        if 2 * m * n * k >= BLAS_FLOPS << self._wide and min(m, k) > FEW and not halves:
            return self._blas_product(a, b, out, factors)
        rounded = halves and self._is_16_bit(out)
        sums = Scratch(4 * m * n) if rounded and k > INNER else None
        strides = [[each // x.itemsize for each in x.strides] for x in (a, b)]
        to_float, real = "_to_float" * bool(halves and not rounded), "bfloat16" * halves
        arguments = m, n, k, a, *strides[0], b, *strides[1], out, factors, sums
        product = self._plain(
            f"product{to_float}", *arguments, *(NOTHING if sums else then), real=real
        )
        if how == "independent":
            several = self._address(f"products{to_float}", real)
            return product if sums else product._replace(how=Independent(several, out))
        if to_float or how != "by rows":
            return product
        on_rows = self._address(f"product{ON_ROWS}", real)
        rows = RowWise(on_rows, 0, (*arguments, *NOTHING), m, n, 2 * m * n * k, b)
        return product._replace(how=(rows,))

    def _blas_product(self, a: Array, b: Array, out: Array, factors: Array | None) -> Work:
        (m, k), n = a.shape, b.shape[1]
        operands: list[Any] = []
        for x in (a, b):
            plain = x.strides[1] == x.itemsize
            leading = x.strides[0 if plain else 1] // x.itemsize
            least = max(1, x.shape[1 if plain else 0])
            operands += [x, PLAIN if plain else TRANSPOSED, max(leading, least)]
        by_columns, size = n > m, max(m, n)
        pieces = max(1, min(2 * m * n * k // PIECE_FLOPS, size // LEAST_WIDTH))
        if not self._blas.set_threads:  # it shares a product by itself
            pieces = 1
        each = -(-size // (16 * pieces)) * 16
        bits, gemm = self._blas.size_bits, self._blas.address(self._dtype)
        return self._plain(
            f"blas_product{bits}", gemm, m, n, k, *operands, out, factors, each, int(by_columns)
        )


def block_memory(instruction_set: str) -> int:
    """The bytes of a thread's blocks of a and b, and of a cache line."""
    kib = AMX_BLOCKS
    if instruction_set != "amx":
        wide = INSTRUCTION_SETS[instruction_set].has_wide_vectors
        kib = sum(AVX512_BLOCKS if wide else BLOCKS)
    return (kib << 10) + 64


ROW_WISE = {
    (softmax.name, "bias_activation"): "bias_softmax",
    (softmax.name, "activation"): "softmax",
    (softmax.name, "activation_gradient"): "softmax_gradient",
    (softmax_cross_entropy.name, "loss"): "cross_entropy",
    (softmax_cross_entropy.name, "loss_of_labels"): "cross_entropy_of_labels",
}
ON_ROWS = "_on_rows"
BY_ROWS = {  # the function after all rows, and the place of m and n among the arguments
    "bias_activation": ("", 3),
    "activation": ("", 2),
    "activation_gradient": ("activation_gradient_end", 5),
    "loss": ("loss_end", 5),
    "loss_of_labels": ("loss_end", 5),
    "rows": ("", 3),
    "rows_gradient": ("rows_gradient_end", 6),
    "columns": ("", 4),
    "columns_gradient": ("", 7),
    "gate": ("", 2),
    "gate_gradient": ("gate_gradient_end", 4),
    "dropout": ("", 3),
    "join": ("", 3),
    "embed": ("", 3),
}
F64 = np.dtype(np.float64)
