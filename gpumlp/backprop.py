"""Algorithms 6.3 and 6.4 of Goodfellow, Bengio and Courville, "Deep Learning" (2016).

This file holds the book's two loops and nothing else.  `gpumlp.step` records the operations that
they ask for, and a backend computes each on its device.  The operations are wider than the lines,
because one pass over memory can do the work of several:

    operation            lines of the algorithm
    affine_activation    z = b + W h,  h = f(z)
    output_gradient      gh = ∇_ŷ L,   gz = gh ⊙ f'(z),   ∇b = gz   (and the value of L)
    weight_gradient      ∇W = gz hᵀ
    hidden_gradient      gh = Wᵀ gz,   gz = gh ⊙ f'(z),   ∇b = gz   (one layer further down)

The backward loop is therefore the book's loop with its last line joined to the first two lines of
the next iteration.  That line comes before ∇W, so W has been read for the last time when ∇W is
computed, and ∇W may be added to W in place.  Rows are examples: for a minibatch, z is h Wᵀ + b,
∇W is gzᵀ h, and ∇b is the column sums of gz.  Lists are indexed by layer, 1 … L, and h[0] = x.
The book's two gradients g have two names here: gh = ∂J/∂h and gz = ∂J/∂z.
"""

from __future__ import annotations

from typing import Protocol

from gpumlp.backends import Backend
from gpumlp.functions import Activation, Loss, Regularizer
from gpumlp.io.types import Array


class Theta(Protocol):
    """θ or its gradient: a flat buffer, with the biases from `split` on, and its views."""

    flat: Array
    split: int
    W: list[Array]
    b: list[Array]


class Model(Protocol):
    """A network as the loops see it."""

    backend: Backend
    widths: tuple[int, ...]
    f: tuple[Activation, ...]
    loss: Loss
    regularizer: Regularizer

    @property
    def L(self) -> int:  # noqa: N802
        """The depth."""

    @property
    def theta(self) -> Theta:
        """The parameters."""

    @property
    def rounded(self) -> Theta:
        """θ as the matrix products read it: `theta` itself, or a copy in 16 bits."""


class State(Protocol):
    """The arrays of one minibatch: (m, n_k) for layer k.  Each loop fills them for the next."""

    z: list[Array]
    h: list[Array]
    gz: list[Array]
    gh: list[Array]
    y: Array
    weights: Array
    scaling: Array
    J: Array


class Destination(Protocol):
    """The arrays that receive the gradients.  For `factors` see `Backend.weight_gradient`."""

    @property
    def W(self) -> list[Array]:  # noqa: N802
        """∇W[k]."""

    @property
    def b(self) -> list[Array]:
        """∇b[k]."""

    @property
    def factors(self) -> Array | None:
        """None: the products overwrite W[k]."""


def forward(net: Model, s: State) -> Array:
    """Compute Algorithm 6.3 up to its last line, from h[0] = x; return ŷ = h[L], (m, n_L)."""
    backend, W, b, f, z, h = net.backend, net.rounded.W, net.rounded.b, net.f, s.z, s.h

    for k in range(1, net.L + 1):
        backend.affine_activation(h[k - 1], W[k], b[k], f[k], z[k], h[k])
    return h[net.L]


def loss(net: Model, s: State) -> None:
    """Compute the last line of Algorithm 6.3 without the regulariser: J ← J + L(ŷ, y)."""
    net.backend.loss(net.loss, s.h[net.L], s.y, s.weights, s.J)


def backward(net: Model, s: State, d: Destination) -> None:
    """Algorithm 6.4, after `forward`: d.W[k] ← ∇_W[k] L, d.b[k] ← ∇_b[k] L, J ← J + L(ŷ, y).

    The book adds λ∇Ω layer by layer.  Here it is one pass over the flat θ: `penalty`, or a part of
    the update.
    """
    backend, W, f, z, h, gz, gh = net.backend, net.rounded.W, net.f, s.z, s.h, s.gz, s.gh
    L = net.L

    backend.output_gradient(
        net.loss, f[L], z[L], h[L], s.y, s.weights, s.scaling, gh[L], gz[L], d.b[L], s.J
    )
    for k in range(L, 1, -1):
        backend.hidden_gradient(
            gz[k], W[k], f[k - 1], z[k - 1], h[k - 1], gh[k - 1], gz[k - 1], d.b[k - 1]
        )
        backend.weight_gradient(gz[k], h[k - 1], d.W[k], d.factors)
    backend.weight_gradient(gz[1], h[0], d.W[1], d.factors)


def penalty(net: Model, J: Array, d: Theta | None) -> None:
    """Add the regulariser's terms: J ← J + λΩ(θ) and, if d is given, d ← d + λ∇Ω(θ)."""
    theta, gradient = net.theta, None if d is None else d.flat
    net.backend.penalty(net.regularizer, theta.flat, theta.split, J, gradient)
