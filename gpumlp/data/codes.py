"""Columns of categories that become codes, whose vectors an embedding of the network learns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from gpumlp.checks import positive_int
from gpumlp.data.dataset import Dataset, unknown_name
from gpumlp.data.names import as_argument, find_name, quoted

MORE = 2  # codes of a column beside its categories: one for all others, one for missing values


class Embed(NamedTuple):
    """Which columns of categories become codes, and how many entries their vectors have.

    Attributes:
        width: that of all columns with more categories than that; None for no such columns.
        columns: names of columns, and the number for each, however many categories it has.
    """

    width: int | None = None
    columns: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, value: int | Mapping[str, int] | Self | None) -> Self:
        """The columns for a number of entries, or for one for each name; checked."""
        if value is None or isinstance(value, cls):
            return cls() if value is None else value
        if isinstance(value, Mapping):
            named = [(name, positive_int(d, f"embed[{name!r}]")) for name, d in value.items()]
            return cls(None, tuple(named))
        return cls(positive_int(value, "embed"))

    def named(self, train: Dataset) -> dict[str, int]:
        """`columns`, by the names of the data; raises ValueError unless they are categories."""
        found = {}
        for text, d in self.columns:
            name = find_name(text, train.features)
            if name is None and text in train.left_out:
                why, name = train.left_out[text], as_argument([text])
                raise ValueError(
                    f"{train.name}: {quoted(text)} is left out, {why}; keep it, --keep {name}"
                    if why
                    else f"{train.name}: an embedded column is dropped; leave out --drop {name}"
                )
            if name is None:
                raise ValueError(unknown_name(train.name, "feature column", text, train.features))
            if name not in train.categories:
                kind = "dates" if name in train.dates else "numbers"
                raise ValueError(
                    f"{train.name}: only categories have embeddings, and {quoted(name)} holds "
                    f"{kind}; take them as categories, --categorical {as_argument([name])}"
                )
            found[name] = d
        if self.width is not None and not train.categories:
            raise ValueError(
                f"{train.name} has no column of categories; leave out --embed, or name the columns "
                "of numbers that stand for categories, --categorical COLUMNS"
            )
        return found


def set_to_zero(net: Any, rows: Mapping[int, Iterable[int]]) -> None:
    """Set rows of the tables of a network's embeddings to 0, by column of x and code.

    The vector of a code that the training never has then says nothing: it adds 0 to layer 1.

    rows: also has the embedded columns without such codes.  ValueError: the network has others.
    """
    if not rows:
        return
    if net.embed is None or {*net.embed.coded} != rows.keys():
        raise ValueError(
            f"the columns {[*rows]} of x are codes; build the network with their embeddings, "
            "MLP(…, embed=preparation.embed)"
        )
    for one, table in zip(net.embed.each, net.theta.E, strict=True):
        for code in rows.get(one.column, ()):
            row = table[code : code + 1]
            net.backend.asarray(np.zeros(row.shape), out=row)
