"""`Preparation.inputs` as ONNX nodes: columns of a table → inputs of the network."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, cast

import numpy as np

from gpumlp.data import Preparation
from gpumlp.data.codes import MORE
from gpumlp.data.date_parts import PARTS, part_inputs
from gpumlp.data.spelling import Known, plain, spellings
from gpumlp.interop.onnx_graph import Graph, Signature, Symbol

SUPPORTED = (  # the fields of a Preparation that the graph implements; others raise an error
    "task", "features", "target", "classes", "shift", "scale", "y_shift", "y_scale", "fill",
    "holes", "categories", "others", "formats", "constant", "dates", "embedded", "zones",
)  # fmt: skip
ML_DOMAIN = "ai.onnx.ml", 2  # the domain of LabelEncoder, and its first version with these tables


def graph_inputs(preparation: Preparation) -> Signature:
    """One matrix "x" of numbers; or, if there are categories, one input for each column."""
    words = preparation.categories
    if not words:
        return {"x": (float, len(preparation.features))}
    return {
        input_name(preparation, name): (object if name in words else float, 1)
        for name in preparation.features
    }


def input_name(preparation: Preparation, column: str) -> str:
    """The name of a column's input: the column's own, which ONNX does not allow to be empty."""
    name = column or "unnamed"
    while name != column and name in preparation.features:
        name += "_"
    return name


def network_inputs(graph: Graph, preparation: Preparation, width: int) -> str:
    """The inputs (m, width) of the network, as `Preparation.inputs` computes them, cast."""
    _check(preparation, width)
    graph.place = "inputs/"
    places, others = preparation.layout.places, {*preparation.others}
    holes = dict(places["missing"].T.tolist())
    blocks, inputs = list[str](), list[int]()  # the input that each column of a block is; −1: none
    if "number" in places:
        numeric, at = places["number"].tolist()
        x, gone = _numbers(graph, preparation, numeric)
        blocks, inputs = [x], at
        if holes.keys() & numeric:  # a block that says which are missing
            blocks.append(graph.cast(gone, float))
            inputs = inputs + [holes.get(j, -1) for j in numeric]
    for part in (part for part in PARTS if part in places):
        dated, first = places[part]
        for i, block in enumerate(_date_part(graph, preparation, part, dated.tolist())):
            blocks.append(block)
            inputs += (first + i).tolist()
    for j, start in places["category"].T.tolist():
        name = preparation.features[j]
        block, n = _one_hot(graph, preparation, name, name in others, j in holes)
        if n:  # else all of its words were rare
            blocks.append(block)
            inputs += range(start, start + n)
    for j, at in places["code"].T.tolist():
        name, n = preparation.features[j], len(preparation.categories[preparation.features[j]])
        code = _positions(graph, preparation, name, missing=n + MORE - 1, other=n)
        blocks.append(graph.cast(code, float))
        inputs.append(at)
    order = np.argsort(inputs)[inputs.count(-1) :].tolist()
    x = graph.node("Concat", *blocks, axis=1) if len(blocks) > 1 else blocks[0]
    if order != list(range(len(inputs))):
        x = graph.node("Gather", x, graph.constant(order, np.int64, "inputs/order"), axis=1)
    return graph.cast(x, graph.dtype)


def _numbers(graph: Graph, preparation: Preparation, numeric: list[int]) -> tuple[str, str]:
    """The numeric columns, filled and standardised, and whether their values are missing."""
    x, gone = _columns(graph, preparation, numeric, "numbers"), ""

    def constant(name: str) -> str:
        values = getattr(preparation, name)
        return graph.constant([values[j] for j in numeric], float, f"inputs/{name}")

    if preparation.fill is not None:
        gone = graph.node("IsNaN", x)
        x = graph.node("Where", gone, constant("fill"), x)
    still = [preparation.constant.get(preparation.features[j]) for j in numeric]
    if preparation.constant:
        mask = graph.constant([value is not None for value in still], bool, "inputs/is_constant")
        value = graph.constant([value or 0.0 for value in still], float, "inputs/constant")
        x = graph.node("Where", mask, value, x)
    if preparation.shift is not None:
        x = graph.node("Sub", x, constant("shift"))
        x = graph.node("Div", x, constant("scale"))
    return x, gone


def _columns(graph: Graph, preparation: Preparation, places: list[int], what: str) -> str:
    """The columns at these places among the features, which are numbers, as one matrix."""
    if preparation.categories:
        names = [input_name(preparation, preparation.features[j]) for j in places]
        return graph.node("Concat", *names, axis=1)
    if len(places) == len(preparation.features):
        return "x"
    return graph.node("Gather", "x", graph.constant(places, np.int64, f"inputs/{what}"), axis=1)


def _date_part(graph: Graph, preparation: Preparation, part: str, places: list[int]) -> list[str]:
    """The three inputs of a part of dates, for the columns at these places, in days."""
    dtype, graph.dtype = graph.dtype, np.dtype(float)  # days need float64
    try:
        days: Any = Symbol(graph, _columns(graph, preparation, places, part))
        return [each.as_number() for each in cast("list[Symbol]", part_inputs(part, days))]
    finally:
        graph.dtype = dtype


def _one_hot(
    graph: Graph, preparation: Preparation, name: str, other: bool, hole: bool
) -> tuple[str, int]:
    """The inputs (m, n) for a column of categories, and n: each word selects a row of a table.

    An unknown word selects the row of the shared input, or zeros; "", a missing value, the row with
    the input for missing values, if there is one.

    other, hole: whether the column has these inputs.
    """
    known = preparation.categories[name]
    n = len(known) + other
    table = np.zeros((n + 2, n + hole))
    np.fill_diagonal(table[:n, :n], 1)
    table[n, n:] = 1
    row = _positions(graph, preparation, name, n, len(known) if other else n + 1)
    rows = graph.node("Gather", graph.constant(table, float, f"inputs/words/{name}"), row)
    return graph.node("Squeeze", rows, graph.constant([1], np.int64)), n + hole


def _positions(graph: Graph, preparation: Preparation, name: str, missing: int, other: int) -> str:
    """The place of each word of a column among its categories; or the number for other words."""
    known = preparation.categories[name]
    places = {word: i for i, word in enumerate(known)} | {"": missing}
    find = Known(known).find  # none for the spelling of two words, such as True of true and TRUE
    for text in (text for word in known for text in spellings(word)):
        if (i := find(plain(text))) is not None:
            places.setdefault(text, i)
    return graph.node(
        "LabelEncoder", input_name(preparation, name), domain=ML_DOMAIN[0],
        keys_strings=[*places], values_int64s=[*places.values()], default_int64=other,
    )  # fmt: skip


def _check(preparation: Preparation, width: int) -> None:
    """Raise if the graph would differ from the preparation."""
    more = [field.name for field in fields(preparation) if field.name not in SUPPORTED]
    missing = [name for name in more if getattr(preparation, name)]
    if missing:
        raise ValueError(
            f"the model's preparation has {', '.join(missing)}, which cannot be written in ONNX; "
            "export the network alone, preparation=None, and prepare x before it"
        )
    if len(preparation.columns) != width:
        raise ValueError(
            f"preparation makes {len(preparation.columns)} inputs but the network has {width}; "
            "pass the preparation of this network's file"
        )
