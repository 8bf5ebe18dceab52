"""Passes: functions from a program to a program with the same result.

Each says what it looks for and what it changes.  `training.TrainingStep` puts them in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from math import prod

from gpumlp.backends import Backend
from gpumlp.functions import REGULARIZERS, Optimizer, Regularizer
from gpumlp.functions.entry import joint, same_function
from gpumlp.step.program import Buffer, Op, Program, op
from gpumlp.step.recording import ThetaBuffers

TILE = 128  # rows and columns of the result that a multiprocessor computes in a large product
# An estimate: bytes of the updates for each FLOP beside them that need an eighth of the device.
# 28 bytes a parameter get 16 of 132 at minibatch 8,192 and 4,096, 32 at 2,048 and 48 at 1,024.
EIGHTH = 2.3e-3
# Bytes of the buffers of matrices that are orthogonalized in one batch.  W of 4096 × 4096, whose
# products fill a device, has buffers of 192 MiB and stays alone; of 512 × 512, up to 85 are one.
BATCH_BYTES = 256 << 20
# What several processes do with a bucket of gradients.  None of these uses the scratch memory that
# operations of the main stream share.
SENT = ("exchange", "tree_sum", "update", "collect")


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


def weight_gradients_last(program: Program, flops: int) -> Program:
    """What is done row by row stands together, and so do the products that are independent.

    It changes loops of so many FLOPs at most, without those of the weight gradients.  gz of all
    layers is then kept.
    """
    last = [each for each in program if each.name == "weight_gradient"]
    rest = [
        replace(each, by_rows=each.operation.by_rows)
        for each in program if each.name != "weight_gradient"
    ]  # fmt: skip
    return program if sum(each.flops for each in rest) > flops else Program([*rest, *last])


Rule = tuple[Optimizer, Regularizer]
"""The optimizer and Ω of a network."""


def by_rule(program: Program, rules: Sequence[Rule], joins: bool) -> Program:
    """The clipping and the update of several networks: once for neighbours with equal rules.

    joins: rules that differ only in their parameters are one rule, which has those of all.
    """
    starts = [0]
    for i in range(1, len(rules)):
        if rules[i] != rules[i - 1] and not (joins and _joins(rules[i], rules[i - 1])):
            starts.append(i)
    out = Program()
    for each in program:
        if each.name not in ("clip", "update"):
            out.append(each)
            continue
        for first, end in pairwise([*starts, len(rules)]):
            optimizers, regularizers = zip(*rules[first:end], strict=True)
            entries = {"optimizer": joint(optimizers), "regularizer": joint(regularizers)}
            own = {name: entry for name, entry in entries.items() if name in each}
            members = (first, end) if len(starts) > 1 else None
            out.append(replace(each.having(**own), members=members))
    return out


def _joins(one: Rule, other: Rule) -> bool:
    """Whether the rules differ in nothing but parameters that are in the source of a kernel."""
    return all(map(same_function, one, other)) and one[1].strengths() == other[1].strengths()


def orthogonalize(program: Program, velocity: ThetaBuffers, batch_bytes: int) -> Program:
    """Each W but the last, and each P, moves by its momentum, made orthogonal; the rest as usual.

    m ← μ m + ∇W, O ← about the orthogonal matrix nearest to ∇W + μ m, and
    W ← W − η (√max(1, n_out / n_in) O + λ W): a step has the same length in all its directions.

    Layers of equal shape, one after another, are one operation.  batch_bytes: how much its buffers
    may have; 0: each layer is an operation of its own.
    """
    batches, dtype = _equal_neighbours(velocity.matrices, batch_bytes), velocity.flat.dtype
    sizes = [(len(V) * prod(shape), len(V) * min(shape) ** 2) for V, shape in batches]
    most, square = (max(each) for each in zip(*sizes, strict=True))
    X, A, P = (Buffer(name, (n,), dtype) for name, n in (("X", most), ("A", square), ("P", square)))
    end = velocity.W[-1].start - velocity.flat.start
    out = Program()
    for each in program:
        if each.name != "update":
            out.append(each)
            continue
        collect, move = each["optimizer"].of_matrices()
        out.append(each.having(part=(end, each["theta"].size)))
        out.append(each.having(optimizer=collect, part=(0, end)))
        for V, (n_out, n_in) in batches:
            r = min(n_out, n_in)
            shapes = (len(V), n_out, n_in), (len(V), r, r), (len(V), r, r)
            buffers = (b.part(b.name, 0, s) for b, s in zip((X, A, P), shapes, strict=True))
            out.orthogonalize(V, math.sqrt(max(1, n_out / n_in)), *buffers)
        none = REGULARIZERS["none"]
        out.append(each.having(optimizer=move, regularizer=none, part=(0, end)))
    return out


def _equal_neighbours(
    matrices: Sequence[Buffer], batch_bytes: int
) -> list[tuple[Buffer, tuple[int, ...]]]:
    """Matrices of one shape that are neighbours in θ, but for the last: (buffer, shape).

    The buffer is (K, q), with q entries from the start of one W to the start of the next: W and its
    padding, of which matrices of one shape have equally much.
    """
    after, found = dict(pairwise(matrices)), []
    for shape, equal in groupby(matrices[:-1], key=lambda V: V.shape):
        layers = list(equal)
        of_each = (prod(shape) + 2 * min(shape) ** 2) * layers[0].itemsize
        most = max(1, batch_bytes // of_each)
        for first, *others in (layers[i : i + most] for i in range(0, len(layers), most)):
            name = f"{first.name} … {others[-1].name}" if others else first.name
            rows = 1 + len(others), after[first].start - first.start
            found.append((first.part(name, 0, rows), shape))
    return found


def early_update(program: Program, gradient: ThetaBuffers) -> Program:
    """Each W[k] and P[k] is updated when its gradient is complete, beside the backward pass.

    It changes a program with one update of all parameters, which needs no norm of the gradient.
    """
    updates = [each for each in program if each.name == "update"]
    clipped = any(each.name == "clip" for each in program)
    if clipped or [each["dtheta"] for each in updates] != [gradient.flat]:
        return program
    (update,) = updates
    matrices = gradient.matrices
    starts = [*(each.start for each in matrices), gradient.split]
    parts = dict(zip(matrices, pairwise(starts), strict=True))
    products = (each for each in program if each.name == "weight_gradient")
    last = {each["dW"]: each for each in products if each["dW"] in parts}
    out = Program()
    for each in program:
        if each is update:
            each = each.having(part=(gradient.split, gradient.flat.size))
        out.append(each)
        if each in last.values():
            out.append(update.having(part=parts[each["dW"]]))
    return out


def _is_early(each: Op) -> bool:
    """Whether it is one of the updates of `early_update`."""
    return each.name == "update" and each.part is not None and each.part[1] <= each["split"]


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

    Stream 1 has the weight gradients, and stream 2 what only the end of the step waits for.  So it
    has what several processes send each other, too, and the updates between.
    """
    several = any(each.name == "exchange" for each in program)

    def stream(each: Op) -> int:
        product = each.name in ("weight_gradient", "weight_update")
        sent = several and each.name in SENT
        return 1 if product else 2 if _is_early(each) or sent or each.name == "average" else 0

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
        if _is_early(each):
            return replace(each, stream=2, multiprocessors=own)
        beside = i >= first and each.flops > 0
        return replace(each, multiprocessors=multiprocessors - own if beside else 0)

    return Program(placed(i, each) for i, each in enumerate(program))


def leaves_idle(program: Program, multiprocessors: int, networks: int = 1) -> bool:
    """Whether most FLOPs are in products with fewer tiles than the device has multiprocessors.

    networks: how many the program is for.
    """
    idle = 0
    for each in program:
        members = len(each["X"]) if each.name == "orthogonalize" else networks  # of a batch
        for m, n, k in each.products:
            tiles = members * -(-m // TILE) * -(-n // TILE)
            idle += 2 * m * n * k * (tiles < multiprocessors)
    return 2 * idle > sum(each.flops for each in program)
