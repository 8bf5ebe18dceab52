"""The directives `accuracy`, `real-tables`, `embeddings`: figures in benchmarks/results/."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def formatted(result: Mapping[str, Any], metric: str) -> str:
    """Return mean ± standard error; accuracies are in per cent."""
    unit = 100 if metric == "accuracy" else 1
    mean, error = (unit * result[name] for name in ("mean", "standard_error"))
    return f"{mean:.1f} ± {error:.1f}"


class Accuracy(SphinxDirective):
    """The directive `accuracy`."""

    def run(self) -> list[nodes.Node]:
        """Return a table with a row for each data set and a column for each library, and a note."""
        found = results(self, "accuracy")
        libraries = ("gpumlp", "scikit-learn", "torch")
        rows = []
        for name, by in found["sets"].items():
            metric = "accuracy, %" if by["metric"] == "accuracy" else by["metric"]
            rows.append(
                [name, metric, *(formatted(by[library], by["metric"]) for library in libraries)]
            )
        versions = found["machine"]["versions"]
        used = ", ".join(f"{library} {versions[library]}" for library in (*libraries, "numpy"))
        table = markdown(["data", "metric", *libraries], rows)
        note = f"Means over {found['seeds']} splits and seeds, ± their standard errors; {used}."
        return self.parse_text_to_nodes(f"{table}\n\n{note}\n")


class RealTables(SphinxDirective):
    """The directive `real-tables`."""

    def run(self) -> list[nodes.Node]:
        """Return a table with a row for each table of a package, and a note."""
        found = results(self, "real_tables")
        titles = [
            "table", "rows", "`--target`", "`--drop`", "left out by itself", "dates", "metric",
            "value", "trivial", "s", "MB",
        ]  # fmt: skip
        rows = []
        for name, by in found["tables"].items():
            target, drop = by["options"][1], "".join(by["options"][3:])
            left_out = [each for each, why in by["left_out"].items() if why != "--drop"]
            metric = {"accuracy": "accuracy, %", "r2": "R²"}[by["metric"]]
            unit, digits = (100, 1) if by["metric"] == "accuracy" else (1, 2)
            rows.append([
                name, f"{by['examples']:,}", target, drop, ", ".join(left_out),
                ", ".join(by["dates"]), metric,
                *(f"{unit * by[key]:.{digits}f}" for key in ("value", "baseline")),
                f"{by['seconds']:.0f}", f"{by['peak_mb']:.0f}",
            ])  # fmt: skip
        used = ", ".join(f"{package} {version}" for package, version in found["packages"].items())
        machine = found["machine"]
        note = f"{used}; {machine['cores']} cores of {machine['processor']}."
        return self.parse_text_to_nodes(f"{markdown(titles, rows)}\n\n{note}\n")


class Embeddings(SphinxDirective):
    """The directive `embeddings`."""

    def run(self) -> list[nodes.Node]:
        """Return a table with R² and the seconds of each way to read categories, and a note."""
        found = results(self, "embeddings")
        ways = [*next(iter(found["tables"].values()))["ways"]]
        rows = [
            [
                name, f"{by['most_categories']:,}",
                *(f"{by['ways'][way]['r2']:.3f}" for way in ways),
                *(f"{by['ways'][way]['seconds']:.1f}" for way in ways),
            ]
            for name, by in found["tables"].items()
        ]  # fmt: skip
        figures = [f"{figure}, {way}" for figure in ("R²", "s") for way in ways]
        titles = ["table", "most categories", *figures]
        used = ", ".join(f"{package} {version}" for package, version in found["packages"].items())
        machine = found["machine"]
        note = f"{used}; {machine['cores']} cores of {machine['processor']}."
        return self.parse_text_to_nodes(f"{markdown(titles, rows)}\n\n{note}\n")


def results(directive: SphinxDirective, name: str) -> Any:
    """Return the contents of benchmarks/results/NAME.json, on which the page then depends."""
    path = RESULTS / f"{name}.json"
    directive.env.note_dependency(str(path))
    return json.loads(path.read_text("utf-8"))


def markdown(titles: list[str], rows: list[list[str]]) -> str:
    """Return a table as Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (titles, ["---"] * len(titles), *rows))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("accuracy", Accuracy)
    app.add_directive("real-tables", RealTables)
    app.add_directive("embeddings", Embeddings)
    return {"parallel_read_safe": True}
