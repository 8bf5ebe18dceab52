"""A trainer's settings and state, its minibatches, and its step."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Self

import numpy as np

from gpumlp import checks
from gpumlp.backends import Backend
from gpumlp.distributed.world import World
from gpumlp.errors import OutOfMemoryError, is_one_of
from gpumlp.functions import OPTIMIZERS, Optimizer, Regularizer, Schedule
from gpumlp.functions.embeddings import described
from gpumlp.functions.entry import lookup
from gpumlp.functions.trials import tried
from gpumlp.io.types import Array, HostArray
from gpumlp.loader.batches import Batches
from gpumlp.loader.examples import Examples
from gpumlp.loader.recipes import recipes
from gpumlp.network import MLP
from gpumlp.step import groups as grouping
from gpumlp.step.groups import Group
from gpumlp.step.program import Buffer
from gpumlp.step.settings import Settings, input_type
from gpumlp.step.sharding import Bucket, checked_shards
from gpumlp.step.tables import Tables
from gpumlp.training import arguments
from gpumlp.training.averaging import Average, checked_ema
from gpumlp.training.history import History
from gpumlp.training.remainder import Remainder

# the attributes of `_allocate`
ALLOCATED = ("slots", "scaling", "average", "_pair", "_recipes", "_step", "_arrays", "omega")


class Stepping(arguments.Arguments):
    """What a trainer does short of a fit: `Trainer` documents its arguments and attributes."""

    rules: tuple[tuple[Optimizer, Regularizer], ...] = ()  # see `Settings`

    def __init__(
        self, net: MLP, optimizer: str | Optimizer = "adamw", lr: float | None = None,
        batch_size: int = 256, schedule: str | Schedule = "constant",
        clip_norm: float | None = None, seed: int = 0, slot_precision: str | None = None,
        fold: bool | None = None, memory: str = "normal", accumulate: int = 1,
        groups: Mapping[str, Group] | None = None, ema: float | None = None, shuffle: bool = True,
        remainder: bool = False, world: World | None = None, shards: int | None = None,
    ) -> None:  # fmt: skip
        self.net = arguments.network(net)
        self.optimizer = tried(lookup(OPTIMIZERS, "optimizer", optimizer))
        self.lr = self.optimizer.lr if lr is None else lr
        self.batch_size = batch_size
        self.schedule: Schedule = schedule  # type: ignore[assignment]  # `Arguments` looks it up
        self.clip_norm = (
            None if clip_norm is None else checks.positive_number(clip_norm, "clip_norm")
        )
        self.seed, self.shuffle, self.fold = seed, shuffle, fold
        self.slot_type = arguments.slot_type(net, self.optimizer, slot_precision)
        self.remainder = arguments.remainder(net.backend, remainder)
        if not is_one_of(memory, ("normal", "low")):
            raise ValueError(f'memory must be "normal" or "low", got {memory!r}')
        self.low_memory = memory == "low"
        self.accumulate = arguments.parts(accumulate, self.batch_size)
        layout = net.theta.layout
        self.groups = grouping.checked(groups, self.optimizer, layout)
        regions = grouping.regions(layout, self.groups)
        self.rates = {region.lr for region in regions if region.begin < layout.split}  # of weights
        self.ema = checked_ema(ema)
        self.shards = checked_shards(shards, world)
        self.steps = self.epochs = 0
        self.history = History(())
        self.stop = False
        self.lr_factor, self.last_lr = 1.0, 0.0
        self._allocate()

    def _allocate(self) -> None:
        """Set the attributes `ALLOCATED` to their state before the first step.

        Raises:
            OutOfMemoryError: nothing stays allocated.
        """
        net, backend = self.net, self.net.backend
        self.omega = net.regularizer
        try:
            self._recipes = recipes(self.step_settings())
            self._step = step = self._recipes.step
            self._arrays = arrays = {
                b: self._new(b, value) if isinstance(value, float) else
                backend.asarray(value, out=self._new(b))
                for b, value in step.initial.items()
            }  # fmt: skip
            self.slots, self.scaling = arrays[step.slots], arrays[step.model.scaling]
            self._pair = None if step.remainder is None else Remainder(arrays[step.remainder])
            self.average = None
            if step.mean is not None:
                arrays[step.mean] = self._new(step.mean)
                self.average = Average(net, arrays[step.mean])
        except OutOfMemoryError:  # its traceback holds the trainer
            vars(self).update(dict.fromkeys(ALLOCATED))
            raise

    def _new(self, b: Buffer, value: float = 0.0) -> Array:
        """The array of a buffer that stays between steps, filled with a value."""
        return self.net.backend.full(b.shape, value, b.dtype)

    def step_settings(self) -> Settings:
        """What the program of a step depends on."""
        return Settings(**{each.name: getattr(self, each.name) for each in fields(Settings)})

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the trainer, as JSON can hold them."""
        shards = {"shards": self.shards.count} if self.shards.count > 1 else {}
        names = "lr", "batch_size", "accumulate", "clip_norm", "ema", "seed", "shuffle"
        return {
            "optimizer": self.optimizer.spec(),
            "schedule": self.schedule.spec(),
            "groups": grouping.spec(self.groups),
            "slot_precision": str(self.slots.dtype),
            **shards,
            **{name: getattr(self, name) for name in names},
        }

    @property
    def folds(self) -> bool:
        """Whether the product of the weights' gradient adds it to the weights: see `fold`."""
        return self._step.folds

    @property
    def at_a_time(self) -> int:
        """The number of examples of a micro-batch; the last of a minibatch may have fewer."""
        return -(-self.batch_size // (self.accumulate * self.shards.count))

    @property
    def replicated(self) -> bool:
        """Whether each process has the optimizer's whole state."""
        return self._step.replicated

    @property
    def buckets(self) -> list[Bucket]:
        """The ranges of θ that the processes of a training exchange."""
        return self._step.buckets

    def batches(self, data: Examples) -> Batches:
        """The minibatches of `data` for `step`; call `Batches.start` before each epoch."""
        arguments.check_recorded(self.net, self.omega)
        shapes = data.x.shape, data.y.shape, data.target, data.streamed, data.weights is None
        own = (*shapes, self.batch_size, self.at_a_time)
        recipe = self._recipes.of(own, lambda: self.tables(data))
        net, model, seed = self.net, self._step.model, self.order_seed
        net.round()  # θ may have been assigned
        self._arrays[model.theta.flat.root] = net.theta.whole  # an Ensemble may have moved it
        self._arrays[model.rounded.flat.root] = net.rounded.whole
        return Batches(net.backend, data, recipe, self._arrays, seed, self.name)

    @property
    def order_seed(self) -> int | None:
        """What shuffles the examples; None: they are not shuffled."""
        return self.seed if self.shuffle else None

    @property
    def name(self) -> str:
        """What the time of a step depends on, but for the minibatch."""
        net = self.net
        widths = " ".join(["-".join(map(str, net.widths)), *described(net.embed)])
        functions = " ".join([*(f.name for f in net.f[1:]), net.loss.name, self.optimizer.name])
        clipped = " clipped" * (self.clip_norm is not None)
        return f"step {widths} {functions} {net.precision}{clipped}"

    def tables(
        self, data: Any, backend: Backend | None = None, target: np.dtype[Any] | None = None,
        members: int = 0,
    ) -> Tables:  # fmt: skip
        """The tables of an epoch of examples, which need no values but shapes.

        backend, target: another backend than the network's, and the dtype of y there.
        """
        backend = backend or self.net.backend
        kinds = input_type(backend, self.net.embed), target or data.target
        return Tables(
            backend, data.x, data.y, kinds, data.streamed,
            data.weights is not None, self.batch_size, self.at_a_time,
            1 + len(self.optimizer.control(self.lr, 1)), self.shards, members,
        )  # fmt: skip

    def controls(self, lrs: Sequence[float], first: int) -> HostArray:
        """The table of `Batches.start` for the steps first, first + 1, … (from 1), float64.

        A row holds the gradient's scale, the optimizer's numbers, and the factors of a folded
        gradient.
        """
        optimizer, params = self.optimizer, dict(self.optimizer.params)
        steps = range(first, first + len(lrs))
        table = np.ones((len(lrs), 5 + len(optimizer.scalar_names)))
        table[:, 1] = lrs
        table[:, 2:-3] = optimizer.scalars_of(steps)
        table[:, -3] = steps
        if self.folds:  # then all weights have the same learning rate
            decay, rate = self.net.regularizer.weight_decay() or 0.0, max(self.rates)
            distinct, which = np.unique(lrs, return_inverse=True)
            factors = [optimizer.factors(rate * lr, decay, **params) for lr in distinct.tolist()]
            table[:, -2:] = np.array(factors)[which]
        return table

    def step(self, batches: Batches, steps: int = 1) -> None:
        """Steps on the next minibatches: gather, forward, backward, clip, update.

        With `remainder`, call `restore_theta` before anyone reads or assigns to θ.
        """
        self.prepare()
        if (world := self.shards.world).size > 1:  # errors name it
            world.doing = f"step{f's {self.steps + 1} to' * (steps > 1)} {self.steps + steps}"
        batches.run(steps)
        self.steps += steps

    def begin(self) -> None:
        """Set what the masks of dropout begin from, before the steps of a fit."""
        if self._step.seed in self._arrays:
            state = np.random.SeedSequence(self.seed).generate_state(1, np.uint64)
            noise = self._arrays[self._step.seed]
            self.net.backend.asarray(state.view(np.int64), dtype=np.int64, out=noise)

    def prepare(self) -> None:
        """Put θ where steps read it, before steps that this object or another does."""
        if self._pair is not None:
            self._pair.take(self.net)

    def restore_theta(self) -> None:
        """θ of the network ← that of the last step, if steps keep it elsewhere: `remainder`."""
        if self._pair is not None:
            self._pair.give(self.net)

    def show_average(self, shown: bool) -> None:
        """Put the average of θ, if there is one, into the network; or θ, for the next steps."""
        if self.average is not None:
            if self.steps == 0:
                self.average.start(self.net)
            self.average.show(self.net, shown)

    def with_network(self, net: MLP, **changes: Any) -> Self:
        """A trainer of `net` with these settings and a new state; `changes`: other attributes."""
        changed = copy.copy(self)
        vars(changed).update(changes, net=net)
        Stepping._allocate(changed)  # without the advice of `Trainer`, which may be asking
        return changed

    def __copy__(self) -> Self:
        """Another trainer of the same network, with the same arrays."""
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        return other

    def __getstate__(self) -> dict[str, Any]:
        """What pickle and deepcopy keep: settings, network, and the state on the host."""
        if self.shards.world.size > 1:
            raise TypeError(
                "a trainer of several processes cannot be copied or pickled, as each has a part "
                "of its state; pass checkpoint=PATH to fit, and go on from that file"
            )
        backend = self.net.backend
        self.restore_theta()
        backend.synchronize()
        shown = self.average is not None and self.average.shown
        saved = {"state": [*map(backend.to_host, state(self))], "shown": shown}
        return {k: v for k, v in vars(self).items() if k not in ALLOCATED} | saved

    def __setstate__(self, saved: dict[str, Any]) -> None:
        """The trainer goes on as the other one would, in a backend of the same name."""
        arrays, shown = saved.pop("state"), saved.pop("shown")
        vars(self).update(saved)
        self._allocate()
        restore(self, arrays, shown)


def state(trainer: Stepping) -> list[Array]:
    """The arrays, in addition to θ, that the next step depends on."""
    average = [] if trainer.average is None else trainer.average.arrays[:1]
    return [trainer.slots, trainer.scaling, *average]


def restore(trainer: Stepping, arrays: Sequence[Array], shown: bool) -> None:
    """The trainer's `state` ← arrays; `shown` as in `Average`."""
    backend = trainer.net.backend
    for own, saved in zip(state(trainer), arrays, strict=True):
        backend.asarray(saved, out=own)
    backend.synchronize()
    if trainer.average is not None:
        trainer.average.shown = shown
