"""Folding: the product that computes ∇W adds it to the weights, or to their velocity."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.functions import REGULARIZERS, Optimizer
from gpumlp.functions.optimizers import FOLLOW
from gpumlp.step.program import Buffer, Op, Program, op
from gpumlp.step.recording import ThetaBuffers
from gpumlp.step.settings import Settings
from gpumlp.step.sharding import Groups


def fold(
    program: Program, gradient: ThetaBuffers, into: ThetaBuffers, db: Buffer, factors: Buffer,
    groups: Groups,
) -> Program:  # fmt: skip
    """The pass: the product that computes ∇W[k] adds it to `into`, which is θ or its velocity.

    It computes W ← α ∇W + β W for (α, β) = factors; in further micro-batches it adds ∇W.  The rest
    of the gradient is in `db`, whose part of θ alone is updated as usual.  If `db` ends before the
    tables of embeddings, their gradient is added to `into`, too.
    """
    split, W = gradient.split, dict(zip(gradient.matrices, into.matrices, strict=True))
    out = Program()
    for each in program:
        if each.name == "update":
            out += _updates(each, into, db, groups)
            continue
        if each.name == "weight_gradient" and each["dW"] in W:
            each = each.having(dW=W[each["dW"]], factors=each["factors"] or factors)
        rest: dict[str, Any] = {
            name: db.part(b.name, b.start - split, b.shape) for name, b in each.buffers.items()
            if b.root is gradient.flat.root and split <= b.start < split + db.size
        }  # fmt: skip
        if each.name == "embed_gradient" and each["dE"] is gradient.E:
            rest = rest or {"dE": into.E, "factors": factors}
        out.append(each.having(**rest))
    return out


def _updates(update: Op, into: ThetaBuffers, db: Buffer, groups: Groups) -> list[Op]:
    """SGD: W ← (1 − ηλ) W − η gzᵀ h.  Momentum: v ← μ v + gzᵀ h, then W ← W − η v in a pass."""
    theta, rounded, split = update["theta"], update["rounded"], update["split"]

    def part(rule: Optimizer, begin: int, end: int, **others: Any) -> Op:
        n = end - begin
        return update.having(
            optimizer=rule, theta=theta.rows(n, begin), rounded=rounded.rows(n, begin),
            slots=update["slots"].part("slots", begin, (len(rule.slots), n)), split=split - begin,
            groups=groups.get((begin, end)), **others,
        )  # fmt: skip

    of_weights = []
    if into.flat is not theta:
        v, none = into.flat.rows(split), REGULARIZERS["none"]
        of_weights = [part(FOLLOW, 0, split, dtheta=v, regularizer=none)]
    elif rounded is not theta:
        of_weights = [op("round", theta.rows(split), rounded.rows(split))]
    return [*of_weights, part(update["optimizer"], split, split + db.size, dtheta=db)]


def folds(settings: Settings) -> bool:
    """Whether a step folds its update; the argument `fold` of `Trainer` is checked."""
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
