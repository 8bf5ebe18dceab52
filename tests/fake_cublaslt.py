"""A stand-in for `nvmath.bindings.cublasLt` that multiplies host memory as cublasLt's manual says.

Column-major layouts, transposes and leading dimensions are taken from the descriptors alone, so a
plan that describes the wrong product gives wrong numbers.
"""

from __future__ import annotations

import ctypes
import enum
from typing import Any

import numpy as np

matmul_heuristic_result_dtype = np.dtype(
    [("algo", [("data_", "<u8", (8,))]), ("workspace_size", "<u8"), ("state", "<i4")]
)
DTYPES = {0: np.float32, 1: np.float64}


class MatmulDescAttribute(enum.IntEnum):
    TRANSA = 3
    TRANSB = 4


class MatmulPreferenceAttribute(enum.IntEnum):
    MAX_WORKSPACE_BYTES = 1


class cuBLASLtError(Exception):  # noqa: N801  (nvmath's name)
    pass


class FakeCublasLt:
    """`states`: what the heuristic says of each candidate, 0 for usable."""

    cuBLASLtError = cuBLASLtError  # noqa: N815  (nvmath's name)
    MatmulDescAttribute = MatmulDescAttribute
    MatmulPreferenceAttribute = MatmulPreferenceAttribute
    matmul_heuristic_result_dtype = matmul_heuristic_result_dtype

    def __init__(self, states: tuple[int, ...] = (0,)) -> None:
        self.objects: dict[int, Any] = {}
        self.states = states
        self.heuristics = 0
        self.calls: list[dict[str, int]] = []

    def _new(self, value: Any) -> int:
        handle = max(self.objects, default=999) + 1
        self.objects[handle] = value
        return handle

    def create(self) -> int:
        return self._new("handle")

    def matmul_desc_create(self, compute: int, scale: int) -> int:
        return self._new({"compute": compute, "scale": scale, 3: 0, 4: 0})

    def matmul_desc_set_attribute(self, desc: int, attr: int, buf: int, size: int) -> None:
        assert size == 4
        self.objects[desc][attr] = ctypes.c_int32.from_address(buf).value

    def matmul_desc_destroy(self, desc: int) -> None:
        del self.objects[desc]

    def matrix_layout_create(self, dtype: int, rows: int, cols: int, ld: int) -> int:
        assert ld >= rows
        return self._new((dtype, rows, cols, ld))

    def matrix_layout_destroy(self, layout: int) -> None:
        del self.objects[layout]

    def matmul_preference_create(self) -> int:
        return self._new({})

    def matmul_preference_set_attribute(self, pref: int, attr: int, buf: int, size: int) -> None:
        assert size == 8
        self.objects[pref][attr] = ctypes.c_uint64.from_address(buf).value

    def matmul_algo_get_heuristic(
        self, handle: int, desc: int, a: int, b: int, c: int, d: int, preference: int,
        wanted: int, results: int, count: int,
    ) -> None:  # fmt: skip
        assert self.objects[handle] == "handle"
        self.heuristics += 1
        if not self.states:
            raise cuBLASLtError("CUBLAS_STATUS_NOT_SUPPORTED (15)")
        size = matmul_heuristic_result_dtype.itemsize
        n = min(wanted, len(self.states))
        raw = (ctypes.c_char * (size * n)).from_address(results)
        table = np.frombuffer(raw, matmul_heuristic_result_dtype)
        for i in range(n):
            table[i]["state"], table[i]["algo"]["data_"][0] = self.states[i], 70 + i
        ctypes.c_int32.from_address(count).value = n

    def matmul(
        self, handle: int, desc: int, alpha: int, a: int, a_layout: int, b: int, b_layout: int,
        beta: int, c: int, c_layout: int, d: int, d_layout: int, algo: int, workspace: int,
        workspace_size: int, stream: int,
    ) -> None:  # fmt: skip
        operation = self.objects[desc]
        scale = DTYPES[operation["scale"]]
        one, zero = (self._matrix(p, (1, 1, 1), scale)[0, 0] for p in (alpha, beta))
        A, B = self._view(a, a_layout), self._view(b, b_layout)
        D = self._view(d, d_layout)
        product = (A.T if operation[3] else A) @ (B.T if operation[4] else B)
        D[...] = one * product
        assert zero == 0
        assert c == d
        self.calls.append(
            {
                "algo": ctypes.c_uint64.from_address(algo).value,
                "workspace": workspace,
                "workspace_size": workspace_size,
                "stream": stream,
                "compute": operation["compute"],
            }
        )

    def _view(self, address: int, layout: int) -> np.ndarray[Any, Any]:
        dtype, rows, cols, ld = self.objects[layout]
        return self._matrix(address, (rows, cols, ld), DTYPES[dtype])

    @staticmethod
    def _matrix(address: int, shape: tuple[int, int, int], dtype: type) -> np.ndarray[Any, Any]:
        """The column-major (rows, cols) matrix with a leading dimension, as a view."""
        rows, cols, ld = shape
        size = np.dtype(dtype).itemsize
        raw = (ctypes.c_char * (size * (ld * (cols - 1) + rows))).from_address(address)
        flat = np.frombuffer(raw, dtype)
        return np.lib.stride_tricks.as_strided(flat, (rows, cols), (size, size * ld))
