"""The bars that a GPU must meet, and the figures that `benchmarks.gpu_report` found beside them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# the parts of kernels' tests, and the stages that run tests and sanitizers
KERNELS = (  # the files of tests/kernels/ that launch kernels
    "activation", "loss", "theta", "split_theta", "gather", "cast", "stages", "columns",
    "embedding", "empty",
)  # fmt: skip
TESTS = (
    "smoke",
    "tests-step",
    "tests-rest",
    "tests-distributed",
    *(f"tests-{part}" for part in KERNELS),
)
SANITIZED = tuple(
    f"{tool}-{part}" for tool in ("memcheck", "racecheck") for part in KERNELS if part != "cast"
)
RESULT = Path(__file__).parent / "results" / "gpu.json"
WIDE, SMALL = [8192] * 9, [512] * 5
AMP, BF16 = "torch.compile", "torch.compile bf16 parameters"
GRAPH, FLOOR, PRODUCTS = "torch.compile one graph", "floor", "products by torch"
MET, NOT_MET, NOT_MEASURED = "met", "NOT MET", "not measured"


class Figures:
    """What the stages of a report have written to its folder."""

    def __init__(self, folder: Path) -> None:
        self.outcomes = {
            each["name"]: each["status"]
            for each in map(_json, folder.glob("*.outcome.json"))
            if each
        }
        paths = [path for path in sorted(folder.glob("*.json")) if path.name != "gpu.json"]
        self.content = {path.stem: _json(path) for path in paths}
        found = [one for each in self._with("results") for one in each["results"]]
        self.results = [one for one in found if one["status"] == "timed"]
        self.kernels = {
            f"{stage} {one['name']}": one["extra_info"]
            for stage, each in self.content.items() if isinstance(each, dict)
            for one in each.get("benchmarks", ())
        }  # fmt: skip

    def _with(self, key: str) -> list[dict[str, Any]]:
        return [each for each in self.content.values() if isinstance(each, dict) and key in each]

    def result(self, competitor: str, **case: Any) -> dict[str, Any] | None:
        """The result of a competitor on the case with these fields, on a GPU."""
        for one in self.results:
            is_it = (one["competitor"], one["backend"]) == (competitor, "cupy")
            if is_it and all(one["case"][name] == value for name, value in case.items()):
                return one
        return None

    def ratio(self, peer: str, **case: Any) -> float | None:
        """Our time over that of the peer."""
        one = self.result(peer, **case)
        return None if one is None else float(one["summary"]["gpumlp_over_this"])

    def passed(self, stages: Sequence[str]) -> float | None:
        """The share of these stages that passed; None if none failed and not all have run."""
        found = [self.outcomes.get(name, "") for name in stages]
        if "FAILED" not in found and set(found) != {"passed"}:
            return None
        return found.count("passed") / len(found)


def _json(path: Path) -> Any:
    """The content of a file; None if it was not written to its end."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class Bar:
    """What must hold.

    Attributes:
        text: names it.
        limit: the largest figure, or the smallest if `least`.
        find: the figure; None if it was not measured.
    """

    text: str
    limit: float
    find: Callable[[Figures], float | None]
    least: bool = False

    def row(self, figures: Figures) -> dict[str, Any]:
        """Its line in the table."""
        figure = self.find(figures)
        met = figure is not None and (
            figure >= self.limit if self.least else figure <= self.limit
        )  # fmt: skip
        status = NOT_MEASURED if figure is None else MET if met else NOT_MET
        return {"bar": self.text, "limit": self.limit, "least": self.least,
                "figure": figure, "status": status}  # fmt: skip


def bars() -> list[Bar]:
    """All of them, in the order of the table."""
    wide = {"widths": WIDE, "precision": "bfloat16", "activation": "gelu"}
    small = {"widths": SMALL, "batch_size": 256, "optimizer": "adamw", "precision": "float32"}
    found = [
        Bar("tests/gpu, share of the parts that pass", 1, lambda f: f.passed(TESTS), least=True),
        Bar(
            "compute-sanitizer, share of the parts without a finding", 1,
            lambda f: f.passed(SANITIZED), least=True,
        ),
    ]  # fmt: skip
    for peer, name, limits in (
        (AMP, "torch.compile AMP", (0.90, 0.87, 0.78)),
        (BF16, "torch.compile with bf16 parameters", (0.98, 0.97, 0.95)),
    ):
        for m, limit in zip((8192, 4096, 1024), limits, strict=True):
            case = wide | {"batch_size": m, "optimizer": "adamw"}
            text = f"8192×8 bf16 gelu adamw @{m}, time over that of {name}"
            found.append(Bar(text, limit, _ratio(peer, **case)))
    sgd = wide | {"batch_size": 1024, "optimizer": "sgd"}
    over = "time over that of torch.compile"
    return [
        *found,
        Bar(f"8192×8 bf16 gelu sgd @1024, {over} AMP", 0.70, _ratio(AMP, **sgd)),
        Bar(f"512×4 fp32 relu adamw @256, {over}", 0.5, _ratio(AMP, **small)),
        Bar("the same, over that of torch's whole step as one graph", 0.8, _ratio(GRAPH, **small)),
        Bar("64 networks 512×3 tf32 adam @256, time over that of torch.func.vmap, compiled", 0.7,
            _ensembles),
        Bar("slowest own kernel, share of a 2 GB copy's speed", 0.90, _slowest_kernel, least=True),
        Bar("our products, time over that of torch's", 1.00, _products),
        Bar("peak memory over torch.compile AMP's", 0.75, _memory),
        Bar("first step, cached, s", 1.5, lambda f: _first_step(f, "warm")),
        Bar("first step, not cached, s", 10, lambda f: _first_step(f, "cold")),
        Bar("bf16 behind fp32 on mnist5k, points of accuracy", 0.5, _accuracy),
        Bar("figures kept in benchmarks/results/gpu.json", 1, _kept, least=True),
    ]  # fmt: skip


def _ratio(peer: str, **case: Any) -> Callable[[Figures], float | None]:
    return lambda figures: figures.ratio(peer, **case)


def _slowest_kernel(figures: Figures) -> float | None:
    """Of the arrays that no cache holds."""
    shares = [
        each["share_of_copy"] for name, each in figures.kernels.items()
        if "share_of_copy" in each and not name.startswith("kernels-")
    ]  # fmt: skip
    return min(shares, default=None)


def _products(figures: Figures) -> float | None:
    """The largest ratio over the cases. Both were timed beside rounds of our step."""
    ratios = []
    for one in figures.results:
        if one["competitor"] != PRODUCTS:
            continue
        floor = figures.result(FLOOR, **one["case"])
        if floor is None:
            continue
        ours = statistics.median(floor["seconds"]) - floor["notes"]["extra_seconds"]
        ours /= statistics.median(floor["ours"])
        torch = statistics.median(one["seconds"]) / statistics.median(one["ours"])
        ratios.append(ours / torch)
    return max(ratios, default=None)


def _memory(figures: Figures) -> float | None:
    """The largest ratio over the wide cases."""
    ratios = []
    for one in figures.results:
        ours = figures.result("gpumlp", **one["case"])
        if one["competitor"] == AMP and one["case"]["widths"] == WIDE and ours:
            ratios.append(ours["peak_bytes"] / one["peak_bytes"])
    return max(ratios, default=None)


def _ensembles(figures: Figures) -> float | None:
    micros = (figures.content.get("ensembles") or {}).get("us_a_step")
    return micros["gpumlp"] / micros["torch vmap"] if micros else None


def _first_step(figures: Figures, start: str) -> float | None:
    """The longest of our first steps in any case."""
    found: Iterable[float] = (
        one["first_step"][start] for one in figures.results
        if one["competitor"] == "gpumlp" and start in one["first_step"]
    )  # fmt: skip
    return max(found, default=None)


def _accuracy(figures: Figures) -> float | None:
    scores = (figures.content.get("accuracy") or {}).get("accuracy")
    if not scores:
        return None
    mean = {precision: statistics.mean(values) for precision, values in scores.items()}
    return 100 * (mean["float32"] - mean["bfloat16"])


def _kept(_: Figures) -> float | None:
    return 1.0 if RESULT.exists() else None


def epilogues(figures: Figures) -> list[str]:
    """Each product with an epilogue that `gpumlp tune` measured: is the epilogue worth it?"""
    lines = [
        f"| {stage} | {row['m']}×{row['n']}×{row['k']} {row['dtype']} | {row['epilogue']} "
        f"| {'yes' if row['fused'] else 'no'} | {_shown(row['first_microseconds'])} "
        f"| {_shown(row['unfused_microseconds'])} | {_shown(row['microseconds'])} |"
        for stage, content in figures.content.items() if stage.startswith("tune-") and content
        for row in content["products"] if row["epilogue"]
    ]  # fmt: skip
    head = [
        "",
        "## epilogues",
        "",
        "| stage | product | epilogue | used | first µs | without µs | µs |",
    ]
    return [*head, "| --- | --- | --- | --- | --- | --- | --- |", *lines] if lines else []


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def table(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The table of the bars, for a page."""
    lines = ["| bar | must be | figure | |", "| --- | --- | --- | --- |"]
    for row in rows:
        sign, figure = "≥" if row["least"] else "≤", row["figure"]
        lines.append(
            f"| {row['bar']} | {sign} {row['limit']:g} | {_shown(figure)} | {row['status']} |"
        )
    return lines
