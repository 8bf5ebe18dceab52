"""The product and the activation of a layer: one call of cublasLt, or two launches."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.backends.cuda.kernels import Kernels
from gpumlp.backends.cuda.protocol import Device, Epilogue, mask_shape
from gpumlp.functions import Activation
from gpumlp.io.types import Array

WIDTH_MULTIPLE = 8  # n must be a multiple: gelu's aux and all fast kernels need it


class LayerProducts:
    """The products of `affine_activation` and `hidden_gradient`, with an epilogue where possible.

    For relu, z may be a bit mask, an array of uint8.  The epilogue of one product writes the mask
    and the epilogue of another reads it; our own kernels read h instead.  The device may use the
    epilogue in the forward pass and not in the backward pass, or the reverse.  So this class
    remembers which masks the last forward pass has written.
    """

    def __init__(self, device: Device, precision: str, kernels: Kernels) -> None:
        self._device, self._precision, self._kernels = device, precision, kernels
        self._written_masks: set[int] = set()  # addresses

    def pre_activation(
        self, f: Activation, m: int, n: int
    ) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        """The buffer for z if f' reads z, of a mask for relu if it fits, else None."""
        storage = self._kernels.storage
        if "z" in f.reads:
            return (m, n), storage
        if f.epilogue == "relu" and _has_epilogues(storage, n):
            return mask_shape(m, n), np.dtype(np.uint8)
        return None

    def forward(
        self, h_below: Array, W: Array, b: Array, f: Activation, z: Array, h: Array
    ) -> None:
        """s ← h_below Wᵀ, z ← s + b, h ← f(z)."""
        s = h if _is_mask(z) else z

        def unfused() -> None:
            self._device.gemm(h_below, W, s, transpose_b=True, compute=self._precision)
            self._kernels.bias_activation(b, f, s, h)

        fused, epilogue = False, self._forward_epilogue(b, f, z, h)
        if epilogue is None:
            unfused()
        else:
            fused = self._device.gemm(
                h_below, W, h, transpose_b=True, compute=self._precision, epilogue=epilogue,
                fallback=unfused,
            )  # fmt: skip
        if _is_mask(z):
            address = self._device.address(z)
            (self._written_masks.add if fused else self._written_masks.discard)(address)

    def backward(
        self, gz_above: Array, W_above: Array, f: Activation, z: Array, h: Array, gh: Array,
        gz: Array, db: Array,
    ) -> None:  # fmt: skip
        """gh ← gz_above W_above, gz ← gh ⊙ f'(z), db ← column sums of gz."""

        def unfused() -> None:
            self._device.gemm(gz_above, W_above, gh, compute=self._precision)
            self._kernels.activation_gradient(f, z, h, gh, gz, db)

        epilogue = self._backward_epilogue(W_above.shape[-2], f, z, h, gz, db)
        if epilogue is None or gz is not gh:  # a product with an epilogue does not write gh
            unfused()
        else:
            self._device.gemm(
                gz_above, W_above, gz, compute=self._precision, epilogue=epilogue,
                fallback=unfused,
            )  # fmt: skip

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


def _is_mask(z: Array) -> bool:
    return bool(z.dtype == np.uint8)


def _fit(*arrays: Array) -> bool:
    """Whether a product with an epilogue has this result and this bias (or sums)."""
    dtype, n = arrays[0].dtype, arrays[0].shape[-1]
    return all(a.dtype == dtype for a in arrays) and _has_epilogues(dtype, n)


def _has_epilogues(dtype: np.dtype[Any], n: int) -> bool:
    """Whether cublasLt has epilogues for results of this dtype with n columns."""
    return dtype != np.float64 and n % WIDTH_MULTIPLE == 0
