"""The directive `entries`: the table of one kind of function, made from its entries."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import gpumlp
from gpumlp.functions.entry import Entry

WORDS = {
    "ACTIVATIONS": "Activations f of hidden and output layers, by name.",
    "LOSSES": "Losses L(ŷ, y), by name.",
    "REGULARIZERS": "Regularisers Ω(θ), by name.",
    "NORMS": "Norms of a layer's input, by name.",
    "OPTIMIZERS": "Update rules, by name.",
    "SCHEDULES": "Learning-rate schedules over a fit, by name.",
    "INITIALIZERS": "Initialisers of the weights, by name.",
}


def facts(entry: Entry) -> dict[str, str]:
    """Return the facts about an entry that its row of the table shows."""
    params = ", ".join(
        f"{name} = {value:g}" + (f" in {entry.limits[name]}" if name in entry.limits else "")
        for name, value in entry.params.items()
    )
    found = {"parameters": params or "none"}
    if isinstance(entry, gpumlp.Activation):
        found["f' reads"] = ", ".join(entry.reads) or "nothing"
        found["within cublasLt"] = "yes" if entry.epilogue else "no"
    elif isinstance(entry, gpumlp.Loss):
        found["y"] = {"class": "labels, or rows of probabilities"}.get(entry.target, entry.target)
        found["predict gives"] = "ŷ" if entry.link.name == "identity" else f"{entry.link.name}(ŷ)"
    elif isinstance(entry, gpumlp.Stage):
        columns = isinstance(entry, gpumlp.ColumnStage)
        found["means over"] = "columns of a minibatch" if columns else "rows"
        found["φ begins with"] = ", ".join(f"{value:g}" for value in entry.initial) or "none"
    elif isinstance(entry, gpumlp.Optimizer):
        found["usual lr"] = f"{entry.lr:g}"
        found["state"] = ", ".join(entry.slots) or "none"
        found["folds"] = "yes" if entry.fold else "no"
    return found


class Entries(SphinxDirective):
    """The directive `entries`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table as nodes, under the name of the Python object."""
        name = self.arguments[0]
        rows = {key: facts(entry) for key, entry in getattr(gpumlp, name).items()}
        columns = ["name", *next(iter(rows.values()))]
        lines = [f".. py:data:: gpumlp.{name}", "", f"   {WORDS[name]}", ""]
        lines += ["   .. list-table::", "      :header-rows: 1", ""]
        table = [columns, *([f"``{key}``", *row.values()] for key, row in rows.items())]
        for row in table:
            lines += [f"      {'-' if i else '* -'} {cell}" for i, cell in enumerate(row)]
        lines = [f"  {line}" if line.startswith("      - ") else line for line in lines]
        text = "\n".join(lines)
        return self.parse_text_to_nodes(f"```{{eval-rst}}\n{text}\n```\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("entries", Entries)
    return {"parallel_read_safe": True}
