"""What the NumPy backend computes for some rows of a minibatch."""

from __future__ import annotations

import numpy as np

from gpumlp.functions import Activation
from gpumlp.functions.activations import identity
from gpumlp.io.types import HostArray as Array


def targets(y: Array, y_hat: Array) -> Array:
    """y (rows, n) in the dtype of ŷ: a label becomes a row of zeros with a single one."""
    if y.ndim == 2:
        return y
    t = np.zeros((len(y), y_hat.shape[1]), y_hat.dtype)
    t[np.arange(len(y)), y] = 1
    return t


def weighted_sum(weights: Array, values: Array) -> float:
    """Σ weights · values (m,); values of weight 0 do not count, even if they are NaN."""
    return float(np.dot(weights, values if weights.all() else np.where(weights == 0, 0, values)))


def through_activation(
    f: Activation, z: Array, h: Array, gh: Array, gz: Array, rows: slice
) -> Array:
    """gz ← gh ⊙ f'(z), or Jᵀ gh, for some rows, or networks.  Returns their column sums."""
    if f.df is None:
        assert f.vjp is not None  # Activation has one of the two
        np.copyto(gz[rows], f.vjp(z[rows], h[rows], gh[rows], **f.params))
    elif f is not identity:
        np.multiply(gh[rows], f.df(z[rows], h[rows], **f.params), out=gz[rows])
    elif gz is not gh:
        np.copyto(gz[rows], gh[rows])
    sums: Array = gz[rows].sum(axis=-2)
    return sums
