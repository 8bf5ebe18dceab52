"""The book's loops, recorded, and what the blocks and embeddings of a network change in them.

The loops are those of a plain network: h[k] = f(W[k] h[k−1] + b[k]).  Blocks are norms, gates,
dropout and skips.  Their pass changes the operations of layers with a `Block`:

    forward     n[k] = N(h[k−1]),  a[k] = f(W[k] n[k] + b[k]) or its gate,  h[k] = s + D(a[k])
    backward    gh[k] = ∂J/∂h[k] is the sum of what comes through W[k+1] and N, and through the
                skips that begin at h[k];  ga[k] = D(gh[k]);  gz[k] = ga[k] ⊙ f'(z[k])

The pass of embeddings computes h[0] from x before the loops, and the gradient of the tables after
gz[1], before the product that may change W[1]:

    h[0] = the columns of x without codes, and the row of each code in its table E
    gh[0] = gz[1] W[1], of the embedded columns alone;  ∇E[r] = the sum of gh[0] with code r

Plain layers keep their operations.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp import backprop
from gpumlp.backends.stages import parts
from gpumlp.functions.activations import identity
from gpumlp.functions.blocks import Block
from gpumlp.functions.stages import ColumnStage, Stage
from gpumlp.step.columns import Statistics
from gpumlp.step.program import Buffer, Op, Program
from gpumlp.step.recording import Minibatch, Model, ThetaBuffers


@dataclass
class Noise:
    """What the masks of dropout depend on, in addition to the entry: see `Backend.dropout`.

    Attributes:
        seed, control: buffers; the last number of `control` is the step.
        row: the first row's number in the minibatch.
    """

    seed: Buffer
    control: Buffer
    row: int = 0


def loops(
    model: Model, s: Minibatch, d: ThetaBuffers | None = None, noise: Noise | None = None,
    statistics: Statistics | None = None, part: int = 0,
) -> Program:  # fmt: skip
    """The program of the loops on one minibatch, with the blocks and embeddings of the network.

    d: where the gradients go; None: the forward pass alone, with L if there are targets.
    noise: None: nothing is dropped.
    statistics: of norms over columns, and the number of this micro-batch among its parts; None:
        they read their running averages.
    """
    recorded = copy.copy(model)
    recorded.backend = program = Program()
    backprop.forward(recorded, s)
    if d is not None:
        backprop.backward(recorded, s, d)
    elif s.y is not None:
        backprop.loss(recorded, s)
    if model.blocks:
        program = _Expansion(model, s, d, noise, statistics, part)(program)
    return program if model.embeddings is None else _look_up(program, model, s, d)


class _Expansion:
    def __init__(
        self, model: Model, s: Minibatch, d: ThetaBuffers | None, noise: Noise | None,
        statistics: Statistics | None, part: int,
    ) -> None:  # fmt: skip
        self._statistics, self._part, self._running = statistics, part, model.theta.s
        self._theta, self._s, self._d, self._noise = model.rounded, s, d, noise
        self._blocks: dict[int, Block] = dict(enumerate(model.blocks, 1))
        self._layer = {id(W): k for k, W in enumerate(model.rounded.W) if k}
        self._of_gradient = {} if d is None else {id(W): k for k, W in enumerate(d.W) if k}
        self._below = list(s.h)  # what W[k + 1] multiplies: h[k], or its norm
        self._kept: dict[int, tuple[Buffer, Buffer, Buffer]] = {}  # z, a and, before a gate, u
        self._skipped: dict[int, Buffer] = {}  # ∂J/∂h[j − skip] through the skip of layer j
        self._out = Program()

    def __call__(self, program: Program) -> Program:
        for op in program:
            if op.name == "affine_activation":
                self._forward(op, self._layer[id(op["W"])])
            elif op.name == "hidden_gradient":
                self._backward(op, self._layer[id(op["W_above"])] - 1)
            elif op.name == "weight_gradient":
                k = self._of_gradient[id(op["dW"])]
                self._out.append(op.having(gz=self._s.gz[k], h_below=self._below[k - 1]))
            else:
                self._out.append(op)
        return self._out

    # ---- forward ------------------------------------------------------------------------------

    def _forward(self, op: Op, k: int) -> None:
        block, below, out = self._blocks[k], op["h_below"], self._out
        if block.norm is not None:
            n = self._below[k - 1] = _like(below, f"n{k}")
            self._normalize(k, block.norm, below, n)
            below = n
        h, z = op["h"], op["z"]
        a = _like(h, f"a{k}") if self._drops(k) or block.skip else h
        u = a
        if block.gate is None:
            z = a if z is h else z
            out.append(op.having(h_below=below, z=z, h=a))
        else:
            u = Buffer(f"u{k}", (len(h), 2 * h.shape[1]), h.dtype)
            out.append(op.having(h_below=below, z=u, h=u))
            out.stage(block.gate, u, None, a)
        self._kept[k] = z, a, u
        if a is not h:
            self._after(k, a, h)

    def _normalize(self, k: int, norm: Stage, x: Buffer, n: Buffer) -> None:
        """n ← N(x), for the norm of layer k."""
        phi, found, j = self._theta.phi[k], self._statistics, self._part
        if not isinstance(norm, ColumnStage):
            self._out.stage(norm, x, phi, n)
            return
        s = running = self._running[k]
        if found is not None:
            s = found.s[k]
            for i, total in enumerate(found.sums[k]):
                place, before = found.place(total, k, j), s.rows(i) if i else None
                if norm.moments:
                    self._out.column_moments(norm, x, place, running if found.alone else None)
                else:
                    self._out.column_mean(norm, i, x, before, found.of, place)
        self._out.columns(norm, x, phi, s, n)

    def _drops(self, k: int) -> bool:
        return self._noise is not None and self._blocks[k].dropout > 0

    def _after(self, k: int, a: Buffer, h: Buffer) -> None:
        """h ← s + D(a)."""
        block, out = self._blocks[k], self._out
        s = self._s.h[k - block.skip] if block.skip else None
        if block.projects:
            projected = _like(h, f"s{k}")
            own = self._theta.P[k], self._theta.c[k]
            out.affine_activation(s, *own, identity, projected, projected)
            s = projected
        if self._drops(k):
            self._dropout(k, a, s, h)
        else:
            out.join(a, s, h)

    def _dropout(self, k: int, x: Buffer, skip: Buffer | None, y: Buffer) -> None:
        noise, rate = self._noise, self._blocks[k].dropout
        assert noise is not None
        self._out.dropout(x, rate, k, noise.row, noise.seed, noise.control, skip, y)

    # ---- backward -----------------------------------------------------------------------------

    def _backward(self, op: Op, k: int) -> None:
        """gh[k] from layer k + 1 and the skips, then gz[k] and ∇b[k]."""
        above, block, out, s = self._blocks[k + 1], self._blocks[k], self._out, self._s
        gz_above, h = s.gz[k + 1], s.h[k]
        from_skips = [
            j for j, other in self._blocks.items() if other.skip and j - other.skip == k
        ]  # fmt: skip
        if above.norm is None and block.plain and not from_skips:
            out.append(op.having(gz_above=gz_above))
            return
        g = self._total(op, k, from_skips)
        if block.projects:
            self._project(k)
        if self._drops(k):
            ga = _like(h, f"ga{k}")
            self._dropout(k, g, None, ga)
            g = ga
        z, a, u = self._kept[k]
        if block.gate is None:
            out.activation_gradient(op["f"], z, a, g, op["gz"], op["db"])
            return
        gu = s.gz[k] = _like(u, f"gz{k}")
        out.stage_gradient(block.gate, u, None, g, None, gu, op["db"])

    def _total(self, op: Op, k: int, from_skips: list[int]) -> Buffer:
        """gh[k] ← the sum of the gradients that reach h[k]."""
        above, out, h = self._blocks[k + 1], self._out, self._s.h[k]
        assert self._d is not None
        skipped = [self._skipped[j] for j in from_skips]
        # gz[k] may not take its memory: what a skip adds to gh below is still to be read
        last = _like(h, f"gh{k}") if op["gh"] is op["gz"] else op["gh"]
        joins = max(0, len(skipped) - (above.norm is not None))
        g = last if above.norm is None and not joins else _like(h, f"gn{k + 1}")
        out.input_gradient(self._s.gz[k + 1], op["W_above"], g)
        if above.norm is not None:
            to = _like(h, f"gh{k} of layer {k + 1}") if joins else last
            skip = skipped.pop(0) if skipped else None
            self._through_norm(k + 1, above.norm, h, g, skip, to)
            g = to
        for j, each in enumerate(skipped, 1):
            to = last if j == joins else _like(h, f"part of gh{k}")
            out.join(g, each, to)
            g = to
        self._skipped[k] = g
        return g

    def _through_norm(
        self, k: int, norm: Stage, x: Buffer, gy: Buffer, skip: Buffer | None, gx: Buffer
    ) -> None:
        """gx ← the gradient of x through the norm of layer k, plus a skip; and dφ."""
        assert self._d is not None
        phi, dphi, found, out = self._theta.phi[k], self._d.phi[k], self._statistics, self._out
        if not isinstance(norm, ColumnStage):
            out.stage_gradient(norm, x, phi, gy, skip, gx, dphi)
        elif found is None:
            s = self._running[k]
            out.column_slopes(norm, x, phi, gy, s, len(x), None, dphi)
            out.columns_gradient(norm, x, phi, gy, s, None, skip, gx)
        else:
            s, t = found.s[k], found.t[k]
            place = found.place(t, k, self._part)
            out.column_slopes(norm, x, phi, gy, s, found.of, place, dphi)
            out.columns_gradient(norm, x, phi, gy, s, t, skip, gx)

    def _project(self, k: int) -> None:
        """The gradients of the linear layer of a skip, and what it gives to the skip's source."""
        assert self._d is not None
        g, source = self._skipped[k], self._s.h[k - self._blocks[k].skip]
        through = self._skipped[k] = _like(source, f"gs{k}")
        self._out.input_gradient(g, self._theta.P[k], through)  # before ∇P, which may change P
        self._out.weight_gradient(g, source, self._d.P[k], self._d.factors)
        self._out.activation_gradient(identity, g, g, g, g, self._d.c[k])


# ---- embeddings ----------------------------------------------------------------------------------


def _look_up(program: Program, model: Model, s: Minibatch, d: ThetaBuffers | None) -> Program:
    """The program with the embeddings of the network."""
    embeddings, m, out = model.embeddings, len(s.x), Program()
    assert embeddings is not None
    out.embed(s.x, model.rounded.E, embeddings, s.h[0])
    for op in program:
        if d is not None and op.name == "weight_gradient" and op["dW"] is d.W[1]:
            g = Buffer("gh0", (m, embeddings.added), s.h[0].dtype)
            order = Buffer("order of codes", (2, len(embeddings.each), m), np.dtype(np.int64))
            sums = Buffer("sums of rows", (parts(m), 2, embeddings.added), model.theta.flat.dtype)
            out.input_gradient(op["gz"], model.rounded.W[1], g)
            out.embed_gradient(s.x, g, embeddings, order, sums, d.E)
        out.append(op)
    return out


def _like(a: Any, name: str) -> Buffer:
    """A new buffer with the shape of another one."""
    return Buffer(name, a.shape, a.dtype)
