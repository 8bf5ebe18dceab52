"""The columns of x and torch's embeddings of them, as the input of the first layer."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from gpumlp.functions.embeddings import Embeddings

KNOWN = (
    "known: torch.cat([x[:, [0, 2]], embedding(x[:, 1].long()), …], 1) of all columns, those "
    "without codes first and the embeddings in the order of their columns"
)


def input_of(x: Tensor, embeddings: Embeddings, modules: Any) -> Tensor:
    """What layer 1 reads of x (…, n_0); modules: an Embedding by the number of each column."""
    parts = [x[:, embeddings.plain]] if embeddings.plain else []
    parts += [modules[str(j)](x[:, j].long()) for j in embeddings.coded]
    return torch.cat(parts, 1)


def modules_of(embeddings: Embeddings) -> nn.ModuleDict:
    """An Embedding by the number of each column."""
    return nn.ModuleDict({str(one.column): nn.Embedding(one.c, one.d) for one in embeddings.each})


@dataclass(frozen=True, eq=False)
class Columns:
    """Some columns of x: those of a list, or one with codes."""

    of: tuple[int, ...]
    codes: bool = False


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows that a module gives for the codes of a column."""

    column: int
    name: str
    module: Any


def read(graph: fx.GraphModule) -> tuple[list[Rows], set[Any], Any]:
    """The embeddings of a graph, the nodes that only they need, and the node of layer 1's input.

    Without embeddings: ([], set(), None).

    TypeError, ValueError: there are embeddings, but the columns are not as a gpumlp.MLP has them.
    """
    values: dict[Any, Any] = {}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            values[node] = "x"
        elif (found := _value(graph, node, values)) is not None:
            values[node] = found
    if not any(isinstance(each, Rows) for each in values.values()):
        return [], set(), None
    for node in graph.graph.nodes:
        if node.target is torch.cat and node.args and isinstance(node.args[0], (list, tuple)):
            parts = [values.get(each) for each in node.args[0]]
            if any(isinstance(each, Rows) for each in parts):
                rows = _checked(node, parts)
                return rows, {each for each, value in values.items() if value != "x"}, node
    raise TypeError(f"module has embeddings that are not the input of its first Linear; {KNOWN}")


def _value(graph: fx.GraphModule, node: Any, values: dict[Any, Any]) -> Any:
    """What a node gives, if it is of columns of x."""
    of = values.get(node.args[0]) if node.args and isinstance(node.args[0], fx.Node) else None
    if of is None:
        return None
    if node.target is operator.getitem and of == "x":
        index = node.args[1]
        if isinstance(index, tuple) and len(index) == 2 and index[0] == slice(None):
            if isinstance(index[1], int):
                return Columns((index[1],), codes=True)
            if isinstance(index[1], (list, tuple)):
                return Columns(tuple(index[1]))
    elif isinstance(of, Columns) and of.codes:
        if node.op == "call_method" and node.target in ("long", "int"):
            return of
        if node.op == "call_module":
            module = graph.get_submodule(node.target)
            if type(module) is nn.Embedding:
                _check(node.target, module)
                return Rows(of.of[0], node.target, module)
    return None


def _check(name: str, module: nn.Embedding) -> None:
    unset = {"padding_idx": None, "max_norm": None, "scale_grad_by_freq": False, "sparse": False}
    for setting, value in unset.items():
        if getattr(module, setting) is not value:
            raise TypeError(
                f"{name} is an Embedding with {setting}, which gpumlp does not have; make one "
                "without it, with the same weight"
            )


def _checked(node: Any, parts: list[Any]) -> list[Rows]:
    axis = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
    first = parts[0] if isinstance(parts[0], Columns) and not parts[0].codes else Columns(())
    rows = parts[1:] if first is parts[0] else parts
    coded = [each.column for each in rows if isinstance(each, Rows)]
    plain = list(first.of)
    ordered = plain == sorted(plain) and coded == sorted(coded) and len(coded) == len(rows)
    every = sorted([*plain, *coded]) == list(range(len(plain) + len(coded)))
    if axis not in (1, -1) or not ordered or not every:
        raise ValueError(f"{node.name} puts columns of x together in another way; {KNOWN}")
    return rows
