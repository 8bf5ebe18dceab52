"""The programs of a step, which trainers of equal settings share: no arrays are in them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gpumlp.backends import Backend
from gpumlp.io.types import Array
from gpumlp.step.plan import Plan
from gpumlp.step.program import Buffer
from gpumlp.step.settings import Known, Settings, described, shape_of
from gpumlp.step.tables import Tables
from gpumlp.step.training import TrainingStep

STEPS, SHAPES = 32, 4  # that are kept: of settings, and of the data for each


class Recipe:
    """The programs of a step on the minibatches of some tables, planned.

    Attributes:
        plans: the planned ways to do each step: by the examples of the minibatch and the first
            micro-batch.  A step is one program if all examples are in the backend, else one for
            each micro-batch.
        size: the bytes of an arena for all of them.
    """

    def __init__(self, step: TrainingStep, tables: Tables) -> None:
        self._step, self.tables = step, tables
        self.plans: dict[tuple[int, int], dict[str, Plan]] = {}
        for of in tables.sizes:
            for j in range(max(1, len(tables.parts(of)))) if tables.streams else [None]:
                self.plans[of, j or 0] = step.plans(tables, of, j)
        self.size = max(planned.size for ways in self.plans.values() for planned in ways.values())
        # what the backend has compiled, without its arrays
        self._compiled: dict[tuple[int, int], Callable[[Sequence[Array]], Any]] = {}

    def whole(self, of: int) -> dict[str, Plan]:
        """The ways to do a step on `of` examples as one program, also where data is streamed."""
        return self._step.plans(self.tables, of)

    def compiled(
        self, backend: Backend, arena: Array, held: Mapping[Buffer, Array], name: str
    ) -> dict[tuple[int, int], Callable[[int], None]]:
        """The programs with these arrays.  `held` has the same buffers, in one order, in each call.

        name: what the time of a step depends on, but for the minibatch.
        """
        roots, found = [arena, *held.values()], {}
        for (of, j), ways in self.plans.items():
            if (of, j) in self._compiled:
                found[of, j] = self._compiled[of, j](roots)
                continue
            calls = {way: p.calls(backend, p.arrays(arena, held)) for way, p in ways.items()}
            at = f"{name}, minibatch {of}{self.tables.part_name(of, j)}"
            found[of, j] = backend.compile(calls, at)
            if movable := backend.movable(found[of, j], roots):
                self._compiled[of, j] = movable
        return found


class Recipes:
    """The step of some settings, and its recipes by the shapes of the data."""

    def __init__(self, settings: Settings) -> None:
        self.step = TrainingStep(settings)
        self.known = Known(SHAPES)

    def of(self, shapes: Hashable, tables: Callable[[], Tables]) -> Recipe:
        """The recipe of these shapes, on which the result of `tables` depends alone."""
        found: Recipe = self.known.found(shapes, lambda: Recipe(self.step, tables()))
        return found


_shared = Known(STEPS)


def recipes(settings: Settings) -> Recipes:
    """Those of these settings; on the host, the same ones for trainers with equal settings."""
    net, shape, shards = settings.net, shape_of(settings.net), settings.shards
    if shape is None or shards.count > 1 or shards.world.size > 1:
        return Recipes(settings)  # which may hold the network
    own = {k: v for k, v in vars(settings).items() if k not in ("net", "shards")}
    own |= {"rates": frozenset(settings.rates), "groups": tuple(settings.groups.items())}

    def made() -> Recipes:
        return Recipes(replace(settings, net=described(net, net.backend)))

    found: Recipes = _shared.found((shape, tuple(own.items())), made)
    return found
