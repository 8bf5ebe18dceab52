"""Which inputs of a network belong to which column of a table."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from gpumlp.data.dataset import Categories
from gpumlp.data.dates import part_names
from gpumlp.io.types import HostArray

OTHER = "other"


class Layout:
    """The inputs of all columns. A table may have very many, so nothing is done column by column.

    Args:
        features: the names of the columns.
        categories: the categories of each column of categories.
        others: the columns with an input for all other categories.
        dates: the parts of each column of dates that are inputs.
        holes: the columns with an input for missing values.

    Attributes:
        names: the names of the inputs.
        places: for each kind of inputs ("number", "category", "missing", or a part of dates) the
            places of its columns, and of their first inputs: (2, k).
    """

    def __init__(
        self, features: Sequence[str], categories: Categories, others: Collection[str],
        dates: Mapping[str, Sequence[str]], holes: Collection[str],
    ) -> None:  # fmt: skip
        self._features, self._categories, self._others = features, categories, {*others}
        self._dates, self._holes = dates, {*holes}
        names, places = list[str](), dict[str, list[tuple[int, int]]](category=[], missing=[])
        for kind, j, own in self._inputs():
            places.setdefault(kind, []).append((j, len(names)))
            names += own
        self.names = tuple(names)
        self.places = {k: np.array(found, int).reshape(-1, 2).T for k, found in places.items()}

    def _inputs(self) -> Iterator[tuple[str, int, list[str]]]:
        """The inputs in their order: their kind, the place of their column, and their names."""
        for j, name in enumerate(self._features):
            if name in self._categories:
                names = [f"{name}={word}" for word in self._categories[name]]
                yield "category", j, names + [f"{name} {OTHER}"] * (name in self._others)
            else:
                yield "number", j, [name]
            for part in self._dates.get(name, ()):
                yield part, j, part_names(name, part)
            if name in self._holes:
                yield "missing", j, [f"{name} missing"]

    def one_hot(self, categories: Categories) -> OneHot:
        """The inputs of positions in the lists of these categories."""
        tables: list[list[int]] = []
        for j, at in self.places["category"].T.tolist():
            name = self._features[j]
            own = {word: at + i for i, word in enumerate(self._categories[name])}
            rest = at + len(own) if name in self._others else -1
            tables.append([*(own.get(word, rest) for word in categories[name]), rest])
        return OneHot(tables)


class OneHot:
    """The inputs that categories set to 1.

    Args:
        tables: for each column the input of each position in its list of categories, the last one
            for any other category; −1 if there is none.
    """

    def __init__(self, tables: Sequence[Sequence[int]]) -> None:
        self._inputs = np.array([at for table in tables for at in [*table, -1]], np.int64)
        self._missing = np.cumsum([len(table) + 1 for table in tables], dtype=np.int64) - 1
        self._first = np.append(0, self._missing + 1)[: len(tables)]

    def __call__(self, x: HostArray) -> HostArray:
        """The input for each position in x (m, k), −1 if there is none: (m, k), int64."""
        code = np.where(np.isnan(x), self._missing, self._first + x)
        return self._inputs[code.astype(np.int64)]
