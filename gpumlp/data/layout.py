"""Which inputs of a network belong to which column of a table."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from gpumlp.data.codes import MORE
from gpumlp.data.dataset import Categories
from gpumlp.data.date_parts import part_names
from gpumlp.io.types import HostArray

OTHER = "other"


class Layout:
    """The inputs of all columns. A table may have very many, so nothing is done column by column.

    Args:
        categories: the categories of each column of categories.
        others: the columns with an input for all other categories.
        dates: the parts of each column of dates that are inputs.
        holes: the columns with missing values in training.
        embedded: the columns of categories with one input, the code of the category.

    Attributes:
        places: for each kind of inputs ("number", "category", "code", "missing", or a part of
            dates) the places of its columns, and of their first inputs: (2, k).
        holes: the places of the columns with missing values in training.
        words: the places of the columns of categories; the number of categories that each has, and
            whether it has others: (3, k).
    """

    def __init__(
        self, features: Sequence[str], categories: Categories, others: Collection[str],
        dates: Mapping[str, Sequence[str]], holes: Collection[str], embedded: Collection[str] = (),
    ) -> None:  # fmt: skip
        self._features, self._categories, self._others = features, categories, {*others}
        self._dates, self._holes, self._embedded = dates, {*holes}, embedded
        kinds = ("category", "code", "missing")
        names, places = list[str](), {kind: list[tuple[int, int]]() for kind in kinds}
        for kind, j, own in self._inputs():
            places.setdefault(kind, []).append((j, len(names)))
            names += own
        self.names = tuple(names)
        self.places = {k: np.array(found, int).reshape(-1, 2).T for k, found in places.items()}
        self.holes = np.array([j for j, n in enumerate(features) if n in self._holes], int)
        words = [
            (j, len(categories[name]), name in self._others)
            for j, name in enumerate(features)
            if name in categories
        ]
        self.words = np.array(words, int).reshape(-1, 3).T

    def _inputs(self) -> Iterator[tuple[str, int, list[str]]]:
        """The inputs in their order: their kind, the place of their column, and their names."""
        for j, name in enumerate(self._features):
            if name in self._embedded:
                yield "code", j, [name]
                continue
            if name in self._categories:
                names = [f"{name}={word}" for word in self._categories[name]]
                yield "category", j, names + [f"{name} {OTHER}"] * (name in self._others)
            else:
                yield "number", j, [name]
            for part in self._dates.get(name, ()):
                yield part, j, part_names(name, part)
            if name in self._holes:
                yield "missing", j, [f"{name} missing"]

    def lookups(self, categories: Categories) -> dict[str, Lookup]:
        """For "category" and "code" what the positions in the lists of these categories become.

        That is the input that is 1 for the category, −1 if there is none; or the code of the
        category: its place among the model's own, then the code of all others, then that of a
        missing value.
        """
        found = {}
        for kind in ("category", "code"):
            tables: list[list[int]] = []
            for j, at in self.places[kind].T.tolist():
                name = self._features[j]
                first, n = (0 if kind == "code" else at), len(self._categories[name])
                own = {word: first + i for i, word in enumerate(self._categories[name])}
                rest, gone = n, n + MORE - 1
                if kind == "category":
                    rest, gone = at + n if name in self._others else -1, -1
                tables.append([*(own.get(word, rest) for word in categories[name]), rest, gone])
            found[kind] = Lookup(tables)
        return found


class Lookup:
    """A number for each position in the list of categories of a column.

    Args:
        tables: for each column the number of each position, then that of any other category, and
            then that of a missing value.
    """

    def __init__(self, tables: Sequence[Sequence[int]]) -> None:
        self._numbers = np.array([number for table in tables for number in table], np.int64)
        self._missing = np.cumsum([len(table) for table in tables], dtype=np.int64) - 1
        self._first = np.append(0, self._missing + 1)[: len(tables)]

    def __call__(self, x: HostArray) -> HostArray:
        """The number of each position in x (m, k), NaN if missing: (m, k), int64."""
        at = np.where(np.isnan(x), self._missing, self._first + x)
        return self._numbers[at.astype(np.int64)]
