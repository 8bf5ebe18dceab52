"""The NumPy backend's operations of embeddings and of blocks."""

from __future__ import annotations

import numpy as np

from gpumlp.backends.numpy.members import one_by_one
from gpumlp.backends.stages import Stages, mask_numbers
from gpumlp.functions.embeddings import Embeddings
from gpumlp.functions.stages import Stage
from gpumlp.io.threads import Threads
from gpumlp.io.types import HostArray as Array

EACH = 16  # entries that one output of Philox serves


class NumpyStages(Stages):
    """What `NumpyBackend` inherits."""

    _threads: Threads

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

    @one_by_one
    def stage(self, stage: Stage, x: Array, phi: Array | None, y: Array) -> None:
        def block(rows: slice) -> None:
            np.copyto(y[rows], stage.forward(x[rows], phi, **stage.params), casting="same_kind")

        self._threads.over_rows(block, x)

    @one_by_one
    def stage_gradient(
        self, stage: Stage, x: Array, phi: Array | None, gy: Array, skip: Array | None,
        gx: Array, dphi: Array | None,
    ) -> None:  # fmt: skip
        def block(rows: slice) -> Array | None:
            g, sums = stage.vjp(x[rows], phi, gy[rows], **stage.params)
            np.copyto(gx[rows], g if skip is None else g + skip[rows], casting="same_kind")
            return sums

        sums = self._threads.over_rows(block, x)
        if dphi is not None:
            np.copyto(dphi, np.sum(sums, axis=0), casting="same_kind")

    @one_by_one
    def dropout(
        self, x: Array, rate: float, layer: int, row: int, seed: Array, control: Array,
        skip: Array | None, y: Array,
    ) -> None:  # fmt: skip
        threshold, factor = mask_numbers(rate)
        scale = x.dtype.type(factor)
        key, step, n = (int(seed[0]) % 2**64, layer), int(control[-1]), x.shape[1]

        def block(rows: slice) -> None:
            noise = _bits(key, step, (row + rows.start) * n, (row + rows.stop) * n)
            factors = np.where(noise < threshold, x.dtype.type(0), scale)
            factors = factors.reshape(-1, n)
            kept = np.where(factors == 0, 0, x[rows] * factors)  # also where x is not finite
            np.copyto(y[rows], kept if skip is None else kept + skip[rows])

        self._threads.over_rows(block, x)

    def join(self, x: Array, skip: Array, y: Array) -> None:
        np.add(x, skip, out=y)


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


def _bits(key: tuple[int, int], step: int, begin: int, end: int) -> Array:
    """The 16 bits of each entry begin … end of a minibatch: see `Stages.dropout`."""
    first = begin // EACH
    # as uint64: of a list, NumPy may make float64.  Its first output is that of counter first + 1
    counter, of_key = np.array([first, step, 0, 0], np.uint64), np.array(key, np.uint64)
    of = np.random.Philox(counter=counter, key=of_key)
    raw = of.random_raw(4 * (-(-end // EACH) - first)).astype("<u8", copy=False).view("<u2")
    return raw[begin - first * EACH : end - first * EACH]
