"""Whether the product that computes ∇W can add it to the weights, or to their velocity."""

from __future__ import annotations

import numpy as np

from gpumlp.step.settings import Settings


def folds(settings: Settings) -> bool:
    """Whether a step folds its update; `fold` as in `Trainer`.

    Raises:
        ValueError, TypeError: `fold` is not as described there.
    """
    fold = settings.fold
    if fold is not None and not isinstance(fold, (bool, np.bool_)):
        raise TypeError(f"fold must be True, False or None, got {fold!r}")
    reason = _why_not(settings)
    if fold and reason:
        raise ValueError(f"fold=True is not possible: {reason}; pass fold=None")
    return not reason and (fold is None or bool(fold))


def folds_rows(settings: Settings) -> bool:
    """Whether a step that folds changes, of tables of embeddings, the rows of its codes alone.

    Without penalty, SGD leaves the other rows as they are.
    """
    net, backend = settings.net, settings.net.backend
    return (
        net.theta.layout.embed is not None
        and settings.optimizer.fold == "theta"
        and not net.regularizer.active
        and not settings.groups
        and backend.storage == backend.dtype
    )


def _why_not(settings: Settings) -> str:
    """The reason why the product cannot include this update; "" if it can."""
    net, backend, name = settings.net, settings.net.backend, settings.optimizer.name
    decay, fold = net.regularizer.weight_decay(), settings.optimizer.fold
    in_theta = fold == "theta"
    reasons = {
        f"{name} needs the gradient in addition to its state": not fold,
        "with accumulate, further micro-batches read the weights before they move":
            in_theta and settings.accumulate > 1,
        "clip_norm needs the norm of the whole gradient first": settings.clip_norm is not None,
        "float16 skips a step whose gradient overflows": backend.scales_loss,
        f"the gradient of {net.regularizer.name} is not a multiple of θ": decay is None,
        f"with {name}, {net.regularizer.name} goes through the velocity":
            not in_theta and decay != 0,
        "groups give weights different learning rates": in_theta and len(settings.rates) > 1,
        "slots of 16 bits are rounded by the update": settings.slot_type != backend.dtype,
        "with shards, the weights move by the sum of several gradients": settings.shards.count > 1,
        "the update reads and writes θ and its remainder": settings.remainder,
        "NumPy's BLAS cannot be called directly here": not backend.folds,
    }  # fmt: skip
    return next((reason for reason, holds in reasons.items() if holds), "")
