"""The step of a training: its buffers, and its program for each size of a minibatch."""

from __future__ import annotations

import math

import numpy as np

from gpumlp.io.types import HostArray
from gpumlp.step import passes
from gpumlp.step.columns import Statistics, norms, statistics_of
from gpumlp.step.folding import fold, folds, folds_rows
from gpumlp.step.gradients import Gradients
from gpumlp.step.groups import regions, table
from gpumlp.step.loops import Noise, loops
from gpumlp.step.plan import Plan, plan
from gpumlp.step.program import Buffer, Program
from gpumlp.step.recording import F64, Model, ThetaBuffers, held, theta_buffers
from gpumlp.step.settings import Settings
from gpumlp.step.sharding import buckets, share
from gpumlp.step.tables import I64, Tables

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
        ValueError, TypeError: `fold` does not go with the other settings.
    """

    def __init__(self, settings: Settings) -> None:
        net, optimizer, shards = settings.net, settings.optimizer, settings.shards
        backend, layout = net.backend, net.theta.layout
        size, split = layout.size, layout.split
        self._settings, self._layout, self.model = settings, layout, Model(net, shards.count)
        self.folds = folds(settings)
        self._orthogonal = optimizer.orthogonal is not None and net.L > 1
        together = bool(norms(layout.blocks))
        self._gradients = Gradients(settings, together)
        self._gradient = self._gradients.total
        # all processes need one order of what they send, also without examples: no bucket is sent
        # between the statistics of norms
        self.buckets = buckets(layout, shards, backend.branches > 0 and not together)
        self.replicated = shards.count == 1 or self._orthogonal
        own = size if self.replicated else sum(each.size for each in self.buckets)
        self.slots = held("slots", (len(optimizer.slots), own), settings.slot_type)
        self.factors = held("factors", (2,), backend.dtype, shared=True)
        self.remainder = held("remainder of θ", (size,), "int16") if settings.remainder else None
        self.mean = None if settings.ema is None else held("mean θ", (size,), backend.dtype)
        self.seed = held("seed", (1,), I64)
        self._db = self._gradient.flat
        updated = [(0, size)] if self.replicated else [each.own for each in self.buckets]
        if self.folds:
            # it may leave the tables of embeddings to a product
            end = layout.tables if folds_rows(settings) else size
            self._db = held("∇b", (end - split,), self._gradient.flat.dtype)
            updated = [(split, end)] if optimizer.fold == "theta" else [(split, end), (0, split)]
        S = SCALE if backend.scales_loss else 1.0
        self.initial: dict[Buffer, float | HostArray] = {
            self.slots: 0.0, self.factors: 0.0, self._db.root: 0.0, self.model.J: 0.0,
            self.model.scaling: np.array([S, 1 / S, 0, 0]), **self._gradients.initial,
        }  # fmt: skip
        if self.remainder is not None:
            self.initial[self.remainder] = 0.0
        if any(block.dropout for block in layout.blocks):
            self.initial[self.seed] = 0.0
        self._groups: dict[tuple[int, int], Buffer | None] = dict.fromkeys(updated)
        for begin, end in updated:
            rows = table(layout, settings.groups, begin, end)
            if rows is not None:
                self._groups[begin, end] = buffer = held("groups", rows.shape, F64, shared=True)
                self.initial[buffer] = rows

    def _factors(self, start: int) -> tuple[float, float]:
        """The factors of the learning rate and the weight decay of the W at this entry of θ."""
        found = regions(self._layout, self._settings.groups)
        return next((each.lr, each.decay) for each in found if start < each.end)

    def plans(self, tables: Tables, of: int, j: int | None = None) -> dict[str, Plan]:
        """The ways to do a step on `of` examples, or its micro-batch j alone, by name, planned.

        The first is the default: "branched" where most products leave multiprocessors idle, or
        several processes send each other gradients.  The last micro-batch is followed by the update
        of θ.
        """
        settings, backend = self._settings, self._settings.net.backend
        program = self._changed(self._record(tables, of, j), tables, of)
        planned = plan(program)
        if settings.low_memory:
            planned = min(planned, plan(passes.recompute(program)), key=lambda each: each.size)
        ways, program = {"sequential": planned}, planned.program
        if not backend.branches:
            return ways
        ways["branched"] = plan(passes.streams(program))
        # several processes do the first way, unmeasured: what they send is beside the products
        several, K = settings.shards.world.size > 1, max(1, len(settings.rules))
        if several or passes.leaves_idle(program, backend.branches, K):
            ways = {name: ways[name] for name in ("branched", "sequential")}
        early = passes.early_update(program, self._gradient)
        if early is not program:
            ways["branched, early update"] = plan(passes.streams(early))
            ways["early update, reserved"] = plan(passes.reserve(early, backend.branches))
            if not settings.rules:
                within = passes.update_in_product(early, backend, self._factors)
                if any(each.name == "weight_update" for each in within):
                    ways["branched, update in products"] = plan(passes.streams(within))
        return ways

    def _changed(self, program: Program, tables: Tables, of: int) -> Program:
        """The recorded program with the updates that the settings ask for."""
        settings, optimizer = self._settings, self._settings.optimizer
        on_gpu = settings.net.backend.branches > 0
        if settings.shards.count > 1 and program[-1].name == "end":
            ranks = tables.ranks(of)
            program = share(
                program, settings.shards, self.buckets, ranks, self.replicated, self._groups
            )
        if settings.rules:  # on a GPU one launch is faster than several
            return passes.by_rule(program, settings.rules, joins=on_gpu)
        if self.folds:
            into = self.model.theta
            if optimizer.fold != "theta":
                into = self._slot(optimizer.fold)
            return fold(program, self._gradient, into, self._db, self.factors, self._groups)
        if self._orthogonal:  # one launch for several layers saves time on a GPU only
            batch = passes.BATCH_BYTES if on_gpu and not settings.low_memory else 0
            return passes.orthogonalize(program, self._slot(optimizer.slots[-1]), batch)
        return program

    def _slot(self, name: str) -> ThetaBuffers:
        """One slot of the optimizer, in the layout of θ."""
        size = self._layout.size
        at = self._settings.optimizer.slots.index(name) * size
        return theta_buffers(self.slots.part(name, at, (size,)), self._layout)

    def _record(self, tables: Tables, of: int, j: int | None) -> Program:
        """The book's loops for each micro-batch, and what comes before and after them."""
        program, (index, weights) = Program(), tables.minibatch(of)
        of_step, J = tables.parts(of), self.model.J
        parts = range(len(of_step)) if j is None else range(j, j + 1)
        if parts.start == 0:
            program.begin(
                tables.position, tables.order, tables.controls,
                max(1, tables.members) * tables.size, index, tables.control, self.factors, J,
            )  # fmt: skip
            if weights is not None:
                program.mean_weights(tables.weights, index, weights)
        found = statistics_of(self.model, self._settings.shards, tables, of, parts)
        each = [self._micro_batch(tables, of, i, found) for i in parts if i < len(of_step)]
        program += sum(each, start=Program()) if found is None else found.interleaved(each)
        if found is not None and of_step:
            program += self._gradients.sum_of(1 + of_step[-1].number)
        if parts.stop >= len(of_step):
            self._update(program, tables.control)
            program.end(tables.position, J, tables.costs)
        return program

    def _micro_batch(
        self, tables: Tables, of: int, j: int, statistics: Statistics | None
    ) -> Program:
        """The loops for micro-batch j of a minibatch of `of` examples."""
        program, of_step, (index, _) = Program(), tables.parts(of), tables.minibatch(of)
        each, last, together = of_step[j], j + 1 == len(of_step), statistics is not None
        m, start = each.m, each.start
        y, weights = tables.targets(m), tables.shares(of, m, start)
        s = self.model.minibatch(m, y, weights, cost=each.shard)
        for source, place in ((tables.x, s.x), (tables.y, s.y)):
            if source is not None:
                program.gather(source, index.rows(m, start), place)
        d, after = self._gradients.of(each, j, last, together)
        noise = Noise(self.seed, tables.control, start)
        recorded = loops(self.model, s, d, noise, statistics, j)
        if not self._settings.low_memory:
            flops = self._settings.net.backend.row_flops
            recorded = passes.weight_gradients_last(recorded, flops)
        program += recorded
        program += after
        return program

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
