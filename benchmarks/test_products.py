"""Operations with a matrix product, alone and with fused work: GEMM plans, in TFLOP/s."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpumlp
from benchmarks.suite import ROWS, WIDTH, backend, empty, normal, timed

FLOPS = 2 * ROWS * WIDTH * WIDTH
ERROR = {"float64": 1e-12, "float32": 1e-4, "tf32": 2e-2, "bfloat16": 5e-2, "float16": 1e-2}


def close(where: Any, got: Any, want: Any) -> None:
    """Check that the norm of the difference is within the error of the precision."""
    difference = where.to_host(got).astype(np.float64) - want
    assert np.linalg.norm(difference) <= ERROR[where.precision] * np.linalg.norm(want)


SOME = 64  # rows that are compared with float64


def on_host(where: Any, *arrays: Any) -> list[Any]:
    """The arrays in host memory, in float64."""
    return [where.to_host(a).astype(np.float64) for a in arrays]


@pytest.mark.parametrize("activation", ["identity", "relu", "tanh", "gelu", "mish"])
def test_forward(benchmark: Any, activation: str) -> None:
    """z = h Wᵀ + b and h = f(z): one iteration of Algorithm 6.3."""
    where, f = backend(), gpumlp.ACTIVATIONS[activation]
    below, W, b = normal(where, ROWS, WIDTH), normal(where, WIDTH, WIDTH), normal(where, WIDTH)
    z, h = empty(where, ROWS, WIDTH), empty(where, ROWS, WIDTH)
    where.affine_activation(below, W, b, f, z, h)
    x64, W64, b64 = on_host(where, below[:SOME], W, b)
    close(where, h[:SOME], f.f(x64 @ W64.T + b64, **f.params))
    timed(
        benchmark, where, lambda: where.affine_activation(below, W, b, f, z, h), flops=FLOPS
    )  # fmt: skip


@pytest.mark.parametrize("activation", ["identity", "relu", "tanh", "gelu", "mish"])
def test_backward(benchmark: Any, activation: str) -> None:
    """gh = gz W, gz = gh ⊙ f'(z), db: one iteration of Algorithm 6.4 without dW."""
    where, f = backend(), gpumlp.ACTIVATIONS[activation]
    above, W, z = (
        normal(where, ROWS, WIDTH),
        normal(where, WIDTH, WIDTH),
        normal(where, ROWS, WIDTH),
    )
    h, gz, db = empty(where, *z.shape), empty(where, *z.shape), empty(where, WIDTH)
    where.activation(f, z, h)
    where.hidden_gradient(above, W, f, z, h, gz, gz, db)
    gz64, W64, z64, h64 = on_host(where, above[:SOME], W, z[:SOME], h[:SOME])
    close(where, gz[:SOME], gz64 @ W64 * f.df(z64, h64, **f.params))
    timed(
        benchmark, where,
        lambda: where.hidden_gradient(above, W, f, z, h, gz, gz, db), flops=FLOPS,
    )  # fmt: skip


def test_weight_gradient(benchmark: Any) -> None:
    """dW = gzᵀ h, the product alone."""
    where = backend()
    gz, h, dW = normal(where, ROWS, WIDTH), normal(where, ROWS, WIDTH), normal(where, WIDTH, WIDTH)
    where.weight_gradient(gz, h, dW, None)
    gz64, h64 = on_host(where, gz, h)
    close(where, dW[:SOME], gz64[:, :SOME].T @ h64)
    timed(benchmark, where, lambda: where.weight_gradient(gz, h, dW, None), flops=FLOPS)


def test_input_gradient(benchmark: Any) -> None:
    """gx = gz W, the product alone."""
    where = backend()
    gz, W, gx = normal(where, ROWS, WIDTH), normal(where, WIDTH, WIDTH), normal(where, ROWS, WIDTH)
    where.input_gradient(gz, W, gx)
    gz64, W64 = on_host(where, gz[:SOME], W)
    close(where, gx[:SOME], gz64 @ W64)
    timed(benchmark, where, lambda: where.input_gradient(gz, W, gx), flops=FLOPS)
