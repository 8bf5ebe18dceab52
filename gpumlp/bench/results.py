"""A part's result: one competitor on one case, in a file of its own, written whole."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from gpumlp.bench.cases import Case
from gpumlp.bench.timing import Timing
from gpumlp.storage import atomic_write

TIMED = "timed"
SUFFIX = ".result.json"
# what a further run need not try again; "missing" is tried, since it may be installed by then
FINAL = (TIMED, "refused", "failed", "left out")


@dataclass(frozen=True)
class Result:
    """What became of a competitor on a case.

    Attributes:
        status: timed; refused (it computes something else); failed, left out, missing.
        reason: of any status but timed.
        seconds: of a step, one number a round.
        ours: this library's in the same rounds, in its own process; its own result has none.
        error: of the first step's change of θ, relative to float64's.
        peak_bytes: most memory in use, counted by `peak_of`.
        first_step: seconds, {"cold": caches empty, "warm": caches filled}.
        part_seconds: what the whole part took.
        machine, notes: where it ran, and what the competitor says of itself.
    """

    case: Case
    backend: str
    competitor: str
    status: str
    reason: str = ""
    seconds: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    error: float | None = None
    peak_bytes: int | None = None
    peak_of: str = ""
    first_step: dict[str, float] = field(default_factory=dict)
    part_seconds: float = 0.0
    machine: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def timing(self) -> Timing:
        """The rounds."""
        return Timing(self.seconds)

    @property
    def ours_over_this(self) -> float:
        """What of this one's time our step takes, the median over the rounds."""
        return Timing(self.ours).ratio(self.timing) if self.ours else 1.0

    @property
    def tflops(self) -> float:
        """10¹² multiplications and additions a second, of the products a step really has."""
        return self.case.flops() / self.timing.median / 1e12

    def to_json(self) -> dict[str, Any]:
        """Everything measured, and for a reader what follows from it."""
        fields = {**asdict(self), "case": self.case.to_json()}
        if self.status == TIMED:
            low, high = self.timing.quartiles
            fields["summary"] = {
                "median_ms": 1e3 * self.timing.median,
                "quartiles_ms": [1e3 * low, 1e3 * high],
                "gpumlp_over_this": self.ours_over_this,
                "tflops": self.tflops,
                "flops": self.case.flops(),
                "rest_bytes": self.case.rest_bytes(),
            }
        return fields

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """What `to_json` was made of."""
        rest = {k: v for k, v in fields.items() if k not in ("summary", "case")}
        return cls(case=Case.from_json(fields["case"]), **rest)


class Results:
    """A folder of results.

    Raises:
        ValueError: the folder holds results of another machine, or files that are none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: dict[tuple[str, str, str], Result] = {}

    def load(self) -> None:
        """Read what is there."""
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            try:
                result = Result.from_json(json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(
                    f"{path} is no result of gpumlp bench ({error}); choose another --out"
                ) from error
            self._found[_key(result.case, result.backend, result.competitor)] = result

    def __len__(self) -> int:
        return len(self._found)

    def of(self, case: Case, backend: str, competitor: str) -> Result | None:
        """The result of that part, or None."""
        return self._found.get(_key(case, backend, competitor))

    def all(self) -> list[Result]:
        """Every result."""
        return list(self._found.values())

    def add(self, result: Result) -> None:
        """Keep a result and write its file."""
        self._found[_key(result.case, result.backend, result.competitor)] = result
        self.folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^\w.-]+", "_", f"{result.case.slug}.{result.backend}.{result.competitor}")
        text = json.dumps(result.to_json(), indent=1)
        atomic_write(self.folder / f"{name}{SUFFIX}", text.encode())


def _key(case: Case, backend: str, competitor: str) -> tuple[str, str, str]:
    return case.slug, backend, competitor
