"""The pass that adds embeddings to the book's loops.

The loops are those of a network whose input is h[0].  This pass computes h[0] from x before them,

    h[0] = the columns of x without codes, and the row of each code in its table E

and the gradient of the tables after gz[1], before the product that may change W[1]:

    gh[0] = gz[1] W[1], of the embedded columns alone;  ∇E[r] = the sum of gh[0] with code r
"""

from __future__ import annotations

import numpy as np

from gpumlp.backends.lookup import parts
from gpumlp.step.program import Buffer, Program
from gpumlp.step.recording import Minibatch, Model, ThetaBuffers


def look_up(program: Program, model: Model, s: Minibatch, d: ThetaBuffers | None) -> Program:
    """The program on one minibatch, with the embeddings of the network.

    d: where the gradients go; None if the program has no backward pass.
    """
    embeddings = model.embeddings
    if embeddings is None:
        return program
    out = Program()
    out.embed(s.x, model.rounded.E, embeddings, s.h[0])
    for op in program:
        if d is not None and op.name == "weight_gradient" and op["dW"] is d.W[1]:
            g = Buffer("gh0", (len(s.x), embeddings.added), s.h[0].dtype)
            out.input_gradient(op["gz"], model.rounded.W[1], g)
            out.embed_gradient(s.x, g, embeddings, *_scratch(model, len(s.x)), d.E)
        out.append(op)
    return out


def _scratch(model: Model, m: int) -> tuple[Buffer, Buffer]:
    """The buffers `order` and `sums` of `Backend.embed_gradient`."""
    embeddings = model.embeddings
    assert embeddings is not None
    order = Buffer("order of codes", (2, len(embeddings.each), m), np.dtype(np.int64))
    sums = Buffer("sums of rows", (parts(m), 2, embeddings.added), model.theta.flat.dtype)
    return order, sums
