"""The rows of a minibatch, and the begin and the end of a step, as calls of the library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpumlp.backends.cpu.loading import Library
from gpumlp.backends.cpu.works import RowWise, Work
from gpumlp.io.types import HostArray as Array


class MinibatchLowering:
    """What `Lowering` inherits."""

    _library: Library

    def _plain(self, name: str, *arguments: Any, real: str = "") -> Work:
        raise TypeError("Lowering has it")

    def gather(
        self, source: Array, index: Array, out: Array, begin: tuple[Any, ...] | None = None
    ) -> Iterator[Work]:
        """begin: the arguments of the step's `begin`, which tell what the next step gathers."""
        ahead: tuple[Any, ...] = (None, None, 0, 0, 0)
        if begin is not None:
            position, order, _, size, rows, *_ = begin
            start = (index.ctypes.data - rows.ctypes.data) // index.itemsize
            ahead = order, position, size, start, order.size
        row = out.nbytes // max(1, len(out))
        address = self._library.address("gpumlp_gather")
        arguments = source, index, out, len(index), row, *ahead
        on_rows = self._library.address("gpumlp_gather_on_rows")
        yield Work(address, arguments, (RowWise(on_rows, 0, arguments, len(index), 0),))

    def mean_weights(self, weights: Array, index: Array, out: Array) -> Iterator[Work]:
        yield self._plain("mean_weights", weights, index, out, len(index))

    def begin(
        self, position: Array, order: Array, controls: Array, size: int, index: Array,
        control: Array, factors: Array, J: Array,
    ) -> Iterator[Work]:  # fmt: skip
        yield self._plain(
            "begin", position, order, controls, size, index, len(index), control, len(control),
            factors, J, len(J),
        )  # fmt: skip

    def end(self, position: Array, J: Array, costs: Array) -> Iterator[Work]:
        yield Work(self._library.address("gpumlp_end"), (position, J, costs, len(costs), len(J)))
