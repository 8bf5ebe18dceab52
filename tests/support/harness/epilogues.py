"""cublasLt's epilogues in NumPy, as its manual describes them: see `protocol.Epilogue`."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
NAMES = (
    "bias", "relu_bias", "gelu_bias", "relu_aux_bias", "gelu_aux_bias", "drelu_bgrad",
    "dgelu_bgrad",
)  # fmt: skip
SLOPE, CUBIC = np.sqrt(2 / np.pi), 0.044715


def apply(name: str, s: Array, bias: Array, aux: Array | None) -> Array:
    """The result for the products s (m, n).  Writes bias or aux if the epilogue does.

    aux: for gelu (m, at least n); for relu the bits (m, bytes), with padded rows.
    """
    if name.endswith("bgrad"):
        out = s * (
            _bits(aux, s.shape[1]) if name == "drelu_bgrad" else _dgelu(aux[:, : s.shape[1]], s)
        )
        bias[...] = out.sum(axis=0)
        return out
    z = s + bias.astype(s.dtype)
    if name == "relu_aux_bias":
        packed = np.packbits(z > 0, axis=1, bitorder="little")
        aux[:, : packed.shape[1]] = packed
    if name == "gelu_aux_bias":
        aux[:, : z.shape[1]] = z
    if name.startswith("relu"):
        return np.where(z > 0, z, 0).astype(z.dtype)  # NaN becomes 0, as on the device
    if name.startswith("gelu"):
        return 0.5 * z * (1 + np.tanh(SLOPE * (z + CUBIC * z**3))).astype(z.dtype)
    return z


def refusal(name: str, n: int, k: int, dtype: Any, row: int) -> str:
    """Why cublasLt refuses the epilogue, or "".  row: the entries between two rows of aux."""
    if np.dtype(dtype) == np.float64:
        return "no epilogue computes in float64"
    if name.startswith("d") and k == 1:
        return f"{name} needs k > 1"
    if "aux" not in name and not name.startswith("d"):
        return ""
    unit = 128 if "relu" in name else 8
    return f"aux's rows of {row} must be a multiple of {unit}, at least {n}" * bool(
        row % unit or row < n
    )


def _bits(aux: Array, n: int) -> Array:
    return np.unpackbits(np.ascontiguousarray(aux), axis=1, bitorder="little")[:, :n]


def _dgelu(z: Array, like: Array) -> Array:
    z = z.astype(like.dtype)
    t = np.tanh(SLOPE * (z + CUBIC * z**3)).astype(like.dtype)
    return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * (SLOPE * (1 + 3 * CUBIC * z * z)).astype(
        like.dtype
    )
