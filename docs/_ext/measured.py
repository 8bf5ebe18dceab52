"""The directive `accuracy`: the table of accuracies in benchmarks/results/accuracy.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "accuracy.json"


def formatted(result: Mapping[str, Any], metric: str) -> str:
    """Return mean ± standard error; accuracies are in per cent."""
    unit = 100 if metric == "accuracy" else 1
    mean, error = (unit * result[name] for name in ("mean", "standard_error"))
    return f"{mean:.1f} ± {error:.1f}"


class Accuracy(SphinxDirective):
    """The directive `accuracy`."""

    def run(self) -> list[nodes.Node]:
        """Return a table with a row for each data set and a column for each library, and a note."""
        found = json.loads(RESULTS.read_text("utf-8"))
        libraries = ("gpumlp", "scikit-learn", "torch")
        rows = [["data", "metric", *libraries], ["---"] * (2 + len(libraries))]
        for name, by in found["sets"].items():
            metric = "accuracy, %" if by["metric"] == "accuracy" else by["metric"]
            rows.append(
                [name, metric, *(formatted(by[library], by["metric"]) for library in libraries)]
            )
        versions = found["machine"]["versions"]
        used = ", ".join(f"{library} {versions[library]}" for library in (*libraries, "numpy"))
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        note = f"Means over {found['seeds']} splits and seeds, ± their standard errors; {used}."
        self.env.note_dependency(str(RESULTS))
        return self.parse_text_to_nodes(f"{table}\n\n{note}\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("accuracy", Accuracy)
    return {"parallel_read_safe": True}
