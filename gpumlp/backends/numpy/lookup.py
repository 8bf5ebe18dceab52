"""The NumPy backend's operations of embeddings."""

from __future__ import annotations

import numpy as np

from gpumlp.backends.lookup import Lookup
from gpumlp.backends.numpy.members import one_by_one
from gpumlp.functions.embeddings import Embeddings
from gpumlp.io.types import HostArray as Array


class NumpyLookup(Lookup):
    """What `NumpyBackend` inherits."""

    @one_by_one
    def embed(self, x: Array, E: Array, embeddings: Embeddings, h: Array) -> None:
        h[:, : len(embeddings.plain)] = x[:, embeddings.plain]
        for codes, table, columns in _tables(x, E, embeddings):
            h[:, columns] = table[codes]

    @one_by_one
    def embed_gradient(
        self, x: Array, g: Array, embeddings: Embeddings, order: Array, sums: Array, dE: Array,
        factors: Array | None = None,
    ) -> None:  # fmt: skip
        if factors is None:
            dE.fill(0)
        g = g[:, g.shape[1] - embeddings.added :]
        first = len(embeddings.plain)
        for codes, table, columns in _tables(x, dE, embeddings):
            by_code = np.argsort(codes, kind="stable")
            found, starts = np.unique(codes[by_code], return_index=True)
            rows = g[by_code, columns.start - first : columns.stop - first]
            total = np.add.reduceat(rows, starts, axis=0)
            table[found] = total if factors is None else table[found] + factors[0] * total


def _tables(
    x: Array, E: Array, embeddings: Embeddings
) -> list[tuple[Array, Array, slice]]:  # fmt: skip
    """Of each embedding its codes (m,), its table (c, d), and its columns of layer 1's input."""
    found = []
    for i, one in enumerate(embeddings.each):
        start, place = embeddings.starts[i], embeddings.places[i]
        table = E[start : start + one.c * one.d].reshape(one.c, one.d)
        codes = x[:, one.column].astype(np.intp)
        found.append((codes, table, slice(place, place + one.d)))
    return found
