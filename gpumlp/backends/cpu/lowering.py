"""Each operation as calls of the library: the function and its arguments.

The arguments of a call are those of a struct in `kernels/cpu/`, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gpumlp.backends.cpu.stages import StageLowering
from gpumlp.backends.cpu.theta import ThetaLowering
from gpumlp.backends.cpu.works import NotCompiledError, RowWise, Work, row_sums
from gpumlp.functions import Activation, Loss
from gpumlp.io.types import HostArray as Array


class Lowering(StageLowering, ThetaLowering):
    """The operations of `gpumlp.backends.operations` as lists of `Work`."""

    def __call__(self, name: str, *arguments: Any) -> list[Work]:
        """The calls of an operation."""
        lower: Callable[..., Iterator[Work]] | None = getattr(self, name, None)
        if lower is None:
            raise NotCompiledError(name)
        return list(lower(*arguments))

    def affine_activation(
        self, h_below: Array, W: Array, b: Array, f: Activation, z: Array, h: Array
    ) -> Iterator[Work]:
        yield from self._product_and(h_below, W.T, z, f, "bias_activation", z, b, h, *z.shape)

    def activation(self, f: Activation, z: Array, h: Array) -> Iterator[Work]:
        yield self._of(f, "activation", z, h, *z.shape)

    def loss(
        self, loss: Loss, y_hat: Array, y: Array, weights: Array, J: Array, gh: Array | None = None
    ) -> Iterator[Work]:
        m, n = y_hat.shape
        name = "loss_of_labels" if y.ndim == 1 else "loss"
        yield self._of(
            loss, name, y_hat, y, weights, J, gh, m, n, loss.output_scale(n), row_sums(m)
        )

    def output_gradient(
        self, loss: Loss, f: Activation, z: Array, h: Array, y: Array, weights: Array,
        scaling: Array, gh: Array, gz: Array, db: Array, J: Array,
    ) -> Iterator[Work]:  # fmt: skip
        yield from self.loss(loss, h, y, weights, J, gh)
        yield from self.activation_gradient(f, z, h, gh, gz, db)

    def weight_gradient(
        self, gz: Array, h_below: Array, dW: Array, factors: Array | None
    ) -> Iterator[Work]:
        yield self._product(gz.T, h_below, dW, factors, how="independent")

    def hidden_gradient(
        self, gz_above: Array, W_above: Array, f: Activation, z: Array, h: Array,
        gh: Array, gz: Array, db: Array,
    ) -> Iterator[Work]:  # fmt: skip
        arguments = self._gradient_arguments(z, h, gh, gz, db)
        yield from self._product_and(gz_above, W_above, gh, f, "activation_gradient", *arguments)

    def activation_gradient(
        self, f: Activation, z: Array, h: Array, gh: Array, gz: Array, db: Array
    ) -> Iterator[Work]:
        yield self._of(f, "activation_gradient", *self._gradient_arguments(z, h, gh, gz, db))

    def _gradient_arguments(
        self, z: Array, h: Array, gh: Array, gz: Array, db: Array
    ) -> tuple[Any, ...]:
        m, n = gh.shape
        return gh, z, h, gz, db, m, n, row_sums(m, self._dtype.itemsize, n)

    def input_gradient(self, gz: Array, W: Array, gx: Array) -> Iterator[Work]:
        yield self._product(gz, W[:, W.shape[1] - gx.shape[1] :], gx, how="by rows")

    # ---- minibatches --------------------------------------------------------------------------

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
