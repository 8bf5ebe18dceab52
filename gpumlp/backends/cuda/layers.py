"""The operations of a layer on a GPU: products, with cublasLt's epilogues where possible, and what
our own kernels compute of their results.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.backends.cuda.kernels import (
    HELD,
    MOST_LANES,
    NARROW,
    SPLITS,
    THREADS,
    WARP,
    Geometry,
    OnDevice,
    first,
    i32,
    i64,
    sizes,
)
from gpumlp.backends.cuda.protocol import Epilogue, mask_shape
from gpumlp.functions import Activation, Loss
from gpumlp.functions.activations import identity
from gpumlp.io.types import Array

WIDTH_MULTIPLE = 8  # n must be a multiple: gelu's aux and all fast kernels need it


class CudaLayers(OnDevice):
    """What `CudaBackend` inherits.

    For relu, z may be a bit mask, an array of uint8.  The epilogue of one product writes the mask
    and the epilogue of another reads it; our own kernels read h instead.  The device may use the
    epilogue in the forward pass and not in the backward pass, or the reverse.  So this class
    remembers which masks the last forward pass has written.
    """

    _written_masks: set[int]  # addresses

    def pre_activation(
        self, f: Activation, m: int, n: int
    ) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        storage = self._kernels.storage
        if "z" in f.reads:
            return (m, n), storage
        if f.epilogue == "relu" and _has_epilogues(storage, n):
            return mask_shape(m, n), np.dtype(np.uint8)
        return None

    # ---- products -----------------------------------------------------------------------------

    def affine_activation(
        self, h_below: Array, W: Array, b: Array, f: Activation, z: Array, h: Array
    ) -> None:
        s = h if _is_mask(z) else z

        def unfused() -> None:
            self._device.gemm(h_below, W, s, transpose_b=True, compute=self.precision)
            self._bias_activation(b, f, s, h)

        fused, epilogue = False, self._forward_epilogue(b, f, z, h)
        if epilogue is None:
            unfused()
        else:
            fused = self._device.gemm(
                h_below, W, h, transpose_b=True, compute=self.precision, epilogue=epilogue,
                fallback=unfused,
            )  # fmt: skip
        if _is_mask(z):
            address = self._device.address(z)
            (self._written_masks.add if fused else self._written_masks.discard)(address)

    def weight_gradient(self, gz: Array, h_below: Array, dW: Array, factors: Array | None) -> None:
        self._device.gemm(
            gz, h_below, dW, transpose_a=True, compute=self.precision, factors=factors
        )

    def hidden_gradient(
        self, gz_above: Array, W_above: Array, f: Activation, z: Array, h: Array, gh: Array,
        gz: Array, db: Array,
    ) -> None:  # fmt: skip
        def unfused() -> None:
            self._device.gemm(gz_above, W_above, gh, compute=self.precision)
            self.activation_gradient(f, z, h, gh, gz, db)

        epilogue = self._backward_epilogue(W_above.shape[-2], f, z, h, gz, db)
        if epilogue is None or gz is not gh:  # a product with an epilogue does not write gh
            unfused()
        else:
            self._device.gemm(
                gz_above, W_above, gz, compute=self.precision, epilogue=epilogue, fallback=unfused
            )

    def input_gradient(self, gz: Array, W: Array, gx: Array) -> None:
        last = W[..., W.shape[-1] - gx.shape[-1] :]
        self._device.gemm(gz, last, gx, compute=self.precision)

    def _forward_epilogue(self, b: Array, f: Activation, z: Array, h: Array) -> Epilogue | None:
        """The epilogue that computes h ← f(s + b), and z if z is kept."""
        if not f.epilogue or not _fit(h, b) or not self._kernels.aligned(b, z, h):
            return None
        if z is h:
            return Epilogue("bias" if f.epilogue == "bias" else f"{f.epilogue}_bias", b)
        if f.epilogue == ("relu" if _is_mask(z) else "gelu"):
            return Epilogue(f"{f.epilogue}_aux_bias", b, z)
        return None

    def _backward_epilogue(
        self, k: int, f: Activation, z: Array, h: Array, gz: Array, db: Array
    ) -> Epilogue | None:
        """The epilogue that computes gz ← s ⊙ f'(z) and db, where s is a sum of k terms."""
        if k == 1 or not _fit(gz, db) or not self._kernels.aligned(db, z, gz):
            return None
        if f.epilogue == "relu" and _is_mask(z) and self._device.address(z) in self._written_masks:
            return Epilogue("drelu_bgrad", db, z)
        if f.epilogue == "gelu" and z is not h:
            return Epilogue("dgelu_bgrad", db, z)
        return None

    # ---- kernels ------------------------------------------------------------------------------

    def _bias_activation(self, b: Array, f: Activation, z: Array, h: Array) -> None:
        """z ← z + b, h ← f(z)."""
        kernels, (K, rows, cols) = self._kernels, sizes(z)
        b, apart = first(b)
        pack = kernels.pack_of(cols, z, b, h)
        arguments = z, b, h, i64(rows), i64(cols), apart, i32(pack > 1)
        if f.elementwise:
            geometry = kernels.tile(rows, cols, pack, networks=K)
            kernels.launch("bias_activation", "activation.cu", geometry, arguments, f)
        else:
            kernels.launch("forward", f.cuda_file, kernels.rows(rows, K), arguments, f)

    def activation(self, f: Activation, z: Array, h: Array) -> None:
        kernels, rows, cols = self._kernels, z.size // z.shape[-1], z.shape[-1]
        pack = kernels.pack_of(cols, z, h)
        arguments = z, h, i64(rows), i64(cols), i32(pack > 1)
        geometry = kernels.tile(rows, cols, pack)
        kernels.launch("activation", "activation.cu", geometry, arguments, f)

    def activation_gradient(
        self, f: Activation, z: Array, h: Array, gh: Array, gz: Array, db: Array
    ) -> None:
        kernels, (K, rows, cols) = self._kernels, sizes(gz)
        z = z if "z" in f.reads else h  # the kernel does not read z here, and z may be a bit mask
        db, apart = first(db)
        pack = kernels.pack_of(cols, gh, z, h, gz)
        packed = i32(pack > 1)
        if not f.elementwise:
            matrices = gh, h, gz, i64(K * rows), i64(cols), packed
            kernels.launch("vjp", f.cuda_file, kernels.rows(K * rows), matrices, f)
            f, gh = identity, gz  # only the column sums are still to be computed
        scratch = kernels.partial, db, kernels.arrived
        arguments = gh, z, h, gz, *scratch, i64(rows), i64(cols), apart, packed
        geometry = kernels.tile(rows, cols, pack, SPLITS, K)
        kernels.launch("activation_gradient", "activation.cu", geometry, arguments, f)

    def loss(self, loss: Loss, y_hat: Array, y: Array, weights: Array, J: Array) -> None:
        kernels = self._kernels
        geometry, shape, how = self._of_loss(loss, y_hat, y, y_hat)
        arguments = y_hat, y, weights, kernels.partial, kernels.arrived, J, *shape, *how
        kernels.launch("loss", loss.cuda_file, geometry, arguments, loss, labels=y.ndim == 1)

    def output_gradient(
        self, loss: Loss, f: Activation, z: Array, h: Array, y: Array, weights: Array,
        scaling: Array, gh: Array, gz: Array, db: Array, J: Array,
    ) -> None:  # fmt: skip
        self._output_gradient(loss, f, z, h, y, weights, scaling, gh, gz, db, J)

    def _output_gradient(
        self, loss: Loss, f: Activation, z: Array, h: Array, y: Array, weights: Array,
        scaling: Array, gh: Array, gz: Array, db: Array, J: Array,
        end: tuple[Array, Array] | None = None,
    ) -> None:  # fmt: skip
        """`output_gradient`, in one launch for the identity and a loss that sums columns.

        end: the arrays position and costs of `Backend.end`, which is done too.
        """
        kernels = self._kernels
        geometry, shape, how = self._of_loss(loss, h, y, gh)
        position, costs = end or (kernels.position, J)
        one_db, apart = first(db)
        arguments = (
            h, y, weights, scaling, gh, kernels.partial, one_db, kernels.arrived, J, position,
            costs, i64(len(costs) if end else 0), *shape, apart, *how,
        )  # fmt: skip
        labels = y.ndim < h.ndim
        kernels.launch("loss_gradient", loss.cuda_file, geometry, arguments, loss, labels=labels)
        summed = not loss.rowwise or how[-1] > 0
        if f != identity or gz is not gh or not summed:
            self.activation_gradient(f, z, h, gh, gz, db)

    def _of_loss(
        self, loss: Loss, y_hat: Array, y: Array, gh: Array
    ) -> tuple[Geometry, tuple[Any, ...], tuple[Any, ...]]:
        """The geometry of a loss's kernels, their arguments of the shape, and the last ones."""
        kernels, (K, rows, cols) = self._kernels, sizes(y_hat)
        pack = kernels.pack_of(cols, y_hat, gh, *(() if y.ndim < y_hat.ndim else (y,)))
        shape = i64(rows), i64(cols)
        if not loss.rowwise:
            share = kernels.dtype.type(loss.output_scale(cols))
            return kernels.tile(rows, cols, pack, SPLITS, K), shape, (i32(pack > 1), share)
        lanes = _lanes(cols, pack, HELD if kernels.dtype.itemsize == 4 else NARROW)
        together = THREADS // (lanes or WARP)  # rows of a block at a time
        blocks = kernels.blocks // K
        most = min(SPLITS, kernels.sums // (cols * K)) if lanes else blocks
        high = max(1, min(-(-rows // together), blocks, most))
        return ((1, high, K), (WARP, THREADS // WARP)), shape, (i32(pack > 1), i32(lanes))


def _lanes(cols: int, pack: int, held: int) -> int:
    """The threads of cross_entropy.cu that share a row; 0 if it is too wide for them.

    held: the entries of a row in one thread, if rows are not narrow.
    """
    if cols > WARP * NARROW and (pack == 1 or cols > MOST_LANES * held):
        return 0
    least = -(-cols // (NARROW if cols <= WARP * NARROW else held))
    return 1 << (least - 1).bit_length()


def _is_mask(z: Array) -> bool:
    return bool(z.dtype == np.uint8)


def _fit(*arrays: Array) -> bool:
    """Whether a product with an epilogue has this result and this bias (or sums)."""
    dtype, n = arrays[0].dtype, arrays[0].shape[-1]
    return all(a.dtype == dtype for a in arrays) and _has_epilogues(dtype, n)


def _has_epilogues(dtype: np.dtype[Any], n: int) -> bool:
    """Whether cublasLt has epilogues for results of this dtype with n columns."""
    return dtype != np.float64 and n % WIDTH_MULTIPLE == 0
