"""The result of one competitor on one case. Each result has a file of its own."""

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


@dataclass(frozen=True)
class Result:
    """The result of a competitor on a case.

    Attributes:
        status: "timed"; "refused" (it computes something else); "failed", "left out", "missing",
            or "late" (the time was over).
        reason: why it was not timed.
        seconds: seconds of a step, one number for each round.
        ours: the same of this library in the same rounds; empty in the result of this library.
        error: relative error of the first change of θ, compared with float64.
        peak_bytes: the most memory in use; `peak_of` says which memory.
        first_step: seconds, {"cold": with empty caches, "warm": with filled caches}.
        part_seconds: seconds for all of it, start and check included.
        machine, notes: where it ran, and what the competitor reports about itself.
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
    def key(self) -> tuple[str, str, str]:
        """What no other result has."""
        return self.case.slug, self.backend, self.competitor

    @property
    def timing(self) -> Timing:
        """The rounds."""
        return Timing(self.seconds)

    @property
    def ours_over_this(self) -> float:
        """Time of this library over that of the competitor: the median of the rounds' ratios."""
        return Timing(self.ours).ratio(self.timing) if self.ours else 1.0

    @property
    def tflops(self) -> float:
        """10¹² FLOPs per second, counted by `Case.flops`."""
        return self.case.flops() / self.timing.median / 1e12

    def to_json(self) -> dict[str, Any]:
        """All fields, and a summary that a reader would compute from them."""
        fields = asdict(self)
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
        """The result whose `to_json` gave these fields."""
        stored = {k: v for k, v in fields.items() if k != "summary"}
        return cls(**{**stored, "case": Case.from_json(fields["case"])})


class Results(dict[tuple[str, str, str], Result]):
    """The results in a folder, by `Result.key`."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def load(self) -> None:
        """Read the files of the folder. Raises ValueError if one of them holds no result."""
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            try:
                result = Result.from_json(json.loads(path.read_text(encoding="utf-8")))
                self[result.key] = result
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ValueError(
                    f"{path} is not a result of gpumlp bench ({error}); choose another --out"
                ) from error

    def add(self, result: Result) -> None:
        """Add a result and write its file."""
        self[result.key] = result
        self.folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^\w.-]+", "_", ".".join(result.key))
        text = json.dumps(result.to_json(), indent=1)
        atomic_write(self.folder / f"{name}{SUFFIX}", text.encode())
