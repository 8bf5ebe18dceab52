"""A layer's product and its activation: one call of cublasLt where it has f, else two steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpumlp.backends.cuda.launch import PACK_BYTES
from gpumlp.backends.cuda.protocol import Device, DeviceArray, Epilogue, mask_shape
from gpumlp.functions import Activation

WIDTHS = 8  # n must be a multiple: gelu's aux asks for it, and so do all fast kernels' rows


class Products:
    """The products of the operations `affine_activation` and `hidden_gradient`.

    In z's place can stand relu's bits, an array of uint8.  A product's epilogue writes them and a
    product's epilogue reads them; the kernels of our own read h.  The device may choose the one way
    up and the other down, so it is remembered which bits are of the last forward pass.
    """

    def __init__(self, device: Device, precision: str) -> None:
        self._device, self._precision = device, precision
        self._written: set[int] = set()  # addresses of bits

    def pre_activation(
        self, f: Activation, m: int, n: int, storage: np.dtype[Any]
    ) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        """A buffer for z where f' reads it, for relu's bits where they can serve, or None."""
        if "z" in f.reads:
            return (m, n), storage
        if f.epilogue == "relu" and _fits(storage, n):
            return mask_shape(m, n), np.dtype(np.uint8)
        return None

    def upward(
        self, h_below: DeviceArray, W: DeviceArray, b: DeviceArray, f: Activation, z: DeviceArray,
        h: DeviceArray, activate: Callable[..., None],
    ) -> None:  # fmt: skip
        """s ← h_below Wᵀ, z ← s + b, h ← f(z); activate(b, f, z, h) does it from s in z."""
        s = h if _is_bits(z) else z

        def unfused() -> None:
            self._device.gemm(h_below, W, s, transpose_b=True, compute=self._precision)
            activate(b, f, s, h)

        fused, epilogue = False, self._upward(b, f, z, h)
        if epilogue is None:
            unfused()
        else:
            fused = self._device.gemm(
                h_below, W, h, transpose_b=True, compute=self._precision, epilogue=epilogue,
                otherwise=unfused,
            )  # fmt: skip
        if _is_bits(z):
            (self._written.add if fused else self._written.discard)(self._device.address(z))

    def downward(
        self, gz_above: DeviceArray, W_above: DeviceArray, f: Activation, z: DeviceArray,
        h: DeviceArray, gh: DeviceArray, gz: DeviceArray, db: DeviceArray,
        through: Callable[..., None],
    ) -> None:  # fmt: skip
        """gh ← gz_above W_above, and gz and db by through(f, z, h, gh, gz, db)."""

        def unfused() -> None:
            self._device.gemm(gz_above, W_above, gh, compute=self._precision)
            through(f, z, h, gh, gz, db)

        epilogue = self._downward(len(W_above), f, z, h, gz, db)
        if epilogue is None or gz is not gh:  # a product with an epilogue leaves no gh
            unfused()
        else:
            self._device.gemm(
                gz_above, W_above, gz, compute=self._precision, epilogue=epilogue,
                otherwise=unfused,
            )  # fmt: skip

    def _upward(
        self, b: DeviceArray, f: Activation, z: DeviceArray, h: DeviceArray
    ) -> Epilogue | None:
        """The epilogue for h ← f(s + b), and for z where it is kept."""
        if not f.epilogue or not _fit(h, b) or not self._aligned(b, z, h):
            return None
        if z is h:
            return Epilogue("bias" if f.epilogue == "bias" else f"{f.epilogue}_bias", b)
        if f.epilogue == ("relu" if _is_bits(z) else "gelu"):
            return Epilogue(f"{f.epilogue}_aux_bias", b, z)
        return None

    def _downward(
        self, k: int, f: Activation, z: DeviceArray, h: DeviceArray, gz: DeviceArray,
        db: DeviceArray,
    ) -> Epilogue | None:  # fmt: skip
        """The epilogue for gz ← s ⊙ f'(z) and db, where s sums over k."""
        if k == 1 or not _fit(gz, db) or not self._aligned(db, z, gz):
            return None
        if f.epilogue == "relu" and _is_bits(z) and self._device.address(z) in self._written:
            return Epilogue("drelu_bgrad", db, z)
        if f.epilogue == "gelu" and z is not h:
            return Epilogue("dgelu_bgrad", db, z)
        return None

    def _aligned(self, *arrays: DeviceArray) -> bool:
        return all(self._device.address(a) % PACK_BYTES == 0 for a in arrays)


def _is_bits(z: DeviceArray) -> bool:
    return bool(z.dtype == np.uint8)


def _fit(*arrays: DeviceArray) -> bool:
    """Whether cublasLt has epilogues for results and biases like these: of one dtype, of rows."""
    dtype, n = arrays[0].dtype, arrays[0].shape[1]
    return all(a.dtype == dtype for a in arrays) and _fits(dtype, n)


def _fits(dtype: np.dtype[Any], n: int) -> bool:
    """Whether cublasLt has epilogues for results of n columns in this dtype."""
    return dtype != np.float64 and n % WIDTHS == 0
