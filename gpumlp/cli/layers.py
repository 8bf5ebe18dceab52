"""The hidden layers that the options of a training describe."""

from __future__ import annotations

from typing import Any

from gpumlp.cli.options import parse_widths
from gpumlp.functions.blocks import blocks


def widths(options: Any) -> list[int]:
    """The widths of the hidden layers."""
    linear = options.hidden.strip().lower() in ("none", "")
    return [] if linear else parse_widths(options.hidden, "--hidden", "256,256 or none")


def layer_blocks(options: Any) -> dict[str, Any]:
    """The arguments of `MLP` for its blocks; raises if the hidden layers are too few for one."""
    hidden = len(widths(options))
    given: dict[str, Any] = {"dropout": options.dropout, "residual": options.residual or False}
    for name in ("norm", "gated"):
        given[name] = None if getattr(options, name) == "none" else getattr(options, name)
    found = blocks([1] * (hidden + 2), **given)
    for name, value in given.items():
        needed = options.residual + 1 if name == "residual" else 1
        if value and hidden < needed:
            raise ValueError(
                f"--{name} {value} needs {needed} hidden layer{'s' * (needed > 1)} or more, but "
                f"--hidden {options.hidden} has {hidden}; leave it out, or give more widths"
            )
    return given if found else {}
