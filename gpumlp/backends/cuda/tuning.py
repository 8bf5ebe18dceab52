"""Which algorithm does a product: a winner from the disk, the fastest measured, or the first.

Nothing is measured unless `gpumlp tune` or GPUMLP_TUNE=1 asks for it.  Thirty-two algorithms a
shape take seconds that a short training never earns back, and near ties fall one way today and the
other tomorrow, which changes the last bits of a result.  Measured once and kept on disk, the
cache are the same in every run.
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


@dataclass(frozen=True)
class Choice:
    """How a product is done, and what was measured to decide it, in µs.

    Attributes:
        algorithm: None where the way without the epilogue is taken.
        candidates: algorithms that were to choose from.
        microseconds: of the choice; None where nothing was measured.
        first: of the heuristic's favourite; None also where it failed.
        otherwise: of the way without the epilogue; None also where there is none.
    """

    algorithm: Algorithm | None
    candidates: int
    microseconds: float | None = None
    first: float | None = None
    otherwise: float | None = None

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        chosen = self.algorithm
        return {
            "algorithm": chosen and chosen.data.hex(),
            "workspace": chosen and chosen.workspace,
            "candidates": self.candidates,
            "microseconds": self.microseconds,
            "first": self.first,
            "otherwise": self.otherwise,
        }

    @classmethod
    def from_json(cls, record: Any) -> Choice:
        """The choice of a record; ValueError, TypeError or KeyError for what is none."""
        chosen, times = None, [record[name] for name in ("microseconds", "first", "otherwise")]
        if record["algorithm"] is not None:
            chosen = Algorithm(bytes.fromhex(record["algorithm"]), int(record["workspace"]))
            if len(chosen.data) != 64:
                raise ValueError("an algorithm has 64 bytes")
        return cls(
            chosen, int(record["candidates"]), *(None if t is None else float(t) for t in times)
        )


class Tuner:
    """Chooses how each product is done.

    Args:
        time: ``time(work)``: µs that the device takes for what `work` hands it.
        cache: of earlier measurements, on disk.
        failure: cublasLt's class of errors.
        fuse: whether an epilogue is used where nothing was measured.

    Attributes:
        measuring: whether products without a winner are measured.
        steps: whether whole steps are, too, which trains: only what is thrown away may be.
        again: whether those with one are, too.
        choices: all that were made, in order.
        found: those of them that were on disk.
        measured: the µs of each way of a step that `fastest` has measured.
    """

    def __init__(
        self,
        time: Callable[[Work], float],
        cache: TuningCache,
        failure: type[Exception],
        fuse: bool,
    ) -> None:
        self._time, self.cache, self._failure, self._fuse = time, cache, failure, fuse
        self.measuring, self.again, self.steps = measuring_asked(), False, False
        self.choices: dict[Gemm, Choice] = {}
        self.found: set[Gemm] = set()
        self.measured: dict[str, dict[str, float]] = {}
        self._said: set[tuple[str, str]] = set()

    def choose(self, plan: Plan, run: Run, otherwise: Work | None) -> Choice:
        """The choice for a plan.

        run: hands the product with an algorithm to the device.
        otherwise: does the same without the plan's epilogue; None where it has none.
        """
        choice = self._kept(plan, otherwise)
        if choice is None:
            choice = self._made(plan, run, otherwise)
        else:
            self.found.add(plan.gemm)
        self.choices[plan.gemm] = choice
        return choice

    def fastest(self, what: str, ways: Mapping[str, Callable[[], Work]]) -> Work:
        """What the way makes that is the winner for `what`, else the first; see `steps`."""
        record = self.cache.get(what)
        kept = str(record.get("way")) if isinstance(record, dict) else ""
        if self.steps and (kept not in ways or self.again):
            made = {way: make() for way, make in ways.items()}
            times = {way: self._time(work) for way, work in made.items()}
            best = min(times, key=times.__getitem__)
            self.measured[what] = times
            self.cache.put(what, {"way": best, "microseconds": times})
            return made[best]
        return ways[kept if kept in ways else next(iter(ways))]()

    def give_up(self, gemm: Gemm, error: Exception) -> Choice:
        """The choice after an epilogue's algorithm, unmeasured, has failed at work."""
        self._say_unfused(gemm, f"cublasLt's algorithm failed ({error})")
        self.choices[gemm] = Choice(None, self.choices[gemm].candidates)
        return self.choices[gemm]

    def _kept(self, plan: Plan, otherwise: Work | None) -> Choice | None:
        """The winner on disk, if cublasLt still takes it."""
        record = self.cache.get(str(plan.gemm))
        if record is None or (self.measuring and self.again):
            return None
        try:
            choice = Choice.from_json(record)
        except (ValueError, TypeError, KeyError):
            usable = False
        else:
            chosen = choice.algorithm
            usable = otherwise is not None if chosen is None else plan.accepts(chosen)
        if usable:
            return choice
        warnings.warn(
            f"{self.cache.path}: the winner for {plan.gemm} cannot be used here and is "
            "ignored; `gpumlp tune` finds another",
            stacklevel=2,
        )
        return None

    def _made(self, plan: Plan, run: Run, otherwise: Work | None) -> Choice:
        offered = self._offered(plan, otherwise)
        if not offered:
            self._say_unfused(plan.gemm, "cublasLt has no algorithm")
            return Choice(None, 0)
        if self.measuring:
            choice = self._fastest(plan.gemm, offered, run, otherwise)
            self.cache.put(str(plan.gemm), choice.to_json())
            return choice
        fused = self._fuse or otherwise is None
        return Choice(offered[0] if fused else None, len(offered))

    def _offered(self, plan: Plan, otherwise: Work | None) -> list[Algorithm]:
        """The candidates; none for an epilogue that cublasLt has not, which is no error."""
        try:
            offered = plan.candidates()
        except self._failure:
            if otherwise is None:
                raise
            return []
        if not offered and otherwise is None:
            raise DeviceError(f"cublasLt has no algorithm for {plan.gemm}")
        return offered

    def _fastest(
        self, gemm: Gemm, offered: Sequence[Algorithm], run: Run, otherwise: Work | None
    ) -> Choice:
        """The fastest of the candidates and the way without the epilogue; in a tie the earliest."""
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
                f"{len(failed)} of {len(offered)} algorithms failed for {gemm} and are left out "
                f"({failed[0]})",
                stacklevel=2,
            )
        if otherwise is None:
            if best is None:
                raise failed[0]
            return Choice(best, len(offered), times[best], first)
        if best is None:
            self._say_unfused(gemm, f"every algorithm failed ({failed[0]})")
        unfused = self._time(otherwise)
        if best is None or unfused < times[best]:
            return Choice(None, len(offered), unfused, first, unfused)
        return Choice(best, len(offered), times[best], first, unfused)

    def _say_unfused(self, gemm: Gemm, why: str) -> None:
        """One warning for each epilogue and precision."""
        about = gemm.epilogue, gemm.compute
        if about in self._said:
            return
        self._said.add(about)
        warnings.warn(
            f"{why} for {gemm}: kernels of gpumlp's own do without the epilogue", stacklevel=2
        )


def measuring_asked() -> bool:
    """Whether the environment asks that products be measured at their first use."""
    asked = os.environ.get("GPUMLP_TUNE", "0")
    if asked not in ("0", "1"):
        raise ValueError(f"GPUMLP_TUNE must be 0 or 1, got {asked!r}")
    return asked == "1"
