"""The kernels of several processes: sums in pairs, and the norm of pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.cuda.backend import CudaBackend
from gpumlp.backends.numpy.backend import NumpyBackend
from tests.support.harness.host_device import HostDevice

RNG = np.random.default_rng(14)
OMEGA = gpumlp.ElasticNet(l1=0.01, l2=0.1, biases=0.5)
PRECISIONS = ("float64", "float32", "bfloat16", "float16")


def in_pairs(rows: list[Any]) -> Any:
    """The sum of the rows of a tree whose halves are a power of 2, and the rest."""
    if len(rows) == 1:
        return rows[0]
    half = 1 << (len(rows) - 1).bit_length() - 1
    return in_pairs(rows[:half]) + in_pairs(rows[half:])


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 6, 7, 8, 13])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_tree_sum(rows: int, precision: str) -> None:
    """The same bits on both backends, also where the result is the first row."""
    backend = CudaBackend(HostDevice(), precision)
    parts = RNG.standard_normal((rows, 3 * 64 * 17)).astype(backend.dtype)
    want = in_pairs(list(parts))
    for host in (True, False):
        own = NumpyBackend(backend.dtype.name) if host else backend
        on = own.asarray(parts)
        own.tree_sum(on, on[0])
        np.testing.assert_array_equal(own.to_host(on)[0], want)
        np.testing.assert_array_equal(own.to_host(on)[1:], parts[1:])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("max_norm", "bad"), [(1.0, 0.0), (1e9, 0.0), (1.0, np.inf)])
def test_norm_of_pieces_is_that_of_clip(precision: str, max_norm: float, bad: float) -> None:
    backend = CudaBackend(HostDevice(), precision)
    theta = RNG.standard_normal(512).astype(backend.dtype)
    dtheta = RNG.standard_normal(512).astype(backend.dtype)
    dtheta[300] += bad
    S = 4.0 if backend.scales_loss else 1.0
    scaling = np.array([S, 1 / S, 0, 0])
    own: dict[str, Any] = {
        name: (backend.asarray(scaling, np.float64), backend.full((2,), 0.5, "f8"))
        for name in ("whole", "pieces")
    }
    theta, dtheta = (backend.asarray(a) for a in (theta, dtheta))
    backend.clip(OMEGA, theta, dtheta, 320, max_norm, *own["whole"])
    squares = backend.full((4,), 7.0, "f8")
    for i, (begin, end) in enumerate(((0, 256), (256, 384), (384, 384), (384, 512))):
        split = min(max(320 - begin, 0), end - begin)
        pieces = theta[begin:end], dtheta[begin:end]
        backend.square_sum(OMEGA, *pieces, split, own["pieces"][0], squares[i : i + 1])
    backend.clip_by(squares, max_norm, *own["pieces"])
    for ours, theirs in zip(own["pieces"], own["whole"], strict=True):
        rtol = 1e-12 if precision == "float64" else 1e-6
        np.testing.assert_allclose(backend.to_host(ours), backend.to_host(theirs), rtol=rtol)
