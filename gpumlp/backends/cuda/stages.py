"""The operations of `gpumlp.backends.stages` on a GPU."""

from __future__ import annotations

from typing import Any

from gpumlp.backends.cuda.kernels import (
    HELD,
    NARROW,
    SPLITS,
    THREADS,
    Geometry,
    Kernels,
    OnDevice,
    first,
    i32,
    i64,
    sizes,
)
from gpumlp.backends.stages import Stages, mask_numbers, part_of
from gpumlp.errors import DeviceError
from gpumlp.functions.embeddings import Embeddings
from gpumlp.functions.stages import Stage
from gpumlp.io.types import Array

EMBEDDING = "embedding.cu"
TILE, LANES = 1024, 32  # as in embedding.cu
EACH = 16  # entries that one output of Philox serves: those of a thread in dropout.cu


class CudaStages(OnDevice, Stages):
    """The operations of embeddings and of blocks, for one network or K of them."""

    def embed(self, x: Array, E: Array, embeddings: Embeddings, h: Array) -> None:
        kernels, (K, rows, _) = self._kernels, sizes(x)
        own, apart = first(E)
        geometry = kernels.tile(rows, embeddings.width, 1, networks=K)
        kernels.launch("embed", EMBEDDING, geometry, (x, own, h, i64(rows), apart), embeddings)

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
            kernels.launch(name, EMBEDDING, geometry, arguments, embeddings)

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

    def stage(self, stage: Stage, x: Array, phi: Array | None, y: Array) -> None:
        K, rows, cols = sizes(y)
        kernels = self._kernels
        pack = kernels.pack_of(cols, x, phi, y)
        shape, packed = (i64(rows), i64(cols)), i32(pack > 1)
        if stage.cuda_f is not None:
            geometry = kernels.tile(K * rows, cols, pack)
            gated = x, y, i64(K * rows), i64(cols), i32(pack > 1)
            kernels.launch("stage", stage.cuda_file, geometry, gated, stage)
            return
        own, apart = first(x if phi is None else phi, 2)
        lanes, geometry = _groups(kernels, (K, rows, cols), pack)
        arguments = x, own, y, *shape, apart, packed, i32(lanes)
        kernels.launch("stage", stage.cuda_file, geometry, arguments, stage)

    def stage_gradient(
        self, stage: Stage, x: Array, phi: Array | None, gy: Array, skip: Array | None,
        gx: Array, dphi: Array | None,
    ) -> None:  # fmt: skip
        K, rows, cols = sizes(gy)
        kernels = self._kernels
        pack = kernels.pack_of(cols, x, phi, gy, skip, gx)
        if stage.cuda_f is not None:
            self._gate_gradient(stage, x, gy, gx, dphi, pack)
            return
        # without φ, the kernel reads and writes none
        (own, apart), (own_gradient, of_gradient) = (
            first(gx if each is None else each, 2) for each in (phi, dphi)
        )
        lanes, geometry = _groups(kernels, (K, rows, cols), pack, sums=len(stage.initial))
        arguments = (
            x, own, gy, x if skip is None else skip, gx, kernels.partial, own_gradient,
            kernels.arrived, i64(rows), i64(cols), apart, of_gradient, i32(skip is not None),
            i32(pack > 1), i32(lanes),
        )  # fmt: skip
        kernels.launch("stage_gradient", stage.cuda_file, geometry, arguments, stage)

    def _gate_gradient(
        self, gate: Stage, x: Array, gy: Array, gx: Array, db: Array, pack: int
    ) -> None:
        K, rows, cols = sizes(gy)
        kernels, (db, apart) = self._kernels, first(db)
        # half as many blocks as the scratch memory is for: each has the sums of both halves
        (across, high, _), block = kernels.tile(rows, cols, pack, SPLITS, 2 * K)
        arguments = (
            x, gy, gx, kernels.partial, db, kernels.arrived, i64(rows), i64(cols), apart,
            i32(pack > 1),
        )  # fmt: skip
        kernels.launch(
            "stage_gradient", gate.cuda_file, ((across, high, K), block), arguments, gate
        )

    def dropout(
        self, x: Array, rate: float, layer: int, row: int, seed: Array, control: Array,
        skip: Array | None, y: Array,
    ) -> None:  # fmt: skip
        K, rows, cols = sizes(x)
        kernels = self._kernels
        n, origin, (threshold, scale) = rows * cols, row * cols, mask_numbers(rate)
        added = x if skip is None else skip
        each = kernels.pack if kernels.aligned(x, added, y) else 1
        packed = origin % each == 0 and (K == 1 or n % each == 0) and each > 1
        arguments = (
            x, added, seed, control, y, i64(n), i64(origin), i64(layer), i64(control.shape[-1]),
            i32(threshold), kernels.dtype.type(scale), i32(skip is not None), i32(packed),
        )  # fmt: skip
        geometry = kernels.flat(origin % EACH + n, EACH, K)
        kernels.launch("dropout", "dropout.cu", geometry, arguments)

    def join(self, x: Array, skip: Array, y: Array) -> None:
        kernels, n = self._kernels, x.size
        packed = kernels.aligned(x, skip, y)
        geometry = kernels.flat(n, kernels.pack if packed else 1)
        kernels.launch("join", "dropout.cu", geometry, (x, skip, y, i64(n), i32(packed)))


def _groups(
    kernels: Kernels, shape: tuple[int, int, int], pack: int, sums: int = 0
) -> tuple[int, Geometry]:
    """The threads of stage.cu that share a row, 0 if it is too wide for them, and the geometry.

    sums: how many sums of each column the kernel computes.  Then a multiprocessor holds 2 blocks,
        and each block writes its sums.

    DeviceError: the sums of one block do not fit into the scratch memory.
    """
    K, rows, cols = shape
    each = HELD if pack > 1 and kernels.dtype.itemsize == 4 else NARROW
    lanes = 1 << (-(-cols // each) - 1).bit_length()
    lanes = lanes if lanes <= THREADS else 0
    most = kernels.blocks // K
    if sums:
        fit = len(kernels.partial) // (sums * cols * K)  # see `Kernels.networks_at_a_time`
        if fit == 0:
            raise DeviceError(f"a norm of {cols} columns is too wide for this device")
        most = min(kernels.blocks // 4 // K, fit)
    together = THREADS // (lanes or THREADS)  # rows of a block at a time
    return lanes, ((1, max(1, min(-(-rows // together), most)), K), (THREADS, 1))
