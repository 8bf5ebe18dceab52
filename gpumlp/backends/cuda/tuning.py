"""Choose the algorithm of each product: from the tuning cache, by measuring, or by heuristic.

Nothing is measured unless `gpumlp tune` or GPUMLP_TUNE=1 asks for it.  To measure 32 algorithms for
each shape takes seconds, which a short training does not earn back.  Algorithms of nearly equal
speed would also be chosen differently from run to run, which changes the last bits of results.
Measurements in the cache give the same choice in every run.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from gpumlp.backends.cuda.cache import TuningCache
from gpumlp.backends.cuda.plans import Algorithm, Gemm, Plan
from gpumlp.errors import DeviceError

Run = Callable[[Algorithm], None]
Work = Callable[[], None]

TIMES = ("microseconds", "first", "otherwise")  # of a `Choice`, as the cache file names them
# variants of a step, as earlier versions named them in the cache file
OLD_NAMES = {"in turn": "sequential", "branched, updated at once": "branched, early update"}


@dataclass(frozen=True)
class Choice:
    """How a product is computed, and the measured times in µs behind the decision.

    Attributes:
        algorithm: None if the product is computed without its epilogue.
        candidates: the number of algorithms that cublasLt offered.
        microseconds: of the choice; None if nothing was measured.
        first: of the heuristic's first algorithm; None also if that algorithm failed.
        unfused: without the epilogue; None also if the product has no epilogue.
    """

    algorithm: Algorithm | None
    candidates: int
    microseconds: float | None = None
    first: float | None = None
    unfused: float | None = None

    def to_json(self) -> dict[str, Any]:
        """A record that `from_json` reads."""
        chosen, times = self.algorithm, (self.microseconds, self.first, self.unfused)
        return {
            "algorithm": chosen and chosen.data.hex(),
            "workspace": chosen and chosen.workspace,
            "candidates": self.candidates,
            **dict(zip(TIMES, times, strict=True)),
        }

    @classmethod
    def from_json(cls, record: Any) -> Choice:
        """The choice in a record.  Raises ValueError, TypeError or KeyError for other content."""
        chosen, times = None, [record[name] for name in TIMES]
        if record["algorithm"] is not None:
            chosen = Algorithm(bytes.fromhex(record["algorithm"]), int(record["workspace"]))
            if len(chosen.data) != 64:
                raise ValueError("an algorithm has 64 bytes")
        return cls(
            chosen, int(record["candidates"]), *(None if t is None else float(t) for t in times)
        )


class Tuner:
    """Chooses how each product is computed.

    Args:
        time: time(work) returns the µs that the device needs for what `work` enqueues.
        cache: earlier measurements, on disk.
        failure: cublasLt's error class.
        fuse: whether to use epilogues where nothing was measured.

    Attributes:
        measuring: whether products that are not in the cache are measured.
        steps: whether whole steps are measured too.  That trains the network, which must be one
            that nobody needs afterwards.
        again: whether products and steps in the cache are measured again.
        choices: all choices so far, in order.
        found: the products whose choice was in the cache.
        measured: for each measured step, the µs of each variant.
    """

    def __init__(
        self, time: Callable[[Work], float], cache: TuningCache, failure: type[Exception],
        fuse: bool,
    ) -> None:  # fmt: skip
        self._time, self.cache, self._failure, self._fuse = time, cache, failure, fuse
        self.measuring, self.again, self.steps = measuring_asked(), False, False
        self.choices: dict[Gemm, Choice] = {}
        self.found: set[Gemm] = set()
        self.measured: dict[str, dict[str, float]] = {}
        self._warned: set[tuple[str, str]] = set()

    def choose(self, plan: Plan, run: Run, fallback: Work | None) -> Choice:
        """The choice for a plan.

        run: enqueues the product with an algorithm.
        fallback: computes the same without the plan's epilogue; None if the plan has no epilogue.
        """
        choice = self._cached(plan, fallback)
        if choice is None:
            choice = self._new(plan, run, fallback)
        else:
            self.found.add(plan.gemm)
        self.choices[plan.gemm] = choice
        return choice

    def fastest(self, name: str, variants: Mapping[str, Callable[[], Work]]) -> Work:
        """Make the variant that is the fastest for `name` in the cache, else the first one.

        If `steps` asks for it, all variants are made and measured.
        """
        record = self.cache.get(name)
        cached = str(record.get("way")) if isinstance(record, dict) else ""
        cached = OLD_NAMES.get(cached, cached)
        if self.steps and (cached not in variants or self.again):
            made = {variant: make() for variant, make in variants.items()}
            times = {variant: self._time(work) for variant, work in made.items()}
            best = min(times, key=times.__getitem__)
            self.measured[name] = times
            self.cache.put(name, {"way": best, "microseconds": times})
            return made[best]
        return variants[cached if cached in variants else next(iter(variants))]()

    def give_up(self, gemm: Gemm, error: Exception) -> Choice:
        """The choice after the unmeasured algorithm of an epilogue has failed."""
        self._warn_unfused(gemm, f"cublasLt's algorithm failed ({error})")
        self.choices[gemm] = Choice(None, self.choices[gemm].candidates)
        return self.choices[gemm]

    def _cached(self, plan: Plan, fallback: Work | None) -> Choice | None:
        """The choice in the cache, if cublasLt still accepts it."""
        record = self.cache.get(str(plan.gemm))
        if record is None or (self.measuring and self.again):
            return None
        try:
            choice = Choice.from_json(record)
        except (ValueError, TypeError, KeyError):
            usable = False
        else:
            chosen = choice.algorithm
            usable = fallback is not None if chosen is None else plan.accepts(chosen)
        if usable:
            return choice
        warnings.warn(
            f"{self.cache.path}: the algorithm for {plan.gemm} cannot be used here and is "
            "ignored; `gpumlp tune` finds another",
            stacklevel=2,
        )
        return None

    def _new(self, plan: Plan, run: Run, fallback: Work | None) -> Choice:
        """A choice by measuring, if that is asked for, else by the heuristic."""
        offered = self._offered(plan, fallback)
        if not offered:
            self._warn_unfused(plan.gemm, "cublasLt has no algorithm")
            return Choice(None, 0)
        if self.measuring:
            choice = self._measure(plan.gemm, offered, run, fallback)
            self.cache.put(str(plan.gemm), choice.to_json())
            return choice
        fused = self._fuse or fallback is None
        return Choice(offered[0] if fused else None, len(offered))

    def _offered(self, plan: Plan, fallback: Work | None) -> list[Algorithm]:
        """The candidates.  An empty list if cublasLt lacks the epilogue, which is no error."""
        try:
            offered = plan.candidates()
        except self._failure:
            if fallback is None:
                raise
            return []
        if not offered and fallback is None:
            raise DeviceError(f"cublasLt has no algorithm for {plan.gemm}")
        return offered

    def _measure(
        self, gemm: Gemm, offered: Sequence[Algorithm], run: Run, fallback: Work | None
    ) -> Choice:
        """The fastest of the candidates and the fallback; of equally fast ones, the first."""
        times: dict[Algorithm, float] = {}
        failed: list[Exception] = []
        for algorithm in offered:
            try:
                times[algorithm] = self._time(partial(run, algorithm))
            except self._failure as error:
                failed.append(error)
        best = min(times, key=times.__getitem__, default=None)
        first = times.get(offered[0])
        if failed and best is not None:
            warnings.warn(
                f"{len(failed)} of {len(offered)} algorithms failed for {gemm} and are not used "
                f"({failed[0]})",
                stacklevel=2,
            )
        if fallback is None:
            if best is None:
                raise failed[0]
            return Choice(best, len(offered), times[best], first)
        if best is None:
            self._warn_unfused(gemm, f"every algorithm failed ({failed[0]})")
        unfused = self._time(fallback)
        if best is None or unfused < times[best]:
            return Choice(None, len(offered), unfused, first, unfused)
        return Choice(best, len(offered), times[best], first, unfused)

    def _warn_unfused(self, gemm: Gemm, reason: str) -> None:
        """Warn once for each epilogue and precision."""
        kind = gemm.epilogue, gemm.compute
        if kind in self._warned:
            return
        self._warned.add(kind)
        warnings.warn(
            f"{reason} for {gemm}: gpumlp's own kernels compute it without the epilogue",
            stacklevel=2,
        )


def measuring_asked() -> bool:
    """Whether GPUMLP_TUNE asks to measure each product at its first use."""
    asked = os.environ.get("GPUMLP_TUNE", "0")
    if asked not in ("0", "1"):
        raise ValueError(f"GPUMLP_TUNE must be 0 or 1, got {asked!r}")
    return asked == "1"
