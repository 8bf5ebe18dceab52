"""The operations of `gpumlp.backends.lookup` on a GPU."""

from __future__ import annotations

from typing import Any

from gpumlp.backends.cuda.kernels import THREADS, Geometry, OnDevice, first, i32, i64, sizes
from gpumlp.backends.lookup import Lookup, part_of
from gpumlp.functions.embeddings import Embeddings
from gpumlp.io.types import Array

FILE = "embedding.cu"
TILE, LANES = 1024, 32  # as in embedding.cu


class CudaLookup(OnDevice, Lookup):
    """The operations of embeddings, for one network or K of them."""

    def embed(self, x: Array, E: Array, embeddings: Embeddings, h: Array) -> None:
        kernels, (K, rows, _) = self._kernels, sizes(x)
        own, apart = first(E)
        geometry = kernels.tile(rows, embeddings.width, 1, networks=K)
        kernels.launch("embed", FILE, geometry, (x, own, h, i64(rows), apart), embeddings)

    def embed_gradient(
        self, x: Array, g: Array, embeddings: Embeddings, order: Array, sums: Array, dE: Array,
        factors: Array | None = None,
    ) -> None:  # fmt: skip
        kernels, (K, rows, _) = self._kernels, sizes(x)
        own, apart = first(dE)
        n, tables = own.size if factors is None else 0, len(embeddings.each)
        adds, numbers = i32(factors is not None), sums if factors is None else factors
        of_order = order if order.ndim == 3 else order[0]
        now, later = of_order[0], of_order[1]
        behind = i64(2 * tables * rows)

        def launch(name: str, geometry: Geometry, *arguments: Any) -> None:
            kernels.launch(name, FILE, geometry, arguments, embeddings)

        size = min(TILE, 1 << max(1, (rows - 1).bit_length()))
        packed = kernels.aligned(own) and (K == 1 or apart % kernels.pack == 0)
        of_zeros = kernels.flat(n, kernels.pack, K)[0][0]
        blocks = max(of_zeros, min(tables * -(-rows // size), max(1, kernels.blocks // K)))
        launch(
            "embed_sort", ((blocks, 1, K), (THREADS, 1)), x, now, own, i64(rows), i64(n), apart,
            behind, i32(size), i32(packed),
        )  # fmt: skip
        run = size
        while run < rows:
            geometry = kernels.flat(tables * rows, 1, K)
            launch("embed_merge", geometry, now, later, i64(rows), behind, i64(run))
            now, later, run = later, now, 2 * run
        each = part_of(rows)
        widest = max(one.d for one in embeddings.each)
        groups = THREADS // min(LANES, 1 << (widest - 1).bit_length())
        most = max(1, kernels.blocks // (tables * K))
        high = min(-(-rows // groups), most)
        launch(
            "embed_sum", ((high, tables, K), (THREADS, 1)), now, g, own, sums, numbers, i64(rows),
            i64(g.shape[-1]), apart, behind, i64(each), adds,
        )  # fmt: skip
        high = min(-(-rows // (each * groups)), most)
        if rows > each:
            launch(
                "embed_join", ((high, tables, K), (THREADS, 1)), now, own, sums, numbers, i64(rows),
                apart, behind, i64(each), adds,
            )  # fmt: skip
