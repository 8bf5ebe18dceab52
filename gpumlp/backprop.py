"""Algorithms 6.3 and 6.4 of Goodfellow, Bengio and Courville, "Deep Learning" (2016).

The book's two loops and nothing else.  A backend (`gpumlp.backends`) does each line on its own device;
its operations are wider than the book's lines, because one pass over memory can do several of them:

    operation                 lines of the algorithm
    affine_activation    z = b + W h,  h = f(z)
    output_gradient      gh = ∇_ŷ L,   gz = gh ⊙ f'(z),   ∇b = gz   (and the value of L, for free)
    weight_gradient      ∇W = gz hᵀ
    hidden_gradient      gh = Wᵀ gz,   gz = gh ⊙ f'(z),   ∇b = gz   (one layer further down)

So the backward loop is the book's with its last line joined to the next turn's first two, and comes
before ∇W, which may then be added to W in place: W has been read for the last time.  Rows are
examples: a minibatch's z is h Wᵀ + b, its ∇W is gzᵀ h, and its ∇b the column sums of gz.

Lists are indexed by layer, 1 … L, and h[0] = x.  The book's two uses of g are kept apart:
gh = ∂J/∂h and gz = ∂J/∂z.
"""

from __future__ import annotations

from typing import Protocol

from gpumlp.backends import Backend
from gpumlp.functions import Activation, Loss, Regularizer
from gpumlp.io.types import Array
from gpumlp.parameters import Parameters


class Model(Protocol):
    """What the loops need of a network; `rounded` is θ as the products read it."""

    backend: Backend
    rounded: Parameters
    theta: Parameters
    f: list[Activation]
    loss: Loss
    regularizer: Regularizer

    @property
    def L(self) -> int:  # noqa: N802
        """The depth."""


class State(Protocol):
    """What the loops leave for each other: one minibatch's arrays, (m, n_k) for layer k."""

    z: list[Array]
    h: list[Array]
    gz: list[Array]
    gh: list[Array]
    y: Array
    weights: Array
    scaling: Array
    J: Array

    def recompute(self, k: int) -> Array:
        """h[k], computed from z[k] again where it was not kept."""


class Destination(Protocol):
    """Where gradients go: lists indexed by layer.  factors: see `Backend.weight_gradient`."""

    W: list[Array]
    b: list[Array]
    factors: Array | None

    def on_weight_gradient(self, k: int) -> None:
        """∇W[k] is there, W[k] is not read again: the gradient may be used at once."""


def forward(net: Model, s: State) -> Array:
    """Algorithm 6.3 up to its last line: from h[0] = x to ŷ = h[L], (m, n_L), which it returns."""
    backend, W, b, f, z, h = net.backend, net.rounded.W, net.rounded.b, net.f, s.z, s.h

    for k in range(1, net.L + 1):
        backend.affine_activation(h[k - 1], W[k], b[k], f[k], z[k], h[k])
    return h[net.L]


def loss(net: Model, s: State) -> None:
    """Algorithm 6.3's last line, but for the regulariser: J ← J + L(ŷ, y)."""
    net.backend.loss(net.loss, s.h[net.L], s.y, s.weights, s.J)


def backward(net: Model, s: State, d: Destination) -> None:
    """Algorithm 6.4 after a forward pass: d.W[k] ← ∇_W[k] L, d.b[k] ← ∇_b[k] L, J ← J + L(ŷ, y).

    λ∇Ω, which the book adds layer by layer, is one pass over the flat θ: see `penalty`, or let the
    update do it.
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
        backend.weight_gradient(gz[k], s.recompute(k - 1), d.W[k], d.factors)
        d.on_weight_gradient(k)
    backend.weight_gradient(gz[1], h[0], d.W[1], d.factors)
    d.on_weight_gradient(1)


def penalty(net: Model, s: State, d: Parameters | None) -> None:
    """The terms of Ω: J ← J + λΩ(θ) and, where d is given, d ← d + λ∇Ω(θ)."""
    theta = net.theta

    net.backend.penalty(
        net.regularizer, theta.flat, theta.layout.split, s.J, None if d is None else d.flat
    )
