"""Passes: functions from a program to a program with the same result.

Each says what it looks for and what it changes.  `training.TrainingStep` puts them in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from gpumlp.backends import Backend
from gpumlp.functions import REGULARIZERS, Optimizer
from gpumlp.step.program import Buffer, Op, Program, op
from gpumlp.step.recording import ThetaBuffers

TILE = 128  # rows and columns of the result that a multiprocessor computes in a large product
# An estimate: bytes of the updates for each FLOP beside them that need an eighth of the device.
# 28 bytes a parameter get 16 of 132 at minibatch 8,192 and 4,096, 32 at 2,048 and 48 at 1,024.
EIGHTH = 2.3e-3


def recompute(program: Program) -> Program:
    """memory="low": a weight gradient reads an h that is computed again from z just before it.

    Each h[k] = f(z[k]) whose f' reads z alone is then free from the forward pass on.  The h of the
    last hidden layer is still at hand, since the backward pass begins there.
    """
    made = {
        each["h"]: each for each, *next_two in zip(program, program[1:], program[2:], strict=False)
        if all(layer.name == "affine_activation" for layer in (each, *next_two))
        and each["f"].elementwise and each["f"].reads == "z"
    }  # fmt: skip
    out = Program()
    for each in program:
        if each.name == "hidden_gradient" and each["h"] in made:
            each = each.having(h=each["z"])
        if each.name == "weight_gradient" and (layer := made.get(each["h_below"])):
            h = layer["h"]
            again = Buffer(f"{h.name} again", h.shape, h.dtype)
            out.append(op("activation", layer["f"], layer["z"], again))
            each = each.having(h_below=again)
        out.append(each)
    return out


def fold(
    program: Program, gradient: ThetaBuffers, into: ThetaBuffers, db: Buffer, factors: Buffer,
    updates: Sequence[Op],
) -> Program:  # fmt: skip
    """The product that computes ∇W[k] adds it to `into`, which is θ or its velocity.

    It computes W ← α ∇W + β W for (α, β) = factors; in further micro-batches it adds ∇W.  ∇b goes
    to `db`, and `updates` take the place of the update.
    """
    split, W = gradient.split, dict(zip(gradient.W, into.W, strict=True))
    biases = {each: db.part(each.name, each.start - split, each.shape) for each in gradient.b[1:]}
    out = Program()
    for each in program.substituted(biases):
        if each.name == "weight_gradient":
            each = each.having(dW=W[each["dW"]], factors=each["factors"] or factors)
        elif each.name == "add":
            each = each.having(total=db)
        out.extend(updates if each.name == "update" else [each])
    return out


def orthogonalize(program: Program, optimizer: Optimizer, velocity: ThetaBuffers) -> Program:
    """Each W but the last moves by its momentum, made orthogonal; the rest by the usual update.

    m ← μ m + ∇W, O ← about the orthogonal matrix nearest to ∇W + μ m, and
    W ← W − η (√max(1, n_out / n_in) O + λ W): a step has the same length in all its directions.
    """
    matrices, dtype = velocity.W[1:-1], velocity.flat.dtype
    most, r = max(V.size for V in matrices), max(min(V.shape) for V in matrices)
    X, A, P = (Buffer(name, (n,), dtype) for name, n in (("X", most), ("A", r * r), ("P", r * r)))
    end = velocity.W[-1].start - velocity.flat.start
    collect, move = optimizer.of_matrices()
    out = Program()
    for each in program:
        if each.name != "update":
            out.append(each)
            continue
        out.append(each.having(part=(end, each["theta"].size)))
        out.append(each.having(optimizer=collect, part=(0, end)))
        for V in matrices:
            n_out, n_in = V.shape
            square = (min(V.shape), min(V.shape))
            buffers = X.part("X", 0, V.shape), A.part("A", 0, square), P.part("P", 0, square)
            out.orthogonalize(V, math.sqrt(max(1, n_out / n_in)), *buffers)
        last = each.having(optimizer=move, regularizer=REGULARIZERS["none"], part=(0, end))
        out.append(last)
    return out


def early_update(program: Program, gradient: ThetaBuffers) -> Program:
    """Each W[k] is updated as soon as its gradient is complete, beside the backward pass.

    It changes a program with one update of all parameters, which needs no norm of the gradient.
    """
    updates = [each for each in program if each.name == "update"]
    clipped = any(each.name == "clip" for each in program)
    if clipped or [each["dtheta"] for each in updates] != [gradient.flat]:
        return program
    (update,) = updates
    starts = [*(W.start for W in gradient.W[1:]), gradient.split]
    parts = dict(zip(gradient.W[1:], pairwise(starts), strict=True))
    last = {each["dW"]: each for each in program if each.name == "weight_gradient"}
    out = Program()
    for each in program:
        if each is update:
            each = each.having(part=(gradient.split, gradient.flat.size))
        out.append(each)
        if each in last.values():
            out.append(update.having(part=parts[each["dW"]]))
    return out


def update_in_product(
    program: Program, backend: Backend, factors: Callable[[int], tuple[float, float]]
) -> Program:
    """The product that computes ∇W[k] makes the optimizer's step of W[k], and stores no ∇W[k].

    It changes a program of `early_update` whose θ is not split, where `backend` has such a product.
    factors: those of the group of the W that starts at an entry of θ.
    """
    out = Program()
    for each in program:
        product = out[-1] if out else each
        updates = each.name == "update" and each["theta"].dtype.kind == "f"
        if updates and product.name == "weight_gradient" and not product["factors"]:
            rule, omega, slots = each["optimizer"], each["regularizer"], each["slots"]
            if backend.updates_in_product(rule, omega, slots.dtype, product["dW"].shape):
                out.pop()
                each = op(
                    "weight_update", rule, omega, product["gz"], product["h_below"],
                    each["theta"], each["rounded"], slots, each["control"], each["part"],
                    factors(each["part"][0]),
                )  # fmt: skip
        out.append(each)
    return out


def streams(program: Program) -> Program:
    """Weight gradients run beside hidden gradients; early updates and averages beside both.

    Stream 1 has the weight gradients, and stream 2 what only the end of the step waits for.
    """

    def stream(each: Op) -> int:
        early = each.name == "update" and each.part and each.part[1] <= each["split"]
        product = each.name in ("weight_gradient", "weight_update")
        return 1 if product else 2 if early or each.name == "average" else 0

    return Program(replace(each, stream=stream(each)) for each in program)


def reserve(program: Program, multiprocessors: int) -> Program:
    """Early updates run on multiprocessors of their own, which the products beside them leave free.

    It changes a program of `early_update`.  The more bytes the updates move for each FLOP of these
    products, the more multiprocessors they get: one to three eighths.  Products of many tiles would
    leave them none.
    """
    updates = [each for each in program if each.name == "update"]
    first = next(i for i, each in enumerate(program) if each.name == "weight_gradient")
    moved = sum(each.bytes for each in updates)
    share = min(3, math.ceil(moved / (EIGHTH * sum(each.flops for each in program[first:]))))
    own = max(1, multiprocessors * share // 8)

    def placed(i: int, each: Op) -> Op:
        if each.name == "update" and each.part and each.part[1] <= each["split"]:
            return replace(each, stream=2, multiprocessors=own)
        beside = i >= first and each.flops > 0
        return replace(each, multiprocessors=multiprocessors - own if beside else 0)

    return Program(placed(i, each) for i, each in enumerate(program))


def leaves_idle(program: Program, multiprocessors: int) -> bool:
    """Whether most FLOPs are in products with fewer tiles than the device has multiprocessors."""
    idle = 0
    for m, n, k in (product for each in program for product in each.products):
        tiles = -(-m // TILE) * -(-n // TILE)
        idle += 2 * m * n * k * (tiles < multiprocessors)
    return 2 * idle > sum(each.flops for each in program)
