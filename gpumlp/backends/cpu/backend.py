"""The CPU backend: the operations compiled, and a program of them run by one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gpumlp.backends.cpu.calls import block_memory
from gpumlp.backends.cpu.code import Code
from gpumlp.backends.cpu.flags import INSTRUCTION_SETS
from gpumlp.backends.cpu.joining import ROW_FLOPS, joined
from gpumlp.backends.cpu.loading import Library, installed
from gpumlp.backends.cpu.lowering import Lowering
from gpumlp.backends.cpu.works import NotCompiledError, Work
from gpumlp.backends.cuda.source import dtype_of
from gpumlp.backends.declaration import OPERATIONS, Call
from gpumlp.backends.feed import HostFeed
from gpumlp.backends.numpy.backend import NumpyBackend
from gpumlp.backends.numpy.blas import Blas, numpy_blas
from gpumlp.errors import DeviceError
from gpumlp.io.threads import at_most, blas_threads, cores
from gpumlp.io.types import HostArray as Array

EMULATE = "GPUMLP_EMULATE_BFLOAT16"
"""The environment variable that allows bfloat16 on any processor."""
CORES = cores()


class CpuBackend(NumpyBackend):
    """The operations of `gpumlp.backends.operations` in C++.

    Arrays, streams and what is not compiled are those of the NumPy backend.

    Raises:
        DeviceError: the library is missing; the message says why.
        ValueError: the processor has no products of bfloat16.
    """

    name = "cpu"

    def __init__(self, precision: str = "float32") -> None:
        halves = precision == "bfloat16"
        super().__init__("float32" if halves else precision)
        self.precision, self.compiles, self.row_flops = precision, True, ROW_FLOPS
        library, blas = installed(), numpy_blas()
        if isinstance(library, str) or blas is None:
            why = library if isinstance(library, str) else "NumPy's BLAS cannot be called directly"
            instead = ' and precision="float32"' if halves else ""
            raise DeviceError(f'backend "cpu" cannot be used: {why}; use backend="numpy"{instead}')
        if halves:
            has_products = INSTRUCTION_SETS[library.instruction_set].has_bfloat16
            if not has_products and os.environ.get(EMULATE) != "1":
                raise ValueError(
                    'precision "bfloat16" needs a GPU or a processor with AVX512_BF16, and this '
                    f'machine\'s has {library.instruction_set}; use precision="float32", or set '
                    f"{EMULATE}=1 to try bfloat16 slowly, without these instructions"
                )
            self.storage = dtype_of(precision)
        self._library, self._blas = library, blas
        self._lower = Lowering(library, blas, self.dtype, self.storage)

    def __reduce__(self) -> tuple[Any, ...]:
        return _on_this_machine, (self.precision,)

    def describe(self) -> str:
        return (
            f"compiled for {self._library.instruction_set} on the CPU, {self._threads.count} "
            f"threads, {self.precision}"
        )

    def compile(self, variants: Mapping[str, Sequence[Call]], name: str) -> Callable[[int], None]:
        runs: list[Callable[[], None]] = []
        works: list[Work] = []
        begin: tuple[Any, ...] | None = None

        def finish() -> None:
            if works:
                runs.append(Program(self._library, self._blas, self._joined(works)))
                works.clear()

        for call in next(iter(variants.values())):
            operation: partial[None] = call.work  # type: ignore[assignment]
            name, arguments = operation.func.__name__, operation.args
            if name == "begin":
                begin = arguments
            elif name == "gather":
                arguments = *arguments, begin
            try:
                works += self._lower(name, *arguments)
            except NotCompiledError:
                product, rest = self._apart(name, *operation.args)
                works += product
                finish()
                runs.append(rest)
        finish()
        if len(runs) == 1 and isinstance(runs[0], Program):
            return runs[0]

        def run(steps: int) -> None:
            for _ in range(steps):
                for part in runs:
                    part()

        return run

    def movable(
        self, run: Callable[[int], None], roots: Sequence[Array]
    ) -> Callable[[Sequence[Array]], Callable[[int], None]] | None:
        return run.movable(roots) if isinstance(run, Program) else None

    def feed(self, source: Array, rows: int, dtype: npt.DTypeLike) -> HostFeed:
        return HostFeed(source, self._threads, self._library.read_rows)

    def run(self, name: str, *arguments: Any) -> None:
        """Do one operation now."""
        rest: Callable[[], None] | None = None
        try:
            works = self._lower(name, *arguments)
        except NotCompiledError:
            works, rest = self._apart(name, *arguments)
        if works:
            Program(self._library, self._blas, Code(works))()
        if rest is not None:
            rest()

    def own_memory(self, widest: int) -> int:
        return self._threads.count * block_memory(self._library.instruction_set)

    def scratch_memory(self, program: Iterable[Any]) -> int:
        works: list[Work] = []
        for op in program:
            with suppress(NotCompiledError):
                works += self._lower(op.name, *map(_stand_in, op.arguments.values()))
        return self._joined(works).scratch

    def _joined(self, works: list[Work]) -> Code:
        return Code(joined(works, self._library.address("gpumlp_by_rows")))

    def round(self, theta: Array, rounded: Array, remainder: Array | None = None) -> None:
        if remainder is not None:
            super().round(theta, rounded, remainder)
        elif rounded.dtype != theta.dtype:
            self.run("round", theta, rounded)

    def _apart(self, name: str, *arguments: Any) -> tuple[list[Work], Callable[[], None]]:
        """An operation that is not compiled: its product, and the rest by NumPy.

        NumPy's own products have other bits for other numbers of threads, which another program
        may change meanwhile.
        """
        named = OPERATIONS[name].arguments(*arguments)
        if name == "affine_activation" and self.storage == self.dtype:
            z, b = named["z"], named["b"]

            def rest() -> None:
                np.add(z, b, out=z)
                self._in_numpy("activation", named["f"], z, named["h"])

            return [self._lower._product(named["h_below"], named["W"].T, z)], rest
        if name == "hidden_gradient" and self.storage == self.dtype:
            f = (named[each] for each in ("f", "z", "h", "gh", "gz", "db"))
            product = self._lower._product(named["gz_above"], named["W_above"], named["gh"])
            return [product], partial(self._in_numpy, "activation_gradient", *f)
        return [], partial(self._in_numpy, name, *arguments)

    def _in_numpy(self, name: str, *arguments: Any) -> None:
        """Do one operation by NumPy, in float32 if the arguments have 16 bits."""
        operation, named = getattr(super(), name), OPERATIONS[name].arguments(*arguments)
        of_16_bits = self.storage if self.storage != self.dtype else ""
        halves = {id(a): a for a in named.values() if getattr(a, "dtype", None) == of_16_bits}
        wide = {key: a.astype(self.dtype) for key, a in halves.items()}
        operation(*(wide.get(id(a), a) for a in named.values()))
        for parameter in OPERATIONS[name].writes | OPERATIONS[name].updates:
            key = id(named[parameter])
            if key in halves:
                np.copyto(halves[key], wide[key], casting="unsafe")
        if name == "update":
            self.round(named["theta"], named["rounded"])


def _stand_in(value: Any) -> Any:
    """An array without memory in place of a buffer."""
    if not hasattr(value, "nbytes"):
        return value
    return np.broadcast_to(np.zeros((), value.dtype), value.shape)


def _on_this_machine(precision: str) -> NumpyBackend:
    """What a pickle becomes: without the library, the NumPy backend."""
    try:
        return CpuBackend(precision)
    except DeviceError:
        return NumpyBackend(precision)


def _compiled(name: str) -> Callable[..., None]:
    def operation(self: CpuBackend, *arguments: Any, **named: Any) -> None:
        self.run(name, *OPERATIONS[name].arguments(*arguments, **named).values())

    operation.__name__ = name
    return operation


for _name in [name for name in dir(Lowering) if name[0] != "_" and name != "round"]:
    setattr(CpuBackend, _name, _compiled(_name))


class Program:
    """Calls of the library, which hold no interpreter lock.  It keeps their arrays alive."""

    def __init__(
        self, library: Library, blas: Blas, code: Code, roots: Sequence[Array] = ()
    ) -> None:
        self._code, self._roots = code, roots
        self._scratch = np.empty(code.scratch, np.uint8)
        self._calls, self._words = code.at(self._scratch, roots)
        self._library, self._blas = library, blas
        self._threads = CORES if blas.set_threads else blas_threads()
        self._sharing = np.zeros(6, np.int64)  # `Sharing` of sharing.hpp
        self._address, self._sharing_address = (a.ctypes.data for a in (self._calls, self._sharing))

    def movable(self, roots: Sequence[Array]) -> Callable[[Sequence[Array]], Program] | None:
        """See `Backend.movable`."""
        code = self._code.relative(roots)
        return None if code is None else partial(Program, self._library, self._blas, code)

    def __call__(self, steps: int = 1) -> None:
        """Run the calls in order, so many times."""
        blas = self._blas
        self._library.run(
            self._address, len(self._calls), steps, blas.get_threads, blas.set_threads,
            at_most(self._threads), self._sharing_address,
        )  # fmt: skip
