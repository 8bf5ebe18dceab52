"""The competitors: functions of a `Problem` that return a `Step`.

A competitor runs in its own process, so it may change global settings there. It raises ImportError
if a library is missing, and `Unsupported` if it cannot do the case.
"""

from __future__ import annotations

import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

from gpumlp.bench.cases import Case
from gpumlp.io.types import Array, HostArray

OURS, FLOOR = "gpumlp", "floor"
UNTUNED = "gpumlp.bench.peers.gpumlp_peer:untuned"  # computes the exact change, and is not timed

T = TypeVar("T")
Product = Callable[[Array, Array, Array], Any]

COMPETITORS = {
    OURS: "gpumlp.bench.peers.gpumlp_peer:GpumlpStep",
    FLOOR: "gpumlp.bench.peers.gpumlp_peer:Floor",
    "products by torch": "gpumlp.bench.peers.torch_peers:TorchProducts",
    "torch eager": "gpumlp.bench.peers.torch_peers:TorchStep",
    "torch eager medium": "gpumlp.bench.peers.torch_peers:medium",
    "torch.compile": "gpumlp.bench.peers.torch_peers:compiled",
    "torch.compile reduce-overhead": "gpumlp.bench.peers.torch_peers:reduce_overhead",
    "torch.compile one graph": "gpumlp.bench.peers.torch_peers:one_graph",
    "torch.compile bf16 parameters": "gpumlp.bench.peers.torch_peers:compiled_bf16_parameters",
    "torch.compile flashoptim": "gpumlp.bench.peers.torch_peers:flashoptim",
    "jax": "gpumlp.bench.peers.jax_peer:JaxStep",
    "jax scan": "gpumlp.bench.peers.jax_peer:JaxScan",
    "scikit-learn": "gpumlp.bench.peers.sklearn_peer:SklearnStep",
}


class NotTimed(Exception):  # noqa: N818  (a reason, not an error)
    """The reason why a competitor is not timed, and the status of its `Result`."""

    def __init__(self, reason: str, status: str = "failed") -> None:
        super().__init__(reason)
        self.status = status


class Unsupported(NotTimed):
    """The competitor cannot do the case; the message says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, "left out")


class Problem:
    """What a competitor is built from.

    Attributes:
        backend: "numpy" or "cpu", or "cupy" for the GPU (`on_gpu`).
        x, y: the minibatch in host memory; see `Case.data`.
        drawing: seconds spent on drawing θ. They do not count as the competitor's time.
    """

    def __init__(self, case: Case, backend: str) -> None:
        self.case, self.backend, self.on_gpu = case, backend, backend == "cupy"
        self.x, self.y = case.data()
        self.drawing = 0.0

    def theta(self) -> Iterator[tuple[str, HostArray]]:
        """The tensors of `Case.theta`. Their time is added to `drawing`."""
        tensors = self.case.theta()
        while True:
            start = time.perf_counter()
            item = next(tensors, None)
            self.drawing += time.perf_counter() - start
            if item is None:
                return
            yield item


class Step(ABC):
    """One training step on the minibatch of the problem, which can be repeated.

    Attributes:
        extra_seconds: seconds added to the time of each step; 0 except for the floor.
        trains: whether the step changes θ, so that the change can be checked.
        theta_type: the type of θ: "float64", "float32" or "bfloat16".
        notes: more facts for the result, as JSON can hold them: bandwidth, settings. "products" is
            the precision of the products, by which the step is checked, if it is not the case's.
    """

    extra_seconds = 0.0
    trains = True
    theta_type = "float32"

    def __init__(self) -> None:
        self.notes: dict[str, Any] = {}

    @abstractmethod
    def run(self) -> None:
        """Start one step; it may still be running on return."""

    def run_many(self, steps: int) -> None:
        """Start so many steps."""
        for _ in range(steps):
            self.run()

    def synchronize(self) -> None:
        """Wait until all steps are done. On the CPU a step is done when `run` returns."""
        return

    def tensors(self) -> Iterator[tuple[str, HostArray]]:
        """The current θ, with the names and shapes of `Case.theta`."""
        return iter(())

    def peak_bytes(self) -> int | None:
        """The most GPU memory that was in use, as the library counts it; None on the CPU."""
        return None


class BareProducts(Step):
    """The matrix products of a step and nothing else.

    Args:
        normal: makes an array of so many rows and columns, of normal numbers. A GPU would need less
            power for zeros, and so run faster.
        forward: out = h Wᵀ, called with (h, W, out).
        weight_gradient: out = gzᵀ h, called with (gz, h, out).
        hidden_gradient: out = gz W, called with (gz, W, out).
    """

    trains = False

    def __init__(
        self, case: Case, normal: Callable[[int, int], Array],
        forward: Product, weight_gradient: Product, hidden_gradient: Product,
    ) -> None:  # fmt: skip
        super().__init__()
        h, gz = ([normal(case.batch_size, n) for n in case.widths] for _ in range(2))
        W = [normal(n_out, n_in) for n_in, n_out in pairwise(case.widths)]
        dW = {w.shape: normal(*w.shape) for w in W}  # one for all layers of a shape
        layers = range(len(W))
        self._products = [partial(forward, h[k], W[k], h[k + 1]) for k in layers]
        for k in reversed(layers):
            self._products.append(partial(weight_gradient, gz[k + 1], h[k], dW[W[k].shape]))
            if k > 0:
                self._products.append(partial(hidden_gradient, gz[k + 1], W[k], gz[k]))

    def run(self) -> None:
        """Compute the products of a step once."""
        for product in self._products:
            product()


def lookup(library: str, field: str, name: str, table: Mapping[str, T]) -> T:
    """The entry of a table of what a library has, or `Unsupported`."""
    if name not in table:
        listed = ", ".join(table)
        raise Unsupported(f"the benchmark of {library} has no {field} {name}; it has: {listed}")
    return table[name]


def builder(name: str) -> Callable[[Problem], Step]:
    """The function that builds the competitor with this name, from the table or module:function."""
    module, _, function = COMPETITORS.get(name, name).partition(":")
    build: Callable[[Problem], Step] = getattr(importlib.import_module(module), function)
    return build


def known(names: list[str]) -> list[str]:
    """The names, after a check: each is in the table or has the form "module:function"."""
    for name in names:
        if name not in COMPETITORS and ":" not in name:
            raise ValueError(
                f"unknown peer {name!r}; known: {', '.join(COMPETITORS)}; or name your own as "
                "module:function"
            )
    return names


def float_type(precision: str) -> str:
    """The type of x and θ: "float64" if the precision is float64, else "float32"."""
    return "float64" if precision == "float64" else "float32"
