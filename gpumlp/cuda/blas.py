"""GEMM plans on cublasLt, through `nvmath.bindings`: own handle, stream and workspace.

CuPy's own cuBLAS calls raise while their stream is being captured into a graph; these do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.errors import DeviceError

WORKSPACE_BYTES = 32 << 20  # what Hopper's algorithms want; smaller ones lose up to a third
CANDIDATES = 8

# dtype -> cudaDataType_t; compute -> cublasComputeType_t (CUDA's library_types.h, cublas_api.h)
DATA_TYPE = {"float32": 0, "float64": 1}
COMPUTE_TYPE = {"float32": 68, "float64": 70, "tf32": 77}


@dataclass(frozen=True)
class Gemm:
    """out (m, n) ← op(a) op(b), all row-major; op(a) is (m, k), op(b) is (k, n)."""

    m: int
    n: int
    k: int
    transpose_a: bool
    transpose_b: bool
    dtype: str
    compute: str

    def layouts(self) -> dict[str, tuple[int, int, int]]:
        """(rows, columns, leading dimension) of cublasLt's A, B and D, which are column-major.

        A row-major (r, c) array is a column-major (c, r) one, so outᵀ = op(b)ᵀ op(a)ᵀ: cublasLt's
        A is b and its B is a, each transposed exactly where the caller's is.
        """
        return {
            "A": (self.k, self.n, self.k) if self.transpose_b else (self.n, self.k, self.n),
            "B": (self.m, self.k, self.m) if self.transpose_a else (self.k, self.m, self.k),
            "D": (self.n, self.m, self.n),
        }


class Plan:
    """cublasLt's descriptors for one `Gemm`; needs the driver's library, but no device."""

    def __init__(self, lt: Any, gemm: Gemm) -> None:
        self._lt = lt
        data = DATA_TYPE[gemm.dtype]
        self.operation = lt.matmul_desc_create(COMPUTE_TYPE[gemm.compute], data)
        attribute = lt.MatmulDescAttribute
        self._set(lt.matmul_desc_set_attribute, self.operation, attribute.TRANSA, gemm.transpose_b)
        self._set(lt.matmul_desc_set_attribute, self.operation, attribute.TRANSB, gemm.transpose_a)
        self.a, self.b, self.d = (
            lt.matrix_layout_create(data, *shape) for shape in gemm.layouts().values()
        )
        scalar = np.dtype(gemm.dtype).type
        self.one, self.zero = np.array(scalar(1)), np.array(scalar(0))

    @staticmethod
    def _set(setter: Any, descriptor: int, attribute: int, value: bool | int) -> None:
        cell = np.array(value, np.int32)
        setter(descriptor, int(attribute), cell.ctypes.data, cell.nbytes)

    def close(self) -> None:
        """Free the descriptors."""
        self._lt.matmul_desc_destroy(self.operation)
        for layout in (self.a, self.b, self.d):
            self._lt.matrix_layout_destroy(layout)


class Blas:
    """All products of one device and stream; a plan is made at a shape's first call, then kept."""

    def __init__(self, lt: Any, stream: int, workspace: int) -> None:
        """Lt: nvmath.bindings.cublasLt; stream, workspace (WORKSPACE_BYTES): addresses."""
        self._lt = lt
        self._stream = stream
        self._workspace = workspace
        self._handle = lt.create()
        self._preference = lt.matmul_preference_create()
        size = np.array(WORKSPACE_BYTES, np.uint64)
        lt.matmul_preference_set_attribute(
            self._preference,
            int(lt.MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES),
            size.ctypes.data,
            size.nbytes,
        )
        self._plans: dict[Gemm, tuple[Plan, np.ndarray[Any, Any]]] = {}

    def __call__(self, gemm: Gemm, a: int, b: int, out: int) -> None:
        """Hand the product to the stream; a, b, out are addresses, 256-byte aligned."""
        if gemm not in self._plans:
            self._plans[gemm] = self._plan(gemm)
        plan, algorithm = self._plans[gemm]
        self._lt.matmul(
            self._handle, plan.operation, plan.one.ctypes.data, b, plan.a, a, plan.b,
            plan.zero.ctypes.data, out, plan.d, out, plan.d,
            algorithm.ctypes.data, self._workspace, WORKSPACE_BYTES, self._stream,
        )  # fmt: skip

    def _plan(self, gemm: Gemm) -> tuple[Plan, np.ndarray[Any, Any]]:
        """The descriptors and the algorithm that cublasLt's heuristic likes best."""
        plan = Plan(self._lt, gemm)
        results = np.zeros(CANDIDATES, self._lt.matmul_heuristic_result_dtype)
        count = np.zeros(1, np.int32)
        try:
            self._lt.matmul_algo_get_heuristic(
                self._handle, plan.operation, plan.a, plan.b, plan.d, plan.d, self._preference,
                CANDIDATES, results.ctypes.data, count.ctypes.data,
            )  # fmt: skip
            usable = [r for r in results[: count[0]] if r["state"] == 0]
            if not usable:
                raise DeviceError(f"cublasLt has no algorithm for {gemm}")
        except BaseException:
            plan.close()
            raise
        return plan, np.array(usable[0]["algo"])
