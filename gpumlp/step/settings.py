"""What a step of training depends on."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gpumlp import backprop
from gpumlp.functions import Loss, Optimizer, Regularizer
from gpumlp.functions.blocks import Block
from gpumlp.functions.embeddings import Embeddings
from gpumlp.parameters import Layout, Parameters
from gpumlp.step.sharding import WHOLE, Shards

if TYPE_CHECKING:
    from gpumlp.step.groups import Group


class Network(backprop.Model, Protocol):
    """A network with its parameters."""

    @property
    def theta(self) -> Parameters:
        """θ."""

    @property
    def rounded(self) -> Parameters:
        """θ as the products read it."""


def described(
    widths: tuple[int, ...], f: tuple[Any, ...], loss: Loss, regularizer: Regularizer, backend: Any,
    blocks: tuple[Block, ...] = (), embed: Embeddings | None = None,
) -> Any:  # fmt: skip
    """A `Network` without arrays: what a program needs of it.

    backend: a backend, or what has the attributes of one that a program depends on.
    """
    theta = SimpleNamespace(layout=Layout(widths, backend.storage.itemsize, blocks, embed))
    return SimpleNamespace(
        widths=widths, f=f, loss=loss, regularizer=regularizer, L=len(widths) - 1, backend=backend,
        theta=theta,
    )  # fmt: skip


def shape_of(net: Network) -> Hashable:
    """What a program depends on of a network; None if others may not share it.

    On the host, networks with equal ones differ in nothing but θ.
    """
    backend, layout = net.backend, net.theta.layout
    kind = type(backend), backend.precision, backend.folds
    found = kind, tuple(net.widths), tuple(net.f), net.loss, net.regularizer
    return (*found, layout.blocks, layout.embed) if backend.on_host else None


class Known(dict[Hashable, Any]):
    """What was made for the last keys, at most `most`; several threads may ask."""

    def __init__(self, most: int) -> None:
        self._most = most

    def found(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What make() returned for this key; a new one if the key cannot be compared."""
        try:
            found = self.get(key)
        except TypeError:  # it has an entry of the user's own, which has a list
            return make()
        if found is None:
            for oldest in list(self)[: 1 - self._most] if len(self) >= self._most else ():
                self.pop(oldest, None)
            found = self.setdefault(key, make())
        return found


def input_type(backend: Any, embeddings: Embeddings | None) -> np.dtype[Any]:
    """The dtype of x in a step: the storage type or, so that codes are not rounded, that of θ."""
    found: np.dtype[Any] = backend.storage if embeddings is None else backend.dtype
    return found


@dataclass(eq=False, repr=False)
class Settings:
    """The settings of a `Trainer`, which documents each.

    Attributes:
        rates: the factors of the learning rate of the weights.
        slot_type: the dtype of the optimizer's state.
        low_memory: whether `memory` is "low".
        shards: the parts of a minibatch; a single one unless `world` or `shards` is given.
        rules: of K networks that are trained in one program, the optimizer and Ω of each; empty
            for one network.
    """

    net: Network
    optimizer: Optimizer
    accumulate: int
    clip_norm: float | None
    groups: Mapping[str, Group]
    rates: set[float]
    ema: float | None
    slot_type: np.dtype[Any]
    low_memory: bool
    fold: bool | None
    shards: Shards = WHOLE
    remainder: bool = False
    rules: tuple[tuple[Optimizer, Regularizer], ...] = ()
