"""The results of a search: ranked, as a table, as files and as a figure."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import typer

from gpumlp.cli.candidates import shown
from gpumlp.cli.cross_validation import Fit, Search
from gpumlp.cli.fit_options import FitOptions
from gpumlp.cli.options import dashed
from gpumlp.cli.output import METRIC_KEYS, finite, print_table
from gpumlp.errors import DivergenceError
from gpumlp.io.types import HostArray
from gpumlp.plots import write_png
from gpumlp.plots.search import search_figure
from gpumlp.storage import atomic_write

FILES = ("search.csv", "search.json", "search.png")
ROWS = 20  # the most rows of the printed table


@dataclass(frozen=True)
class Results:
    """The results of a search.

    Attributes:
        fits: (candidates, folds).
        order: the candidates' numbers, the best first; those that diverged are the last.
        names: what the scores are called, by the names that --metric has for them.
    """

    search: Search
    fits: Sequence[Sequence[Fit]]
    order: Sequence[int]
    names: Mapping[str, str]

    @classmethod
    def of(cls, search: Search, fits: Sequence[Sequence[Fit]]) -> Self:
        """Rank the candidates.  DivergenceError: all of them diverged."""
        usual = "accuracy" if search.dataset.classes else "R²"
        names = {name: usual if name == "auto" else name for name in search.metrics}
        first = search.metrics[0]
        means = [float(np.mean([fit.scores[first] for fit in row])) for row in fits]
        order = sorted(
            range(len(fits)), key=lambda i: math.inf if math.isnan(means[i]) else -means[i]
        )
        found = cls(search, fits, order, names)
        if math.isnan(means[order[0]]):
            reasons = [fit.diverged for row in fits for fit in row if fit.diverged]
            if not reasons:
                raise ValueError(
                    f"--metric {first} is NaN in a fold of each candidate; use another metric, or "
                    "fewer --folds"
                )
            raise DivergenceError(
                f"--try: every candidate diverged in a fold ({reasons[0]}); try smaller "
                "learning rates, such as --try lr=0.0001,0.001, or pass --clip-norm 1.0"
            )
        return found

    @property
    def best(self) -> FitOptions:
        """The options of the best candidate."""
        return self.search.candidates[self.order[0]]

    @property
    def keys(self) -> list[str]:
        """What the scores are called in files."""
        return [METRIC_KEYS.get(title, title) for title in self.names.values()]

    def scores(self, metric: str) -> HostArray:
        """The scores, (candidates, folds)."""
        return np.array([[fit.scores[metric] for fit in row] for row in self.fits])

    def texts(self, i: int) -> list[str]:
        """The values of candidate i, as --try takes them."""
        return [*map(shown, self.search.values[i].values())]

    def seconds(self, i: int) -> float:
        """The mean duration of a fit of candidate i, beside others."""
        return float(np.mean([fit.seconds for fit in self.fits[i]]))

    def lost(self, i: int) -> list[int]:
        """The folds, from 0, in which candidate i diverged."""
        return [j for j, fit in enumerate(self.fits[i]) if fit.diverged]

    def as_json(self) -> dict[str, Any]:
        """All candidates, the best first, for JSON."""
        rows = []
        for i in self.order:
            each = dict(zip(self.keys, (self.scores(name)[i] for name in self.names), strict=True))
            rows.append({
                "options": {dashed(name): v for name, v in self.search.values[i].items()},
                "mean": {key: float(scores.mean()) for key, scores in each.items()},
                "std": {key: float(scores.std()) for key, scores in each.items()},
                "scores": {key: scores.tolist() for key, scores in each.items()},
                "seconds": self.seconds(i), "diverged": self.lost(i),
            })  # fmt: skip
        return {"metric": self.keys[0], "folds": len(self.fits[0]), "candidates": rows}


def write(folder: Path, found: Results) -> None:
    """Write search.csv, search.json and search.png into the folder."""
    content = json.dumps(finite(found.as_json()), allow_nan=False, indent=1)
    atomic_write(folder / "search.json", f"{content}\n".encode())
    atomic_write(folder / "search.csv", _csv(found).encode())
    search, first = found.search, found.search.metrics[0]
    columns = zip(*(map(_drawn, each.values()) for each in search.values), strict=True)
    tried = dict(zip(search.names, columns, strict=True))
    title = f"{search.dataset.name}: {len(search.values)} candidates, {len(found.fits[0])} folds"
    figure = search_figure(tried, found.scores(first), metric=found.names[first], title=title)
    write_png(figure, folder / "search.png")


def print_table_of(found: Results) -> None:
    """Print the candidates, the best first."""
    names, rows = found.search.names, []
    for place, i in enumerate(found.order[:ROWS], 1):
        lost = found.lost(i)
        scores = [
            f"diverged in {len(lost)} of {len(found.fits[i])}" if lost else
            f"{each.mean():.4f} ± {each.std():.4f}"
            for each in (found.scores(name)[i] for name in found.names)
        ]  # fmt: skip
        rows.append([str(place), *found.texts(i), *scores, f"{found.seconds(i):.3g}"])
    print_table(["", *names, *found.names.values(), "seconds"], rows, left=1 + len(names))
    if len(found.order) > ROWS:
        typer.echo(f"… and {len(found.order) - ROWS} more: see search.csv")


def _csv(found: Results) -> str:
    folds = range(len(found.fits[0]))
    of_metrics = [
        column for key in found.keys
        for column in (f"mean {key}", f"std {key}", *(f"{key} of fold {j + 1}" for j in folds))
    ]  # fmt: skip
    rows: list[list[Any]] = [["rank", *found.search.names, *of_metrics, "seconds"]]
    for place, i in enumerate(found.order, 1):
        each = [found.scores(name)[i] for name in found.names]
        numbers = [float(x) for scores in each for x in (scores.mean(), scores.std(), *scores)]
        texts = ["" if math.isnan(number) else repr(number) for number in numbers]
        rows.append([place, *found.texts(i), *texts, f"{found.seconds(i):.4g}"])
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def _drawn(value: Any) -> Any:
    """A value as the figure takes it: a number, or a text."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if number else shown(value)
