"""The hidden layers and the ends of a network, as the options of a training and the data say."""

from __future__ import annotations

from typing import Any

from gpumlp.cli.options import parse_widths
from gpumlp.data import Dataset
from gpumlp.functions import LOSSES, Loss
from gpumlp.functions.blocks import blocks
from gpumlp.functions.entry import lookup

SMOOTHING = 0.1  # on mnist5k this saves one error in a hundred (mean over five seeds)


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
    for name, value in given.items():
        needed = options.residual + 1 if name == "residual" else 1
        if value and hidden < needed:
            raise ValueError(
                f"--{name} {value} needs {needed} hidden layer{'s' * (needed > 1)} or more, but "
                f"--hidden {options.hidden} has {hidden}; leave it out, or give more widths"
            )
    return given if blocks([1] * (hidden + 2), **given) else {}


def ends(dataset: Dataset, name: str | None, smoothing: float | None) -> tuple[Loss, int]:
    """The loss, and n_L, the width of the output layer.

    name, smoothing: those of --loss and --label-smoothing; None for the defaults.

    Raises ValueError if they do not go with the data.
    """
    default = "softmax_cross_entropy" if dataset.classes else "squared_error"
    loss = lookup(LOSSES, "loss", name or default)
    if "smoothing" in loss.params:
        loss = loss.set(smoothing=SMOOTHING if smoothing is None else smoothing)
    elif smoothing is not None:
        raise ValueError(
            f"--label-smoothing is for softmax_cross_entropy, not for {loss.name}; leave it out"
        )
    return loss, _outputs(dataset, loss)


def _outputs(dataset: Dataset, loss: Loss) -> int:
    """The width of the output layer; raises ValueError if the loss does not support the data."""
    classes, y = dataset.classes, dataset.y
    targets = ["class", "binary"] if classes else ["real", "count"]
    if loss.target not in targets:
        if (classes and len(classes) != 2) or (not classes and bool((y < 0).any())):
            targets.pop()
        suitable = [name for name, entry in LOSSES.items() if entry.target in targets]
        raise ValueError(
            f"Loss {loss.name!r} does not support {dataset.task} (data set {dataset.name!r}); "
            f"use --loss {' or '.join(suitable)}"
        )
    if not classes:
        return 1 if y.ndim == 1 else int(y.shape[1])
    if loss.target == "binary" and len(classes) != 2:
        raise ValueError(
            f"Loss {loss.name!r} supports 2 classes, but data set {dataset.name!r} has "
            f"{len(classes)}; use --loss softmax_cross_entropy"
        )
    return 1 if loss.target == "binary" else len(classes)
