"""```{accuracy}```: the table of accuracies, from benchmarks/results/accuracy.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "accuracy.json"


def told(result: Mapping[str, Any], metric: str) -> str:
    """Mean ± standard error, accuracies in per cent."""
    unit = 100 if metric == "accuracy" else 1
    mean, error = (unit * result[name] for name in ("mean", "standard_error"))
    return f"{mean:.1f} ± {error:.1f}"


class Accuracy(SphinxDirective):
    """One table."""

    def run(self) -> list[nodes.Node]:
        """A row a data set, a column a library, and how the figures came about."""
        found = json.loads(RESULTS.read_text("utf-8"))
        libraries = ("gpumlp", "scikit-learn", "torch")
        rows = [["data", "metric", *libraries], ["---"] * (2 + len(libraries))]
        for name, by in found["sets"].items():
            metric = "accuracy, %" if by["metric"] == "accuracy" else by["metric"]
            rows.append([name, metric, *(told(by[library], by["metric"]) for library in libraries)])
        versions = found["machine"]["versions"]
        used = ", ".join(f"{library} {versions[library]}" for library in (*libraries, "numpy"))
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        said = f"Means over {found['seeds']} splits and seeds, ± their standard errors; {used}."
        self.env.note_dependency(str(RESULTS))
        return self.parse_text_to_nodes(f"{table}\n\n{said}\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx asks for this."""
    app.add_directive("accuracy", Accuracy)
    return {"parallel_read_safe": True}
