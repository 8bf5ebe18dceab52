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

    def scores(self, metric: str) -> HostArray:
        """The scores, (candidates, folds)."""
        return np.array([[fit.scores[metric] for fit in row] for row in self.fits])

    def seconds(self, i: int) -> float:
        """The mean duration of a fit of candidate i, beside others."""
        return float(np.mean([fit.seconds for fit in self.fits[i]]))

    def lost(self, i: int) -> list[int]:
        """The folds, from 0, in which candidate i diverged."""
        return [j for j, fit in enumerate(self.fits[i]) if fit.diverged]

    def as_json(self) -> dict[str, Any]:
        """All candidates, the best first, for JSON."""
        keys = {name: METRIC_KEYS.get(title, title) for name, title in self.names.items()}
        rows = []
        for i in self.order:
            scores = {key: [fit.scores[name] for fit in self.fits[i]] for name, key in keys.items()}
            rows.append({
                "options": {name.replace("_", "-"): v for name, v in self.search.values[i].items()},
                "mean": {key: float(np.mean(each)) for key, each in scores.items()},
                "std": {key: float(np.std(each)) for key, each in scores.items()},
                "scores": scores, "seconds": self.seconds(i), "diverged": self.lost(i),
            })  # fmt: skip
        return {"metric": next(iter(keys.values())), "folds": len(self.fits[0]), "candidates": rows}


def write(folder: Path, found: Results) -> None:
    """Write search.csv, search.json and search.png into the folder."""
    content = json.dumps(finite(found.as_json()), allow_nan=False, indent=1)
    atomic_write(folder / "search.json", f"{content}\n".encode())
    atomic_write(folder / "search.csv", _csv(found).encode())
    search, first = found.search, found.search.metrics[0]
    tried = {
        name.replace("_", "-"): [_drawn(each[name]) for each in search.values]
        for name in search.values[0]
    }
    title = f"{search.dataset.name}: {len(search.values)} candidates, {len(found.fits[0])} folds"
    figure = search_figure(tried, found.scores(first), metric=found.names[first], title=title)
    write_png(figure, folder / "search.png")


def print_table_of(found: Results) -> None:
    """Print the candidates, the best first."""
    search = found.search
    rows = []
    for place, i in enumerate(found.order[:ROWS]):
        values = [shown(value) for value in search.values[i].values()]
        lost = found.lost(i)
        scores = [
            f"diverged in {len(lost)} of {len(found.fits[i])}" if lost else
            f"{each.mean():.4f} ± {each.std():.4f}"
            for each in (found.scores(name)[i] for name in search.metrics)
        ]  # fmt: skip
        rows.append([str(place + 1), *values, *scores, f"{found.seconds(i):.3g}"])
    names = [name.replace("_", "-") for name in search.values[0]]
    print_table(["", *names, *found.names.values(), "seconds"], rows, left=1 + len(names))
    if len(found.order) > ROWS:
        typer.echo(f"… and {len(found.order) - ROWS} more: see search.csv")


def _csv(found: Results) -> str:
    search, out = found.search, io.StringIO()
    names = [METRIC_KEYS.get(title, title) for title in found.names.values()]
    folds = range(len(found.fits[0]))
    rows = csv.writer(out, lineterminator="\n")
    of_metrics = [
        column for name in names
        for column in (f"mean {name}", f"std {name}", *(f"{name} of fold {j + 1}" for j in folds))
    ]  # fmt: skip
    options = [name.replace("_", "-") for name in search.values[0]]
    rows.writerow(["rank", *options, *of_metrics, "seconds"])
    for place, i in enumerate(found.order):
        scores = []
        for name in search.metrics:
            each = found.scores(name)[i]
            scores += [each.mean(), each.std(), *each]
        texts = ["" if math.isnan(value) else repr(float(value)) for value in scores]
        values = [shown(value) for value in search.values[i].values()]
        rows.writerow([place + 1, *values, *texts, f"{found.seconds(i):.4g}"])
    return out.getvalue()


def _drawn(value: Any) -> Any:
    """A value as the figure takes it: a number, or a text."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if number else shown(value)
