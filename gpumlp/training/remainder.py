"""θ of a step that reads and writes it as 16-bit weights and a 16-bit remainder."""

from __future__ import annotations

from gpumlp.io.types import Array
from gpumlp.network import MLP


class Remainder:
    """The remainder of θ beside the network's 16-bit weights, and which of them is current.

    Steps move the pair, and θ of the network stays as it was until `give`.  Who reads or assigns to
    θ does so after that.

    Attributes:
        array: (p,) int16: see `Backend.round`.
        ahead: whether steps have moved the pair since the last `give`.
    """

    def __init__(self, array: Array) -> None:
        self.array, self.ahead = array, False

    def take(self, net: MLP) -> None:
        """The pair ← θ of the network, before a step, unless the pair is ahead."""
        if not self.ahead:
            net.backend.round(net.theta.flat, net.rounded.flat, self.array)
            self.ahead = True

    def give(self, net: MLP) -> None:
        """θ of the network ← the pair, if the pair is ahead."""
        if self.ahead:
            net.backend.restore(net.theta.flat, net.rounded.flat, self.array)
            self.ahead = False
