"""GEMM plans: descriptors, layouts and arguments, against NumPy's product."""

import numpy as np
import pytest
from fake_cublaslt import FakeCublasLt

import gpumlp
from gpumlp.cuda.blas import COMPUTE_TYPE, WORKSPACE_BYTES, Blas, Gemm

SHAPES = [(1, 1, 1), (5, 7, 3), (256, 10, 784), (1, 33, 2), (31, 1, 8)]


def product(blas, m, n, k, transpose_a, transpose_b, compute):
    dtype = "float64" if compute == "float64" else "float32"
    rng = np.random.default_rng([m, n, k])
    a = rng.standard_normal((k, m) if transpose_a else (m, k)).astype(dtype)
    b = rng.standard_normal((n, k) if transpose_b else (k, n)).astype(dtype)
    out = np.full((m, n), np.nan, dtype)
    gemm = Gemm(m, n, k, transpose_a, transpose_b, dtype, compute)
    blas(gemm, a.ctypes.data, b.ctypes.data, out.ctypes.data)
    return (a.T if transpose_a else a) @ (b.T if transpose_b else b), out


@pytest.mark.parametrize("compute", COMPUTE_TYPE)
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_a_plan_describes_the_product(m, n, k, transpose_a, transpose_b, compute):
    lt = FakeCublasLt()
    want, got = product(Blas(lt, 5, 4096), m, n, k, transpose_a, transpose_b, compute)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.sqrt(k))
    assert lt.calls == [
        {
            "algo": 70,
            "workspace": 4096,
            "workspace_size": WORKSPACE_BYTES,
            "stream": 5,
            "compute": COMPUTE_TYPE[compute],
        }
    ]


def test_a_plan_is_made_once_a_shape():
    lt = FakeCublasLt()
    blas = Blas(lt, 0, 0)
    for _ in range(3):
        product(blas, 5, 7, 3, False, True, "float32")
    assert (lt.heuristics, len(lt.calls)) == (1, 3)
    product(blas, 5, 7, 3, False, True, "tf32")
    assert lt.heuristics == 2


def test_the_best_usable_algorithm_is_taken():
    lt = FakeCublasLt(states=(15, 0, 0))
    product(Blas(lt, 0, 0), 5, 7, 3, False, False, "float32")
    assert lt.calls[0]["algo"] == 71


def test_no_algorithm_is_an_error_that_frees_its_plan():
    lt = FakeCublasLt(states=(15,))
    blas = Blas(lt, 0, 0)
    before = dict(lt.objects)
    with pytest.raises(gpumlp.DeviceError, match="no algorithm for Gemm\\(m=5, n=7, k=3"):
        product(blas, 5, 7, 3, False, False, "float32")
    assert lt.objects == before


def test_an_error_of_the_heuristic_frees_the_plan():
    lt = FakeCublasLt(states=())
    blas = Blas(lt, 0, 0)
    before = dict(lt.objects)
    with pytest.raises(lt.cuBLASLtError, match="NOT_SUPPORTED"):
        product(blas, 5, 7, 3, False, False, "float32")
    assert lt.objects == before
