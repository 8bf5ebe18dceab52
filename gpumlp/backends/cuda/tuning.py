"""Choose the algorithm of each product: from the tuning cache, by measuring, or by heuristic.

All algorithms are measured only if `gpumlp tune` or GPUMLP_TUNE=1 asks for it: 32 algorithms for
each shape take seconds, which a short training does not earn back.  The first training of a shape
compares two: the heuristic's first algorithm with its epilogue, and the product without it, because
an epilogue may be several times slower than a kernel of our own.  GPUMLP_TUNE=0 measures nothing.
Measurements are kept in the cache, so that later runs make the same choice: algorithms of nearly
equal speed would be chosen differently from run to run, which changes the last bits of results.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from gpumlp.backends.cuda.cache import TuningCache
from gpumlp.backends.cuda.plans import Algorithm, Gemm, Plan
from gpumlp.errors import DeviceError

Run = Callable[[Algorithm], None]
Work = Callable[[], None]

FASTER = 0.97  # of a fused product's time: what the unfused one must take to be chosen at first use
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
        quick: only the heuristic's first algorithm and the product without epilogue were measured.
    """

    algorithm: Algorithm | None
    candidates: int
    microseconds: float | None = None
    first: float | None = None
    unfused: float | None = None
    quick: bool = False

    def to_json(self) -> dict[str, Any]:
        """A record that `from_json` reads."""
        chosen, times = self.algorithm, (self.microseconds, self.first, self.unfused)
        return {
            "algorithm": chosen and chosen.data.hex(),
            "workspace": chosen and chosen.workspace,
            "candidates": self.candidates,
            **dict(zip(TIMES, times, strict=True)),
            **({"quick": True} if self.quick else {}),
        }

    @classmethod
    def from_json(cls, record: Any) -> Choice:
        """The choice in a record.  Raises ValueError, TypeError or KeyError for other content."""
        chosen, times = None, [record[name] for name in TIMES]
        if record["algorithm"] is not None:
            chosen = Algorithm(bytes.fromhex(record["algorithm"]), int(record["workspace"]))
            if len(chosen.data) != 64:
                raise ValueError("an algorithm has 64 bytes")
        taken, first, unfused = (None if t is None else float(t) for t in times)
        quick = record.get("quick") is True
        return cls(chosen, int(record["candidates"]), taken, first, unfused, quick)


class Tuner:
    """Chooses how each product is computed.

    Args:
        time: time(work, quick) returns the µs that the device needs for what `work` enqueues.
        cache: earlier measurements, on disk.
        failure: cublasLt's error class.
        fuses: whether to use the epilogue of a product where nothing was measured.

    Attributes:
        comparing: whether epilogues of a training that are not in the cache are compared with the
            product without them.
        training: whether a step of a training runs.
        measuring: whether all algorithms of products that are not in the cache are measured.
        steps: whether whole steps are measured too.  That trains the network, which must be one
            that nobody needs afterwards.
        again: whether products and steps in the cache are measured again.
        found: the products whose choice was in the cache.
        measured: for each measured step, the µs of each variant.
    """

    def __init__(
        self, time: Callable[[Work, bool], float], cache: TuningCache, failure: type[Exception],
        fuses: Callable[[Gemm], bool],
    ) -> None:  # fmt: skip
        self._time, self.cache, self._failure, self._fuses = time, cache, failure, fuses
        self.measuring, self.comparing = asked()
        self.again = self.steps = self.training = False
        self.choices: dict[Gemm, Choice] = {}
        self.found: set[Gemm] = set()
        self.measured: dict[str, dict[str, float]] = {}
        self._warned: set[tuple[str, str]] = set()

    @contextmanager
    def everything(self, again: bool = False) -> Iterator[None]:
        """Measure all products, and the steps that run meanwhile.  They train what nobody needs.

        again: also those that are in the cache.
        """
        before = self.measuring, self.steps, self.again
        self.measuring, self.steps, self.again = True, True, again
        try:
            yield
        finally:
            self.measuring, self.steps, self.again = before

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

        If `steps` asks for it, all variants are made and measured.  One that fails is left out,
        with a warning, unless it is the first.
        """
        record = self.cache.get(name)
        cached = str(record.get("way")) if isinstance(record, dict) else ""
        cached = OLD_NAMES.get(cached, cached)
        if self.steps and (cached not in variants or self.again):
            made: dict[str, Work] = {}
            times: dict[str, float] = {}
            for variant, make in variants.items():
                try:
                    work = make()
                    times[variant] = self._time(work, False)
                except DeviceError as error:
                    if not made:
                        raise
                    warnings.warn(f"{name}: {variant!r} is left out: {error}", stacklevel=2)
                else:
                    made[variant] = work
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
            if self.measuring and choice.quick:
                return None
        except (ValueError, TypeError, KeyError, AttributeError):
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
        """A choice by measuring, else by the heuristic.

        Gradients that other libraries ask for are a training, too: only they need the aux of an
        epilogue.  Predictions for any number of examples are not measured.
        """
        offered = self._offered(plan, fallback)
        if not offered:
            self._warn_unfused(plan.gemm, "cublasLt has no algorithm")
            return Choice(None, 0)
        first = self.comparing and (self.training or plan.gemm.aux > 0)
        quick = first and not self.measuring and fallback is not None
        if self.measuring or quick:
            choice = self._measure(plan.gemm, offered, run, fallback, quick)
            self.cache.put(str(plan.gemm), choice.to_json())
            return choice
        fused = fallback is None or self._fuses(plan.gemm)
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
        self, gemm: Gemm, offered: Sequence[Algorithm], run: Run, fallback: Work | None,
        quick: bool,
    ) -> Choice:  # fmt: skip
        """The fastest of the candidates and the fallback; of equally fast ones, the first."""
        times: dict[Algorithm, float] = {}
        failed: list[Exception] = []
        for algorithm in offered[:1] if quick else offered:
            try:
                times[algorithm] = self._time(partial(run, algorithm), quick)
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
        unfused = self._time(fallback, quick)
        if best is None or unfused < times[best] * (FASTER if quick else 1):
            return Choice(None, len(offered), unfused, first, unfused, quick)
        return Choice(best, len(offered), times[best], first, unfused, quick)

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


def fuses(gemm: Gemm) -> bool:
    """Whether the epilogue of a product is used unmeasured on a data-centre GPU.

    For sm_90, cuBLAS 12 and 13 have no kernel of their own for relu's derivative in bfloat16: it
    runs on a kernel for sm_80, or as a second pass.
    """
    return not (gemm.epilogue == "drelu_bgrad" and gemm.dtype == "bfloat16")


def asked() -> tuple[bool, bool]:
    """Whether GPUMLP_TUNE asks to measure each product at its first use; to compare epilogues."""
    value = os.environ.get("GPUMLP_TUNE", "")
    if value not in ("", "0", "1"):
        raise ValueError(f"GPUMLP_TUNE must be 0 or 1, got {value!r}")
    return value == "1", value != "0"
