"""Read back the descriptors of plans from the real cublasLt.

The tests need nvmath-python, cuBLAS and the driver's library (libcuda.so.1, or a stub), but no GPU.
"""

from itertools import product

import numpy as np
import pytest

from gpumlp.backends.cuda.plans import (
    COMPUTE_TYPE,
    DATA_TYPE,
    EPILOGUE,
    WORKSPACE_BYTES,
    Gemm,
    Plan,
)


@pytest.fixture(scope="module")
def lt():
    cublaslt = pytest.importorskip("nvmath.bindings.cublasLt", exc_type=ImportError)
    try:
        cublaslt.get_version()
    except Exception as error:  # NotSupportedError, DynamicLibNotFoundError and others
        pytest.skip(f"cublasLt cannot be loaded: {error}")
    return cublaslt


def read(getter, descriptor, attribute, dtype):
    cell, written = np.zeros(1, dtype), np.zeros(1, np.uint64)
    getter(descriptor, int(attribute), cell.ctypes.data, cell.nbytes, written.ctypes.data)
    assert written[0] == cell.nbytes  # the attribute is as wide as we set it
    return int(cell[0])


KINDS = [
    (dtype, out, compute)
    for compute in COMPUTE_TYPE
    for dtype in ["float32" if compute == "tf32" else compute]
    for out in sorted({dtype, "float64" if compute == "float64" else "float32"})
]


def gemms():
    for (dtype, out, compute), name, ta, tb in product(
        KINDS, EPILOGUE, (False, True), (False, True)
    ):
        aux = 256 if "relu_aux" in name or "drelu" in name else 200
        aux *= "aux" in name or name.startswith("d")
        yield Gemm(7, 200, 33, ta, tb, dtype, out, compute, name, aux, name == "")
        if name == "":
            yield Gemm(7, 200, 33, ta, tb, dtype, out, compute, batch=3, strides=(231, 6600, 1472))


def test_epilogue_numbers_match_cublaslt(lt):
    for name, number in EPILOGUE.items():
        assert lt.Epilogue[name.upper() or "DEFAULT"] == number


@pytest.mark.parametrize("gemm", list(gemms()), ids=str)
def test_plan_read_back(lt, gemm):
    plan, attribute = Plan(lt, 0, gemm), lt.MatmulDescAttribute
    plan.point(4096, 8192)
    try:
        found = [
            read(lt.matmul_desc_get_attribute, plan.operation, attribute[name], dtype)
            for name, dtype in {
                "COMPUTE_TYPE": "i4", "SCALE_TYPE": "i4", "POINTER_MODE": "i4", "TRANSA": "i4",
                "TRANSB": "i4", "EPILOGUE": "u4", "BIAS_POINTER": "u8",
                "EPILOGUE_AUX_POINTER": "u8", "EPILOGUE_AUX_LD": "i8",
            }.items()
        ]  # fmt: skip
        assert found == [
            COMPUTE_TYPE[gemm.compute], DATA_TYPE[gemm.scale], gemm.factors, gemm.transpose_b,
            gemm.transpose_a, EPILOGUE[gemm.epilogue], 4096, 8192, gemm.aux,
        ]  # fmt: skip
        types, (of_a, of_b, of_out) = (gemm.dtype, gemm.dtype, gemm.out), gemm.strides
        layouts = zip(types, gemm.layouts().values(), (of_b, of_a, of_out), strict=True)
        for descriptor, (dtype, shape, stride) in zip(
            (plan.a, plan.b, plan.d), layouts, strict=True
        ):
            found = [
                read(lt.matrix_layout_get_attribute, descriptor, lt.MatrixLayoutAttribute[n], kind)
                for n, kind in {
                    "TYPE": "u4", "ORDER": "i4", "BATCH_COUNT": "i4", "STRIDED_BATCH_OFFSET": "i8",
                    "ROWS": "u8", "COLS": "u8", "LD": "i8",
                }.items()
            ]  # fmt: skip
            order = 0  # column-major
            assert found == [DATA_TYPE[dtype], order, gemm.batch, stride, *shape]
    finally:
        plan.close()


@pytest.mark.parametrize("alignment", [16, 256])
@pytest.mark.parametrize(("dtype", "out", "compute"), KINDS)
def test_heuristic_preference_read_back(lt, dtype, out, compute, alignment):
    plan = Plan(lt, 0, Gemm(7, 200, 33, False, True, dtype, out, compute, alignment=alignment))
    preference, attribute = plan._preference(), lt.MatmulPreferenceAttribute
    getter = lt.matmul_preference_get_attribute
    assert read(getter, preference, attribute.MAX_WORKSPACE_BYTES, "u8") == WORKSPACE_BYTES
    schemes = lt.ReductionScheme
    expected = schemes.COMPUTE_TYPE if out in ("float16", "bfloat16") else schemes.MASK
    assert read(getter, preference, attribute.REDUCTION_SCHEME_MASK, "u4") == expected
    for name in "ABCD":
        bytes_ = attribute[f"MIN_ALIGNMENT_{name}_BYTES"]
        assert read(getter, preference, bytes_, "u4") == alignment
    lt.matmul_preference_destroy(preference)
    plan.close()
