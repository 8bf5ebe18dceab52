"""The parameters of an estimator for the blocks of its network's layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpumlp.functions import blocks
from gpumlp.functions.activations import identity
from gpumlp.functions.blocks import Block
from gpumlp.network import MLP

# the parameters of the layers' blocks, in the order of `blocks.blocks` -> the field of `Block`
BLOCKS = {"norm": "norm", "dropout": "dropout", "residual": "skip", "gated": "gate"}


def python(value: Any) -> Any:
    """NumPy's numbers, such as those of a search's grid, as Python's."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return [python(each) for each in value] if isinstance(value, (list, tuple)) else value


def blocks_of(wanted: Mapping[str, Any]) -> tuple[Block, ...]:
    """The blocks of the network with these arguments, also those that do nothing."""
    found = blocks.blocks(wanted["widths"], *(wanted[name] for name in BLOCKS))
    return found or (Block(),) * (len(wanted["widths"]) - 1)


def changed_blocks(net: MLP, wanted: Mapping[str, Any]) -> dict[str, bool]:
    """Whether each parameter of the layers, also `activation`, no longer describes the network."""
    new, own = blocks_of(wanted), net.blocks or (Block(),) * net.L
    f = [identity, *wanted["activation"], wanted["output_activation"]]
    differs = {
        name: [getattr(block, field) for block in new] != [getattr(block, field) for block in own]
        for name, field in BLOCKS.items()
    }
    return differs | {"activation": net.f[1:-1] != blocks.activations(f, new)[1:-1]}
