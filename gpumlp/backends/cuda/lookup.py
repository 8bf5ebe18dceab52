"""The operations of `gpumlp.backends.lookup` on a GPU."""

from __future__ import annotations

from gpumlp.backends.lookup import Lookup
from gpumlp.errors import DeviceError
from gpumlp.functions.embeddings import Embeddings
from gpumlp.io.types import Array


class CudaLookup(Lookup):
    """The operations of embeddings."""

    def embed(self, x: Array, E: Array, embeddings: Embeddings, h: Array) -> None:
        raise DeviceError('embeddings need backend="cpu" or "numpy"')

    def embed_gradient(self, x: Array, g: Array, embeddings: Embeddings, dE: Array) -> None:
        raise DeviceError('embeddings need backend="cpu" or "numpy"')
