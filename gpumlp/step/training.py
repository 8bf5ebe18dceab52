"""The step of a training: its buffers, and its program for each size of a minibatch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp import backprop
from gpumlp.functions import REGULARIZERS, Optimizer
from gpumlp.functions.optimizers import FOLLOW
from gpumlp.io.types import HostArray
from gpumlp.step import passes
from gpumlp.step.blocks import Noise, expand
from gpumlp.step.columns import Statistics, norms, statistics_of
from gpumlp.step.embeddings import look_up
from gpumlp.step.folding import folds, folds_rows
from gpumlp.step.groups import regions, table
from gpumlp.step.plan import Plan, plan
from gpumlp.step.program import Buffer, Op, Program, op
from gpumlp.step.recording import F64, Model, ThetaBuffers, held, theta_buffers
from gpumlp.step.settings import Settings
from gpumlp.step.sharding import buckets, level, merged, share
from gpumlp.step.tables import I64, MicroBatch, Tables

SCALE = 2.0**16  # the loss scale that float16 starts from, as torch's GradScaler does


class TrainingStep:
    """The buffers of a trainer that stay between steps, and the programs of its steps.

    Attributes:
        folds: whether the product of the weights' gradient adds it to the weights.
        replicated: whether each process has the state of the whole θ, and updates all of it.
        buckets: the ranges of θ that the processes exchange.
        slots, factors, mean: see `Backend.update`, `weight_gradient` and `average`.
        seed: (1,) int64, see `Backend.dropout`; a trainer with dropout has it.
        remainder: of θ, if it is split: see `Backend.round`; else None.
        initial: the values with which the trainer's buffers begin; `mean` begins with θ.

    Raises:
        ValueError, TypeError: `fold` or `slot_precision` does not go with the other settings.
    """

    def __init__(self, settings: Settings) -> None:
        net, optimizer = settings.net, settings.optimizer
        backend, self._layout = net.backend, net.theta.layout
        shards = settings.shards
        self._settings, self.model = settings, Model(net, shards.count)
        self.folds = folds(settings)
        size, split = self._layout.size, self._layout.split
        # the sums of several gradients have θ's type, and so has each W's gradient from the start
        self._sums = settings.accumulate > 1 or shards.count > 1
        kind = backend.dtype if self._sums else backend.storage
        S = SCALE if backend.scales_loss else 1.0
        self._orthogonal = optimizer.orthogonal is not None and net.L > 1
        self._columns = norms(self._layout.blocks)
        # all processes need one order of what they send, also without examples: no bucket is sent
        # between the statistics of norms
        self.buckets = buckets(self._layout, shards, backend.branches > 0 and not self._columns)
        self.replicated = shards.count == 1 or self._orthogonal
        own = size if self.replicated else sum(each.size for each in self.buckets)
        self.slots = held("slots", (len(optimizer.slots), own), settings.slot_type)
        self.factors = held("factors", (2,), backend.dtype, shared=True)
        levels = shards.each if self._columns else shards.levels
        self._sum = held("∇J", (levels * size,), kind)
        rows = [self._sum.part("∇J", i * size, (size,)) for i in range(levels)]
        self._levels = [theta_buffers(row, self._layout) for row in rows]
        self._gradient = self._levels[0]
        self.remainder = held("remainder of θ", (size,), "int16") if settings.remainder else None
        # of what the update goes over: a folded one may leave the tables of embeddings to a product
        self._end = self._layout.tables if self.folds and folds_rows(settings) else size
        if self.folds:
            self._db = held("∇b", (self._end - split,), kind)
        else:
            self._db = self._gradient.flat.part("∇b", split, (size - split,))
        self.seed = held("seed", (1,), I64)
        self.initial: dict[Buffer, float | HostArray] = {
            self.slots: 0.0, self.factors: 0.0, self._db.root: 0.0,
            self.model.scaling: np.array([S, 1 / S, 0, 0]),
        }  # fmt: skip
        if self.remainder is not None:
            self.initial[self.remainder] = 0.0
        if any(block.dropout for block in self._layout.blocks):
            self.initial[self.seed] = 0.0
        if self._sums:
            number = settings.accumulate * shards.each if self._columns else 1
            part, n = "∇b of a micro-batch", size - split
            parts = held(part, (number * n,), backend.storage)
            self._parts = [parts.part(part, i * n, (n,)) for i in range(number)]
            self._ones = held("ones", (2,), backend.dtype, shared=True)
            self.initial |= {parts: 0.0, self._ones: 1.0}
        if self._orthogonal and settings.slot_type != backend.dtype:
            raise ValueError(
                f"slot_precision={settings.slot_type.name!r} does not go with {optimizer.name}, "
                "whose products are of θ's type; use slot_precision=None"
            )
        regions = [(split, self._end)] if self.folds else [(0, size)]
        if self.folds and optimizer.fold != "theta":
            regions.append((0, split))
        regions += [] if self.replicated else [each.own for each in self.buckets]
        self._groups = {region: self._group_table(*region) for region in regions}
        self.mean = None if settings.ema is None else held("mean θ", (size,), backend.dtype)

    def _group_table(self, begin: int, end: int) -> Buffer | None:
        rows = table(self._layout, self._settings.groups, begin, end)
        if rows is None:
            return None
        buffer = held("groups", rows.shape, F64, shared=True)
        self.initial[buffer] = rows
        return buffer

    def _factors(self, start: int) -> tuple[float, float]:
        """The factors of the learning rate and the weight decay of the W at this entry of θ."""
        found = regions(self._layout, self._settings.groups)
        return next((each.lr, each.decay) for each in found if start < each.end)

    def plans(self, tables: Tables, of: int, parts: range) -> dict[str, Plan]:
        """The ways to do some micro-batches of a step on `of` examples, by name, planned.

        The first is the default: "branched" where most products leave multiprocessors idle, or
        several processes send each other gradients.  The last micro-batch is followed by the update
        of θ.
        """
        program = self._record(tables, of, parts)
        settings, last = self._settings, program[-1].name == "end"
        if last and settings.shards.count > 1:
            program = share(
                program, settings.shards, self.buckets, tables.ranks(of), self.replicated,
                self._groups,
            )  # fmt: skip
        if settings.rules:
            joins = settings.net.backend.branches > 0  # on a GPU one launch is faster than several
            program = passes.by_rule(program, settings.rules, joins)
        elif self.folds:
            program = self._fold(program, tables.control)
        elif self._orthogonal:
            velocity = theta_buffers(self._slot(-1), self._layout)
            # one launch for several layers saves time on a GPU only
            batched = settings.net.backend.branches and not settings.low_memory
            program = passes.orthogonalize(
                program, settings.optimizer, velocity, passes.BATCH_BYTES if batched else 0
            )
        planned = plan(program)
        if settings.low_memory:
            planned = min(planned, plan(passes.recompute(program)), key=lambda each: each.size)
        ways, branches = {"sequential": planned}, settings.net.backend.branches
        if branches:
            ways["branched"] = plan(passes.streams(planned.program))
            # several processes do the first way, unmeasured: what they send is beside the products
            several, K = settings.shards.world.size > 1, max(1, len(settings.rules))
            if several or passes.leaves_idle(planned.program, branches, K):
                ways = {name: ways[name] for name in ("branched", "sequential")}
            early = passes.early_update(planned.program, self._gradient)
            if early is not planned.program:
                ways["branched, early update"] = plan(passes.streams(early))
                ways["early update, reserved"] = plan(passes.reserve(early, branches))
                within = early
                if not settings.rules:
                    within = passes.update_in_product(early, settings.net.backend, self._factors)
                if any(each.name == "weight_update" for each in within):
                    ways["branched, update in products"] = plan(passes.streams(within))
        return ways

    def _record(self, tables: Tables, of: int, parts: range) -> Program:
        """The book's loops for each micro-batch, and what comes before and after them."""
        model, (index, weights) = self.model.recording(), tables.minibatch(of)
        program: Program = model.backend
        if parts.start == 0:
            program.begin(
                tables.position, tables.order, tables.controls,
                max(1, tables.members) * tables.size, index, tables.control, self.factors, model.J,
            )  # fmt: skip
            if weights is not None:
                program.mean_weights(tables.weights, index, weights)
        of_step = tables.parts(of)
        found = statistics_of(model, self._settings.shards, tables, of, parts)
        each = [
            self._micro_batch(model, tables, of, j, found)
            for j in range(parts.start, min(parts.stop, len(of_step)))
        ]
        program += sum(each, start=Program()) if found is None else found.interleaved(each)
        if found is not None and len(of_step) > 0 and (last := self._number(of_step, -1)):
            rows = self._sum.part("∇J", 0, (last + 1, self._layout.size))
            program.tree_sum(rows, self._gradient.flat)
        if parts.stop >= len(of_step):
            self._update(program, tables.control)
            program.end(tables.position, model.J, tables.costs)
        return program

    def _number(self, of_step: Sequence[MicroBatch], j: int) -> int:
        """The number of the shard of micro-batch j among those of this process."""
        return of_step[j].shard - of_step[0].shard

    def _micro_batch(
        self, model: Model, tables: Tables, of: int, j: int, statistics: Statistics | None
    ) -> Program:
        """The loops for micro-batch j of a minibatch of `of` examples."""
        program, of_step, (index, _) = Program(), tables.parts(of), tables.minibatch(of)
        each = of_step[j]
        s = model.minibatch(
            each.m, tables.targets(each.m), tables.shares(of, each.m, each.start), cost=each.shard
        )
        for source, place in ((tables.x, s.x), (tables.y, s.y)):
            if source is not None:
                program.gather(source, index.rows(each.m, each.start), place)
        first = j == 0 or of_step[j - 1].shard < each.shard
        number = self._number(of_step, j)
        # what is computed at the same time needs a place for each; else as few as possible
        d = self._levels[level(number) if statistics is None else number]
        part = self._parts[0 if statistics is None else j] if self._sums else None
        loops, own = model.recording(), self._destination(d, first, part)
        backprop.forward(loops, s)
        backprop.backward(loops, s, own)
        noise = Noise(self.seed, tables.control, each.start)
        blocks = expand(loops.backend, model, s, own, noise, statistics, j)
        program += look_up(blocks, model, s, own)
        if part is not None:
            program.add(part, d.flat.part("∇b", d.split, part.shape), first)
        last = j + 1 == len(of_step)
        if statistics is None and (last or each.shard < of_step[j + 1].shard):
            program += merged(self._sum, self._layout.size, number, last)
        return program

    def _destination(self, d: ThetaBuffers, first: bool, part: Buffer | None) -> ThetaBuffers:
        """Where a micro-batch's gradients go: the products add up ∇W, and `add` adds up ∇b."""
        if part is None:
            return d

        def own(views: list[Any]) -> list[Any]:
            start = d.flat.start + d.split
            return [v and part.part(v.name, v.start - start, v.shape) for v in views]

        factors = None if first else self._ones
        (E,) = own([d.E])
        return d._replace(b=own(d.b), phi=own(d.phi), c=own(d.c), E=E, factors=factors)

    def _update(self, program: Program, control: Buffer) -> None:
        """Clip the gradient, and update θ and its average."""
        settings, model, rounded = self._settings, self.model, self.model.rounded.flat
        backend, dtheta, split = settings.net.backend, self._gradient.flat, self._gradient.split
        theta, rest = model.theta.flat, None
        if self.remainder is not None:
            theta, rest = self.remainder, rounded
        if settings.clip_norm is not None or backend.scales_loss:
            longest = math.inf if settings.clip_norm is None else settings.clip_norm
            program.clip(
                model.regularizer, theta, dtheta, split, longest, model.scaling, control, rest
            )
        program.update(
            settings.optimizer, model.regularizer, theta, rounded, dtheta, self.slots, split,
            model.scaling, control, groups=self._groups.get((0, dtheta.size)),
        )  # fmt: skip
        if self.mean is not None:
            program.average(theta, self.mean, settings.ema, control, rest)

    def _fold(self, program: Program, control: Buffer) -> Program:
        """SGD: W ← (1 − ηλ) W − η gzᵀ h.  Momentum: v ← μ v + gzᵀ h, then W ← W − η v in a pass."""
        optimizer, model = self._settings.optimizer, self.model
        split = self._layout.split

        def update(rule: Optimizer, omega: str | None, dtheta: Buffer, begin: int, end: int) -> Op:
            theta, rounded = (
                each.flat.part(each.flat.name, begin, (end - begin,))
                for each in (model.theta, model.rounded)
            )
            slots = self.slots.part("slots", begin, (len(rule.slots), end - begin))
            return op(
                "update", rule, REGULARIZERS[omega] if omega else model.regularizer, theta, rounded,
                dtheta, slots, split - begin, model.scaling, control,
                groups=self._groups.get((begin, end)),
            )  # fmt: skip

        into, of_weights = model.theta, []
        if optimizer.fold != "theta":
            velocity = self._slot(optimizer.slots.index(optimizer.fold))
            into = theta_buffers(velocity, self._layout)
            v = velocity.part(velocity.name, 0, (split,))
            of_weights = [update(FOLLOW, "none", v, 0, split)]
        elif model.rounded is not model.theta:
            whole = (each.flat.part(each.flat.name, 0, (split,)) for each in (into, model.rounded))
            of_weights = [op("round", *whole)]
        updates = [*of_weights, update(optimizer, None, self._db, split, self._end)]
        return passes.fold(program, self._gradient, into, self._db, self.factors, updates)

    def _slot(self, i: int) -> Buffer:
        """One slot of the optimizer, in the layout of θ."""
        i %= len(self._settings.optimizer.slots)
        name = self._settings.optimizer.slots[i]
        return self.slots.part(name, i * self._layout.size, (self._layout.size,))
