"""How a step ends: where the gradients go, and how θ moves by them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gpumlp.backends import Backend
from gpumlp.functions import REGULARIZERS, Optimizer, Regularizer
from gpumlp.io.types import Array
from gpumlp.parameters import Parameters
from gpumlp.training.accumulating import Sink, Summed, Sums, Whole, biases
from gpumlp.training.groups import regions, table
from gpumlp.workspace import Workspace

if TYPE_CHECKING:
    from gpumlp.training.trainer import Trainer


def _follow(theta: Array, g: Array, lr: float) -> None:
    theta -= lr * g


# W ← W − η v for a velocity that is still needed: unlike sgd's, the rule leaves it as it is
FOLLOW = Optimizer("follow", rule=_follow, cuda_rule="theta -= lr * g;")


class Updating(Protocol):
    """One way.

    Attributes:
        sums: what takes the gradients of `backprop.backward`.
        work: arrays that the update works in, beside θ, its gradient and the slots.
    """

    sums: Sums
    work: Sequence[Array] = ()

    def finish(self, trainer: Trainer, s: Workspace, control: Array) -> None:
        """θ and the slots after the backward pass."""

    def splits(self, trainer: Trainer) -> bool:
        """Whether each layer's weights can be updated as soon as their gradient is there."""

    def early_update(self, trainer: Trainer, s: Workspace, control: Array) -> None:
        """Have the coming backward pass do so."""


class Apart(Updating):
    """All gradients go into a buffer of their own; clipping and the update are a pass each."""

    def __init__(self, trainer: Trainer) -> None:
        backend, layout = trainer.net.backend, trainer.net.theta.layout
        several = trainer.accumulate > 1
        self.d = d = Parameters.zeros(
            backend, layout, backend.dtype if several else backend.storage
        )
        self.sums: Sums = Whole(d)
        if several:
            self.sums = Summed(
                backend, layout, d.W, d.flat[layout.split :], None, d.on_weight_gradient
            )
        self._groups = table(backend, regions(layout, trainer.groups), 0, layout.size)

    def finish(self, trainer: Trainer, s: Workspace, control: Array) -> None:  # noqa: D102
        net, backend = trainer.net, trainer.net.backend
        theta, split = net.theta.flat, net.theta.layout.split
        if trainer.clip_norm is not None or backend.scales_loss:
            longest = math.inf if trainer.clip_norm is None else trainer.clip_norm
            backend.clip(net.regularizer, theta, self.d.flat, split, longest, s.scaling, control)
        biases = None if self.d.then is None else (split, len(theta))  # where weights have moved
        self._update(trainer, s, control, biases)
        self.d.then = None

    def splits(self, trainer: Trainer) -> bool:  # noqa: D102
        # clipping and the loss scale look at the whole gradient first
        return trainer.clip_norm is None and not trainer.net.backend.scales_loss

    def early_update(self, trainer: Trainer, s: Workspace, control: Array) -> None:  # noqa: D102
        backend, starts = trainer.net.backend, self.d.layout.starts

        def use(k: int) -> None:
            part = starts[k - 1], starts[k]
            backend.defer(lambda: self._update(trainer, s, control, part))

        self.d.then = use

    def _update(
        self, trainer: Trainer, s: Workspace, control: Array, part: tuple[int, int] | None
    ) -> None:
        net = trainer.net
        net.backend.update(
            trainer.optimizer, net.regularizer, net.theta.flat, net.rounded.flat, self.d.flat,
            trainer.slots, net.theta.layout.split, s.scaling, control, part, self._groups,
        )  # fmt: skip


class Orthogonalized(Apart):
    """Every layer's W but the last one's moves by its momentum made orthogonal, the rest by a rule.

    m ← μ m + ∇W, O ← about the orthogonal matrix nearest to ∇W + μ m, and
    W ← W − η (√max(1, n_out / n_in) O + λ W): a step's length is the same in all its directions.
    """

    def __init__(self, trainer: Trainer) -> None:
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
        self._of = [
            (V, math.sqrt(max(1, V.shape[0] / V.shape[1])), *self._places(*V.shape))
            for V in Parameters(layout, trainer.slots[-1]).W[1 : net.L]
        ]

    def _places(self, n_out: int, n_in: int) -> list[Array]:
        """X, A and P of `Backend.orthogonalize` for a W of that shape."""
        r = min(n_out, n_in)
        shapes = (n_out, n_in), (r, r), (r, r)
        return [a[: prod(s)].reshape(s) for a, s in zip(self.work, shapes, strict=True)]

    def splits(self, trainer: Trainer) -> bool:  # noqa: D102
        return False  # a rule for all matrices comes before the first is made orthogonal

    def _update(
        self, trainer: Trainer, s: Workspace, control: Array, part: tuple[int, int] | None
    ) -> None:
        net, backend, layout = trainer.net, trainer.net.backend, trainer.net.theta.layout
        matrices = 0, layout.starts[net.L - 1]
        super()._update(trainer, s, control, (matrices[1], layout.size))
        collect, turn = trainer.optimizer.of_matrices()

        def move(rule: Optimizer, regularizer: Regularizer) -> None:
            backend.update(
                rule, regularizer, net.theta.flat, net.rounded.flat, self.d.flat, trainer.slots,
                layout.split, s.scaling, control, matrices, self._groups,
            )  # fmt: skip

        move(collect, net.regularizer)
        for V, scale, X, A, P in self._of:
            backend.orthogonalize(V, scale, X, A, P)
        move(turn, REGULARIZERS["none"])


class Folded(Updating):
    """The product that computes a layer's ∇W adds it to W, or to the velocity, at once.

    So the weights' gradient is never stored, and "used for the update as soon as it is computed".
    SGD: W ← (1 − ηλ) W − η gzᵀ h.  Momentum: v ← μ v + gzᵀ h, and then W ← W − η v in one pass.
    """

    def __init__(self, trainer: Trainer) -> None:
        net, backend, layout = trainer.net, trainer.net.backend, trainer.net.theta.layout
        name, into = trainer.optimizer.fold, net.theta
        self._velocity = None
        if name != "theta":
            self._velocity = trainer.slots[trainer.optimizer.slots.index(name)]
            into = Parameters(layout, self._velocity)
        several = trainer.accumulate > 1
        kind = backend.dtype if several else backend.storage
        self._db = backend.full((layout.size - layout.split,), 0, kind)
        self.sums: Sums = Whole(Sink(into.W, biases(layout, self._db), trainer.factors))
        if several:
            self.sums = Summed(backend, layout, into.W, self._db, trainer.factors)
        within = regions(layout, trainer.groups)
        self._of_W = table(backend, within, 0, layout.split)
        self._of_b = table(backend, within, layout.split, layout.size)

    def finish(self, trainer: Trainer, s: Workspace, control: Array) -> None:  # noqa: D102
        net, backend = trainer.net, trainer.net.backend
        theta, rounded, slots = net.theta.flat, net.rounded.flat, trainer.slots
        split = net.theta.layout.split
        if self._velocity is None:
            backend.round(theta[:split], rounded[:split])
        else:
            backend.update(
                FOLLOW, REGULARIZERS["none"], theta[:split], rounded[:split],
                self._velocity[:split], slots[:0, :split], split, s.scaling, control,
                groups=self._of_W,
            )  # fmt: skip
        backend.update(
            trainer.optimizer, net.regularizer, theta[split:], rounded[split:], self._db,
            slots[:, split:], 0, s.scaling, control, groups=self._of_b,
        )  # fmt: skip

    def splits(self, trainer: Trainer) -> bool:  # noqa: D102
        return False  # nothing of them is left to do

    def early_update(self, trainer: Trainer, s: Workspace, control: Array) -> None:  # noqa: D102
        pass


def slot_type(backend: Backend, precision: str | None) -> np.dtype[Any]:
    """The type of the optimizer's state."""
    if precision is None:
        return backend.dtype
    if precision != "bfloat16":
        raise ValueError(f'slot_precision must be None or "bfloat16", got {precision!r}')
    if not backend.rounds_slots:
        raise ValueError(
            f'slot_precision="bfloat16" does not go with {backend.name} and {backend.precision}; '
            'use backend="cupy" and another precision than float64, or slot_precision=None'
        )
    from gpumlp.backends.cuda.source import dtype_of

    return dtype_of(precision)


def why_apart(trainer: Trainer) -> str:
    """Why this trainer's update cannot be folded into the product; "" where it can.

    It must be the same step: nothing may have to know the whole gradient before θ moves.
    """
    net, optimizer = trainer.net, trainer.optimizer
    decay = net.regularizer.weight_decay()
    if not optimizer.fold:
        return f"{optimizer.name} needs the gradient beside its state"
    if optimizer.fold == "theta" and trainer.accumulate > 1:
        return "with accumulate, further micro-batches read the weights before they move"
    if trainer.clip_norm is not None:
        return "clip_norm needs the norm of the whole gradient first"
    if net.backend.scales_loss:
        return "float16 skips a step whose gradient overflows"
    if decay is None:
        return f"the gradient of {net.regularizer.name} is no multiple of θ"
    if optimizer.fold != "theta" and decay != 0:
        return f"with {optimizer.name}, {net.regularizer.name} goes through the velocity"
    if optimizer.fold == "theta" and len(trainer.rates) > 1:
        return "groups give weights different learning rates"
    if trainer.slots.dtype != net.backend.dtype:
        return "slots of 16 bits are rounded by the update"
    if not net.backend.folds:
        return "NumPy's BLAS cannot be called directly here"
    return ""


def updating(trainer: Trainer, fold: bool | None) -> Updating:
    """The way for this trainer; fold: None where it can be, or what the caller insists on."""
    if fold is not None and not isinstance(fold, (bool, np.bool_)):
        raise TypeError(f"fold must be True, False or None, got {fold!r}")
    reason = why_apart(trainer)
    if fold and reason:
        raise ValueError(f"fold=True is not possible: {reason}; pass fold=None")
    if trainer.optimizer.orthogonal is not None and trainer.net.L > 1:
        return Orthogonalized(trainer)
    return Folded(trainer) if not reason and (fold is None or fold) else Apart(trainer)
