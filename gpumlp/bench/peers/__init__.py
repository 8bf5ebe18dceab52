"""The competitors: what each offers, and where it is built.

A competitor is a function of a `Problem` that returns a `Step`.  Those of the table go by name;
any other by "module:function", yours too.  It runs in a process of its own, so it may set what it
likes there.  What it cannot do it says by raising: ImportError where a library is missing,
`Unsupported` where the case is not for it.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from gpumlp.bench.cases import Case
from gpumlp.io.types import HostArray

OURS, FLOOR = "gpumlp", "floor"

COMPETITORS = {
    OURS: "gpumlp.bench.peers.ours:step",
    FLOOR: "gpumlp.bench.peers.ours:floor",
    "products by torch": "gpumlp.bench.peers.torch_peers:products",
    "torch eager": "gpumlp.bench.peers.torch_peers:eager",
    "torch.compile": "gpumlp.bench.peers.torch_peers:compiled",
    "torch.compile bf16 parameters": "gpumlp.bench.peers.torch_peers:compiled_bf16_parameters",
    "jax": "gpumlp.bench.peers.jax_peer:step",
    "scikit-learn": "gpumlp.bench.peers.sklearn_peer:step",
}


class Unsupported(Exception):  # noqa: N818  (a reason, no error)
    """The competitor has no way to run this case; the message says why."""


@dataclass
class Problem:
    """What a competitor is built from.

    Attributes:
        case: the network and how it is trained.
        backend: "numpy" for the CPU, "cupy" for the GPU.
        x, y: the minibatch, on the host; see `Case.data`.
        drawing: seconds spent on drawing θ, which are not the competitor's.
    """

    case: Case
    backend: str
    x: HostArray = field(init=False)
    y: HostArray = field(init=False)
    drawing: float = 0.0

    def __post_init__(self) -> None:
        self.x, self.y = self.case.data()

    @property
    def on_gpu(self) -> bool:
        """Whether the case runs on the GPU."""
        return self.backend == "cupy"

    def theta(self) -> Iterator[tuple[str, HostArray]]:
        """`Case.theta`, its time kept apart."""
        tensors = self.case.theta()
        while True:
            start = time.perf_counter()
            item = next(tensors, None)
            self.drawing += time.perf_counter() - start
            if item is None:
                return
            yield item


class Step(Protocol):
    """One training step on the problem's minibatch, again and again."""

    extra_seconds: float
    """What is counted besides each call; 0 but for the floor."""
    trains: bool
    """Whether θ moves, and so can be checked; not that of products alone."""
    theta_type: str
    """ "float64", "float32" or "bfloat16": what θ is kept in."""
    notes: dict[str, Any]
    """What the result is to hold besides: bandwidth, settings."""

    def run(self) -> None:
        """Hand in one step; it need not be done on return."""

    def synchronize(self) -> None:
        """Wait until all steps are done."""

    def tensors(self) -> Iterator[tuple[str, HostArray]]:
        """θ as it stands, by the names and in the shapes of `Case.theta`."""

    def peak_bytes(self) -> int | None:
        """The most device memory that was in use, by the library's own count; None on the CPU."""


class Plain:
    """What most steps have in common."""

    extra_seconds = 0.0
    trains = True
    theta_type = "float32"

    def __init__(self) -> None:
        self.notes: dict[str, Any] = {}

    def synchronize(self) -> None:
        """Nothing is left undone."""

    def tensors(self) -> Iterator[tuple[str, HostArray]]:
        """None."""
        return iter(())

    def peak_bytes(self) -> int | None:
        """Not counted."""
        return None


def builder(name: str) -> Callable[[Problem], Step]:
    """The function behind a competitor's name.

    Raises:
        ImportError, AttributeError: its module, or the function in it, is not there.
    """
    module, _, function = COMPETITORS.get(name, name).partition(":")
    build: Callable[[Problem], Step] = getattr(importlib.import_module(module), function)
    return build


def known(names: list[str]) -> list[str]:
    """The names, each in the table or of the form "module:function".

    Raises:
        ValueError: one is neither.
    """
    for name in names:
        if name not in COMPETITORS and ":" not in name:
            listed = ", ".join(COMPETITORS)
            raise ValueError(
                f"unknown peer {name!r}; known: {listed}, or module:function of your own"
            )
    return names


def float_type(precision: str) -> str:
    """The type of x and θ: float64 where the case is, else float32."""
    return "float64" if precision == "float64" else "float32"
