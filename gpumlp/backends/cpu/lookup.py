"""The operations of embeddings as calls of the library."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpumlp.backends.cpu.calls import Calls
from gpumlp.backends.cpu.works import Work
from gpumlp.functions.embeddings import Embeddings
from gpumlp.io.types import HostArray as Array


class LookupLowering(Calls):
    """What `Lowering` inherits."""

    def embed(self, x: Array, E: Array, embeddings: Embeddings, h: Array) -> Iterator[Work]:
        plain = np.array(embeddings.plain, np.int64)
        tables = embeddings.numbers(h.shape[1])
        yield self._plain(
            "embed", x, E, h, *x.shape, h.shape[1], plain, len(plain), tables, len(tables),
            real=self._stored,
        )  # fmt: skip

    def embed_gradient(
        self, x: Array, g: Array, embeddings: Embeddings, order: Array, sums: Array, dE: Array,
        factors: Array | None = None,
    ) -> Iterator[Work]:  # fmt: skip
        tables = embeddings.numbers(g.shape[1])
        yield self._plain(
            "embed_gradient", x, g, dE, dE.size, *x.shape, g.shape[1], tables, len(tables), order,
            factors,
            real=self._stored,
        )  # fmt: skip
