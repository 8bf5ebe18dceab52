"""What stands for rows while torch's modules are read: a layer in the making.

Its parts come in this order: norm → Linear → activation or gate → Dropout → addition of the output
of an earlier layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gpumlp.functions import ACTIVATIONS, Activation
from gpumlp.functions.stages import Stage


@dataclass(frozen=True, eq=False)
class Norm:
    """The output of a norm: its module under a name, and what it is computed of."""

    name: str
    module: Any
    of: TorchLayer
    stage: Stage


@dataclass(frozen=True, eq=False)
class TorchLayer:
    """The output of a layer, or of a part of it.

    Attributes:
        below: the layer whose output it has as input, after the norm; None for x.
        f: the activation, or that of the gate; None if there is none yet.
        half: of a part: which half of the Linear's output it is, before the gate.
        dropout: the module and its name.
        skip: the layer whose output is added, by the Linear `projection`, with its name.
    """

    name: str
    linear: Any
    below: TorchLayer | None
    norm: Norm | None = None
    f: Activation | None = None
    half: int | None = None
    gated: bool = False
    dropout: tuple[str, Any] | None = None
    skip: TorchLayer | None = None
    projection: tuple[str, Any] | None = None

    @property
    def width(self) -> int:
        """The number of outputs."""
        n: int = self.linear.out_features
        return n // 2 if self.gated else n

    @property
    def only_linear(self) -> bool:
        """Whether there is nothing but a Linear so far."""
        more = (self.f, self.half, self.dropout, self.skip)
        return not self.gated and all(each is None for each in more)

    def chain(self) -> list[TorchLayer]:
        """All layers up to this one."""
        found: list[TorchLayer] = []
        layer: TorchLayer | None = self
        while layer is not None:
            found.insert(0, layer)
            layer = layer.below
        return found


def added(layer: TorchLayer, other: TorchLayer) -> TorchLayer | None:
    """The layer with a skip, if the other one is the output of a layer below, or a Linear of it."""
    if layer.half is not None or layer.skip is not None or layer.below is None:
        return None
    below = layer.below.chain()
    if other in below:
        return replace(layer, skip=other)
    if other.only_linear and other.norm is None and other.below in below:
        return replace(layer, skip=other.below, projection=(other.name, other.linear))
    return None


def gated(a: TorchLayer, b: TorchLayer) -> TorchLayer | None:
    """a ⊙ f(b) of the two halves of a Linear's output."""
    if a.linear is not b.linear or (a.half, b.half) != (0, 1) or a.f is not None:
        return None
    return replace(b, f=b.f or ACTIVATIONS["identity"], half=None, gated=True)
