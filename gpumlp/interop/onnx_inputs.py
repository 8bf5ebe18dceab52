"""Preparation.inputs as ONNX nodes: raw columns → what the network sees."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gpumlp.interop.tracing import Graph

if TYPE_CHECKING:
    from gpumlp.data import Preparation

BUILT = (  # what of a Preparation the graph does; a model that needs more is refused
    "task", "features", "target", "classes", "shift", "scale", "y_shift", "y_scale", "fill",
    "holes", "categories", "others",
)  # fmt: skip
WORDS = "ai.onnx.ml", 2  # the domain of LabelEncoder, and the oldest version that has its tables


def entries(preparation: Preparation) -> dict[str, tuple[npt.DTypeLike, int]]:
    """The graph's inputs: dtype and width by name.

    One matrix "x" of numbers; or where there are categories, each column by its name.
    """
    if not preparation.categories:
        return {"x": (np.dtype(float), len(preparation.features))}
    words = preparation.categories
    return {
        name: (np.dtype(object if name in words else float), 1) for name in preparation.features
    }


def seen(graph: Graph, preparation: Preparation, width: int) -> str:
    """What the network sees, as `Preparation.inputs` and the backend's cast have it: (m, width)."""
    _check(preparation, width)
    graph.place = "inputs/"
    features, words, holes = preparation.features, preparation.categories, preparation.holes
    numeric = [j for j, name in enumerate(features) if name not in words]
    blocks: list[str] = []
    keys: list[tuple[int, int] | None] = []  # of the blocks' columns: the feature, its how-manieth
    if numeric:
        x, gone = _numbers(graph, preparation, numeric)
        blocks, keys = [x], [(j, 0) for j in numeric]
        if any(features[j] in holes for j in numeric):  # beside each, whether it was missing
            blocks.append(graph.cast(gone, float))
            keys += [(j, 1) if features[j] in holes else None for j in numeric]
    for j, name in enumerate(features):
        if name in words:
            block, n = _hot(graph, preparation, name)
            blocks.append(block)
            keys += [(j, i) for i in range(n)]
    order = [keys.index(key) for key in sorted(key for key in keys if key is not None)]
    x = graph.node("Concat", *blocks, axis=1) if len(blocks) > 1 else blocks[0]
    if order != list(range(len(keys))):
        x = graph.node("Gather", x, graph.constant(order, np.int64, "inputs/order"), axis=1)
    return graph.cast(x, graph.dtype)


def _numbers(graph: Graph, preparation: Preparation, numeric: list[int]) -> tuple[str, str]:
    """The numeric columns, filled and standardised, and where they were missing."""
    x, gone = "x", ""
    if preparation.categories:
        x = graph.node("Concat", *(preparation.features[j] for j in numeric), axis=1)

    def constant(name: str) -> str:
        return graph.constant(
            [getattr(preparation, name)[j] for j in numeric], float, f"inputs/{name}"
        )

    if preparation.fill is not None:
        gone = graph.node("IsNaN", x)
        x = graph.node("Where", gone, constant("fill"), x)
    if preparation.shift is not None:
        x = graph.node("Sub", x, constant("shift"))
        x = graph.node("Div", x, constant("scale"))
    return x, gone


def _hot(graph: Graph, preparation: Preparation, name: str) -> tuple[str, int]:
    """A column of words as its inputs, (m, n), and n: a row of a table for each word.

    Of unknown words the row of all others, or zeros; of "", a missing one, whether it is.
    """
    known, other = preparation.categories[name], name in preparation.others
    n, hole = len(known) + other, name in preparation.holes
    table = np.zeros((n + 2, n + hole))
    np.fill_diagonal(table[:n, :n], 1)
    table[n, n:] = 1
    row = graph.node(
        "LabelEncoder", name, domain=WORDS[0], keys_strings=[*known, ""],
        values_int64s=[*range(len(known)), n], default_int64=len(known) if other else n + 1,
    )  # fmt: skip
    rows = graph.node("Gather", graph.constant(table, float, f"inputs/words/{name}"), row)
    return graph.node("Squeeze", rows, graph.constant([1], np.int64)), n + hole


def _check(preparation: Preparation, width: int) -> None:
    """Raise where the graph would do other than the preparation."""
    more = [field.name for field in fields(preparation) if field.name not in BUILT]
    unbuilt = [name for name in more if getattr(preparation, name)]
    if unbuilt:
        raise ValueError(
            f"the model's preparation has {', '.join(unbuilt)}, which an ONNX graph of gpumlp's "
            "does not do; export the network alone, preparation=None, and prepare x before it"
        )
    if len(preparation.columns) != width:
        raise ValueError(
            f"preparation makes {len(preparation.columns)} inputs but the network has {width}; "
            "pass the preparation of this network's file"
        )


def check_names(graph: Graph, preparation: Preparation) -> None:
    """Raise where a column's name is none that an input of the graph can have."""
    taken = {"", *graph.constants, *(name for node in graph.nodes for name in node.output)}
    for name in taken.intersection(entries(preparation)):
        raise ValueError(
            f"the column {name!r} cannot be an input of that name, which the graph needs itself; "
            "rename it and train again, or export the network alone, preparation=None"
        )
