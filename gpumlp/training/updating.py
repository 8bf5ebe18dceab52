"""The end of a step: how its gradients change θ and the optimizer's state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np

from gpumlp.functions import REGULARIZERS, Optimizer, Regularizer
from gpumlp.io.types import Array
from gpumlp.network import MLP
from gpumlp.parameters import Layout, Parameters
from gpumlp.training.groups import Group, table


class Updated(Protocol):
    """What an update reads of a `Trainer`, which documents each."""

    net: MLP
    optimizer: Optimizer
    accumulate: int
    clip_norm: float | None
    groups: dict[str, Group]
    rates: set[float]
    slots: Array
    factors: Array
    scaling: Array


def _follow(theta: Array, g: Array, lr: float) -> None:
    theta -= lr * g


# W ← W − η v for a velocity that is still needed: unlike the rule of sgd, this one keeps it
FOLLOW = Optimizer("follow", rule=_follow, cuda_rule="theta -= lr * g;")


def _nothing(k: int) -> None:
    pass


@dataclass
class Sink:
    """The destination of ∇W[k], or of α ∇W[k] + β W[k] for (α, β) = factors, and of ∇b[k].

    Attributes:
        W, b: indexed by layer k = 1 … L.
        on_weight_gradient: called with k when ∇W[k] is computed.
    """

    W: list[Array]
    b: list[Array]
    factors: Array | None
    on_weight_gradient: Callable[[int], None] = _nothing


class Updating(ABC):
    """One kind of update, and the gradients of a step that it uses.

    The gradients of micro-batches are summed: the products add ∇W, and one launch per micro-batch
    adds ∇b.

    Args:
        trainer: the trainer.
        W: where ∇W or its sum goes, indexed by layer.
        db: (p − split,): where ∇b or its sum goes.
        factors: those of a step's first micro-batch, see `Backend.weight_gradient`.

    Attributes:
        splits: whether each layer's weights can be updated as soon as their gradient is computed.
        work: the arrays that the update needs in addition to θ, its gradient and the slots.
    """

    splits = False
    work: Sequence[Array] = ()

    def __init__(self, trainer: Updated, W: list[Array], db: Array, factors: Array | None) -> None:
        self._backend, self._db, self._part = trainer.net.backend, db, db
        several = trainer.accumulate > 1
        if several:
            self._part = self._backend.full(db.shape, 0, self._backend.storage)
        b = _biases(trainer.net.theta.layout, self._part)
        self._first = self._further = Sink(W, b, factors)
        if several:
            self._further = Sink(W, b, self._backend.full((2,), 1))

    def into(self, j: int) -> Sink:
        """Where `backprop.backward` writes the gradients of micro-batch j = 0, 1, … of a step."""
        return self._further if j else self._first

    def add(self, j: int) -> None:
        """Add the gradients of micro-batch j, after its backward pass."""
        if self._part is not self._db:
            self._backend.add(self._part, self._db, j == 0)

    def early_update(self, trainer: Updated, control: Array, j: int) -> None:
        """Let the backward pass of micro-batch j, the last, update each layer's weights early.

        Only an update that `splits` does so.
        """
        return

    @abstractmethod
    def finish(self, trainer: Updated, control: Array) -> None:
        """Update all of θ, and of the slots, that was not updated early."""


class Apart(Updating):
    """All gradients go into a separate buffer; clipping and the update take one pass each."""

    splits = True

    def __init__(self, trainer: Updated) -> None:
        backend, layout = trainer.net.backend, trainer.net.theta.layout
        kind = backend.dtype if trainer.accumulate > 1 else backend.storage
        self.d = Parameters.zeros(backend, layout, kind)
        super().__init__(trainer, self.d.W, self.d.flat[layout.split :], None)
        self._early: Sink | None = None
        self._groups = table(backend, layout, trainer.groups, 0, layout.size)

    def finish(self, trainer: Updated, control: Array) -> None:  # noqa: D102
        net, backend = trainer.net, trainer.net.backend
        theta, split = net.theta.flat, net.theta.layout.split
        if trainer.clip_norm is not None or backend.scales_loss:
            longest = math.inf if trainer.clip_norm is None else trainer.clip_norm
            omega, scaling = net.regularizer, trainer.scaling
            backend.clip(omega, theta, self.d.flat, split, longest, scaling, control)
        # after an early update of the weights, only the biases are left
        self._update(trainer, control, (split, len(theta)) if self._early else None)
        if self._early:
            self._early.on_weight_gradient, self._early = _nothing, None

    def early_update(self, trainer: Updated, control: Array, j: int) -> None:  # noqa: D102
        backend, starts = trainer.net.backend, self.d.layout.starts

        def use(k: int) -> None:
            part = starts[k - 1], starts[k]
            backend.defer(lambda: self._update(trainer, control, part))

        self._early = self.into(j)
        self._early.on_weight_gradient = use

    def _update(self, trainer: Updated, control: Array, part: tuple[int, int] | None) -> None:
        self._apply(trainer.optimizer, trainer.net.regularizer, trainer, control, part)

    def _apply(
        self, rule: Optimizer, regularizer: Regularizer, trainer: Updated, control: Array,
        part: tuple[int, int] | None,
    ) -> None:  # fmt: skip
        net = trainer.net
        net.backend.update(
            rule, regularizer, net.theta.flat, net.rounded.flat, self.d.flat, trainer.slots,
            net.theta.layout.split, trainer.scaling, control, part, self._groups,
        )  # fmt: skip


class Orthogonalized(Apart):
    """Each W but the last moves by its momentum, made orthogonal; the rest follows AdamW's rule.

    m ← μ m + ∇W, O ← about the orthogonal matrix nearest to ∇W + μ m, and
    W ← W − η (√max(1, n_out / n_in) O + λ W): a step has the same length in all its directions.
    """

    splits = False  # one launch updates the momentum of all matrices before the first product

    def __init__(self, trainer: Updated) -> None:
        super().__init__(trainer)
        net, backend, layout = trainer.net, trainer.net.backend, trainer.net.theta.layout
        if trainer.slots.dtype != backend.dtype:
            raise ValueError(
                f"slot_precision={trainer.slots.dtype.name!r} does not go with "
                f"{trainer.optimizer.name}, whose products are of θ's type; use slot_precision=None"
            )
        shapes = layout.shapes[: net.L - 1]
        most, r = max(map(prod, shapes)), max(min(shape) for shape in shapes)
        self.work = [backend.empty((n,)) for n in (most, r * r, r * r)]
        self._matrices = [
            (V, math.sqrt(max(1, V.shape[0] / V.shape[1])), *self._buffers(*V.shape))
            for V in Parameters(layout, trainer.slots[-1]).W[1 : net.L]
        ]

    def _buffers(self, n_out: int, n_in: int) -> list[Array]:
        """X, A and P of `Backend.orthogonalize` for a W of that shape."""
        r = min(n_out, n_in)
        shapes = (n_out, n_in), (r, r), (r, r)
        return [a[: prod(s)].reshape(s) for a, s in zip(self.work, shapes, strict=True)]

    def _update(self, trainer: Updated, control: Array, part: tuple[int, int] | None) -> None:
        net, layout = trainer.net, trainer.net.theta.layout
        end = layout.starts[net.L - 1]
        super()._update(trainer, control, (end, layout.size))
        collect, move = trainer.optimizer.of_matrices()
        self._apply(collect, net.regularizer, trainer, control, (0, end))
        for V, scale, X, A, P in self._matrices:
            net.backend.orthogonalize(V, scale, X, A, P)
        self._apply(move, REGULARIZERS["none"], trainer, control, (0, end))


class Folded(Updating):
    """The product that computes a layer's ∇W adds it directly to W, or to the velocity.

    The weights' gradient is never stored; it is "used for the update as soon as it is computed".
    SGD: W ← (1 − ηλ) W − η gzᵀ h.  Momentum: v ← μ v + gzᵀ h, and then W ← W − η v in one pass.
    """

    def __init__(self, trainer: Updated) -> None:
        net, backend, layout = trainer.net, trainer.net.backend, trainer.net.theta.layout
        name, into = trainer.optimizer.fold, net.theta
        self._velocity = None
        if name != "theta":
            self._velocity = trainer.slots[trainer.optimizer.slots.index(name)]
            into = Parameters(layout, self._velocity)
        kind = backend.dtype if trainer.accumulate > 1 else backend.storage
        db = backend.full((layout.size - layout.split,), 0, kind)
        super().__init__(trainer, into.W, db, trainer.factors)
        self._groups_of_W = table(backend, layout, trainer.groups, 0, layout.split)
        self._groups_of_b = table(backend, layout, trainer.groups, layout.split, layout.size)

    def finish(self, trainer: Updated, control: Array) -> None:  # noqa: D102
        net, backend, scaling = trainer.net, trainer.net.backend, trainer.scaling
        theta, rounded, slots = net.theta.flat, net.rounded.flat, trainer.slots
        split = net.theta.layout.split
        if self._velocity is None:
            backend.round(theta[:split], rounded[:split])
        else:
            backend.update(
                FOLLOW, REGULARIZERS["none"], theta[:split], rounded[:split],
                self._velocity[:split], slots[:0, :split], split, scaling, control,
                groups=self._groups_of_W,
            )  # fmt: skip
        backend.update(
            trainer.optimizer, net.regularizer, theta[split:], rounded[split:], self._db,
            slots[:, split:], 0, scaling, control, groups=self._groups_of_b,
        )  # fmt: skip


def _biases(layout: Layout, flat: Array) -> list[Array]:
    """The views b[k], k = 1 … L, of a buffer that holds the biases only; b[0] is None."""
    depth = len(layout.widths) - 1
    starts = [start - layout.split for start in layout.starts[depth:-1]]
    sizes = [prod(shape) for shape in layout.shapes[depth:]]
    return [None, *(flat[i : i + n] for i, n in zip(starts, sizes, strict=True))]


def why_apart(trainer: Updated) -> str:
    """The reason why the product cannot include this trainer's update; "" if it can."""
    net, backend, name = trainer.net, trainer.net.backend, trainer.optimizer.name
    decay, fold = net.regularizer.weight_decay(), trainer.optimizer.fold
    in_theta = fold == "theta"
    reasons = {
        f"{name} needs the gradient in addition to its state": not fold,
        "with accumulate, further micro-batches read the weights before they move":
            in_theta and trainer.accumulate > 1,
        "clip_norm needs the norm of the whole gradient first": trainer.clip_norm is not None,
        "float16 skips a step whose gradient overflows": backend.scales_loss,
        f"the gradient of {net.regularizer.name} is not a multiple of θ": decay is None,
        f"with {name}, {net.regularizer.name} goes through the velocity":
            not in_theta and decay != 0,
        "groups give weights different learning rates": in_theta and len(trainer.rates) > 1,
        "slots of 16 bits are rounded by the update": trainer.slots.dtype != backend.dtype,
        "NumPy's BLAS cannot be called directly here": not backend.folds,
    }  # fmt: skip
    return next((reason for reason, holds in reasons.items() if holds), "")


def updating(trainer: Updated, fold: bool | None) -> Updating:
    """The kind of update for this trainer; `fold` as in `Trainer`."""
    if fold is not None and not isinstance(fold, (bool, np.bool_)):
        raise TypeError(f"fold must be True, False or None, got {fold!r}")
    reason = why_apart(trainer)
    if fold and reason:
        raise ValueError(f"fold=True is not possible: {reason}; pass fold=None")
    if trainer.optimizer.orthogonal is not None and trainer.net.L > 1:
        return Orthogonalized(trainer)
    return Folded(trainer) if not reason and (fold is None or fold) else Apart(trainer)
