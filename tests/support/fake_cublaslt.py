"""A fake of `nvmath.bindings.cublasLt` that multiplies arrays in host memory.

It follows cublasLt's manual.  It reads column-major layouts, transposes, leading dimensions,
dtypes, epilogues and the addresses of alpha, beta, bias and aux only from the descriptors.  So a
plan that describes the wrong product gives wrong numbers.
"""

from __future__ import annotations

import ctypes
import enum
from typing import Any

import ml_dtypes
import numpy as np

from tests.support.harness import epilogues

matmul_heuristic_result_dtype = np.dtype(
    [("algo", [("data_", "<u8", (8,))]), ("workspace_size", "<u8"), ("state", "<i4")]
)
DTYPES = {0: np.float32, 1: np.float64, 2: np.float16, 14: ml_dtypes.bfloat16}
COMPUTES = {68: (0, {0, 2, 14}), 70: (1, {1}), 77: (0, {0})}  # -> scale type, dtypes of A and B
EPILOGUES = {
    4: "bias", 6: "relu_bias", 36: "gelu_bias", 134: "relu_aux_bias", 164: "gelu_aux_bias",
    152: "drelu_bgrad", 208: "dgelu_bgrad",
}  # fmt: skip


class MatmulDescAttribute(enum.IntEnum):
    POINTER_MODE = 2
    TRANSA = 3
    TRANSB = 4
    EPILOGUE = 7
    BIAS_POINTER = 8
    BIAS_BATCH_STRIDE = 10
    EPILOGUE_AUX_POINTER = 11
    EPILOGUE_AUX_LD = 12
    EPILOGUE_AUX_BATCH_STRIDE = 13
    SM_COUNT_TARGET = 15


class MatrixLayoutAttribute(enum.IntEnum):
    BATCH_COUNT = 5
    STRIDED_BATCH_OFFSET = 6


A = MatmulDescAttribute
SIZES = dict.fromkeys(
    (
        A.BIAS_POINTER,
        A.BIAS_BATCH_STRIDE,
        A.EPILOGUE_AUX_POINTER,
        A.EPILOGUE_AUX_LD,
        A.EPILOGUE_AUX_BATCH_STRIDE,
    ),
    8,
)  # bytes, else 4
DEFAULTS = {
    A.SM_COUNT_TARGET: 0,
    A.POINTER_MODE: 0,
    A.TRANSA: 0,
    A.TRANSB: 0,
    A.EPILOGUE: 1,
} | dict.fromkeys(SIZES, 0)


class MatmulPreferenceAttribute(enum.IntEnum):
    MAX_WORKSPACE_BYTES = 1
    REDUCTION_SCHEME_MASK = 3
    MIN_ALIGNMENT_A_BYTES = 5
    MIN_ALIGNMENT_B_BYTES = 6
    MIN_ALIGNMENT_C_BYTES = 7
    MIN_ALIGNMENT_D_BYTES = 8


class cuBLASLtError(Exception):  # noqa: N801  (nvmath's name)
    pass


class FakeCublasLt:
    """cublasLt with one algorithm for each entry of `states`, which are numbered from 70.

    Attributes:
        states: the state of each candidate of the heuristic; 0 is usable.
        lacks: numbers of epilogues for which it has no algorithm.
        broken: algorithms that fail when they run.
        refused: algorithms that `matmul_algo_check` refuses.
        preferences: the preferences that the heuristic received, in order.
        calls: the products, in order.
        clock: the current time in µs.
        microseconds, epilogue: the time of each algorithm (10 if missing), and the additional time
            of an epilogue.
    """

    cuBLASLtError = cuBLASLtError  # noqa: N815  (nvmath's name)
    MatmulDescAttribute = MatmulDescAttribute
    MatmulPreferenceAttribute = MatmulPreferenceAttribute
    MatrixLayoutAttribute = MatrixLayoutAttribute
    matmul_heuristic_result_dtype = matmul_heuristic_result_dtype

    def __init__(self, states: tuple[int, ...] = (0,)) -> None:
        self.objects: dict[int, Any] = {}
        self.states = states
        self.lacks: set[int] = set()
        self.broken: set[int] = set()
        self.refused: set[int] = set()
        self.preferences: list[dict[int, int]] = []
        self.calls: list[dict[str, int]] = []
        self.clock = 0.0
        self.microseconds: dict[int, float] = {}
        self.epilogue = 0.0

    def _new(self, value: Any) -> int:
        handle = max(self.objects, default=999) + 1
        self.objects[handle] = value
        return handle

    def _del(self, handle: int) -> None:
        del self.objects[handle]

    matmul_desc_destroy = matrix_layout_destroy = matmul_preference_destroy = _del

    def get_version(self) -> int:
        return 130100

    def create(self) -> int:
        return self._new("handle")

    def matmul_desc_create(self, compute: int, scale: int) -> int:
        assert COMPUTES[compute][0] == scale
        return self._new({"compute": compute, "scale": scale, **DEFAULTS})

    def matmul_desc_set_attribute(self, desc: int, attr: int, buf: int, size: int) -> None:
        assert size == SIZES.get(A(attr), 4)
        raw = (ctypes.c_char * size).from_address(buf)
        self.objects[desc][attr] = int.from_bytes(raw.raw, "little")

    def matrix_layout_create(self, dtype: int, rows: int, cols: int, ld: int) -> int:
        assert ld >= rows
        return self._new((dtype, rows, cols, ld, 1, 0))

    def matrix_layout_set_attribute(self, layout: int, attr: int, buf: int, size: int) -> None:
        assert size == (4 if attr == MatrixLayoutAttribute.BATCH_COUNT else 8)
        value = int.from_bytes((ctypes.c_char * size).from_address(buf).raw, "little")
        fields = list(self.objects[layout])
        fields[4 if attr == MatrixLayoutAttribute.BATCH_COUNT else 5] = value
        self.objects[layout] = tuple(fields)

    def matmul_preference_create(self) -> int:
        return self._new({})

    def matmul_preference_set_attribute(self, pref: int, attr: int, buf: int, size: int) -> None:
        assert size == (8 if attr == 1 else 4)
        raw = (ctypes.c_char * size).from_address(buf)
        self.objects[pref][attr] = int.from_bytes(raw.raw, "little")

    def matmul_algo_get_heuristic(
        self, handle: int, desc: int, a: int, b: int, c: int, d: int, preference: int,
        wanted: int, results: int, count: int,
    ) -> None:  # fmt: skip
        assert self.objects[handle] == "handle"
        self.preferences.append(dict(self.objects[preference]))
        if not self.states or self.objects[desc][A.EPILOGUE] in self.lacks:
            raise cuBLASLtError("CUBLAS_STATUS_NOT_SUPPORTED (15)")
        self._check(desc, a, b, c, d)
        size = matmul_heuristic_result_dtype.itemsize
        n = min(wanted, len(self.states))
        raw = (ctypes.c_char * (size * n)).from_address(results)
        table = np.frombuffer(raw, matmul_heuristic_result_dtype)
        for i in range(n):
            table[i]["state"], table[i]["algo"]["data_"][0] = self.states[i], 70 + i
            table[i]["algo"]["data_"][1:5] = [self.preferences[-1].get(j, 256) for j in range(5, 9)]
            table[i]["workspace_size"] = 1 << i
        ctypes.c_int32.from_address(count).value = n

    def matmul_algo_check(
        self, handle: int, desc: int, a: int, b: int, c: int, d: int, algo: int, result: int
    ) -> None:
        number = ctypes.c_uint64.from_address(algo).value
        if number in self.refused or not 70 <= number < 70 + len(self.states):
            raise cuBLASLtError("CUBLAS_STATUS_INVALID_VALUE (7)")
        raw = (ctypes.c_char * matmul_heuristic_result_dtype.itemsize).from_address(result)
        np.frombuffer(raw, matmul_heuristic_result_dtype)[0]["workspace_size"] = 1 << (number - 70)

    def matmul(
        self, handle: int, desc: int, alpha: int, a: int, a_layout: int, b: int, b_layout: int,
        beta: int, c: int, c_layout: int, d: int, d_layout: int, algo: int, workspace: int,
        workspace_size: int, stream: int,
    ) -> None:  # fmt: skip
        operation, number = self.objects[desc], ctypes.c_uint64.from_address(algo).value
        self.calls.append(
            {
                "algo": number, "workspace": workspace, "workspace_size": workspace_size,
                "stream": stream, "compute": operation["compute"], "alpha": alpha,
                "epilogue": operation[A.EPILOGUE], "pointer_mode": operation[A.POINTER_MODE],
            }
        )  # fmt: skip
        assumed = np.frombuffer((ctypes.c_uint64 * 5).from_address(algo), np.uint64)[1:].tolist()
        if any(each % bytes for each, bytes in zip((a, b, c, d), assumed, strict=True) if bytes):
            raise cuBLASLtError("CUDA_ERROR_MISALIGNED_ADDRESS")
        if number in self.broken:
            raise cuBLASLtError("CUBLAS_STATUS_INTERNAL_ERROR (14)")
        self._check(desc, a_layout, b_layout, c_layout, d_layout)
        self.clock += self.microseconds.get(number, 10.0)
        self.clock += self.epilogue * (operation[A.EPILOGUE] != 1)
        assert c == d
        wide = DTYPES[operation["scale"]]
        factor, other = (self._matrix(p, (1, 1, 1), wide)[0, 0] for p in (alpha, beta))
        lefts, rights = (
            self._views(*each) for each in ((a, a_layout, assumed[0]), (b, b_layout, assumed[1]))
        )
        outs = self._views(d, d_layout, assumed[3])
        for i, (left, right, out) in enumerate(zip(lefts, rights, outs, strict=True)):
            left, right = left.astype(wide), right.astype(wide)
            s = (left.T if operation[A.TRANSA] else left) @ (
                right.T if operation[A.TRANSB] else right
            )
            s *= factor
            if other:
                s += other * out.astype(wide)
            out[...] = self._finished(operation, i, s, out)

    def _check(self, desc: int, a: int, b: int, c: int, d: int) -> None:
        """Raise the error INVALID_VALUE where cublasLt does."""
        operation = self.objects[desc]
        types = [self.objects[layout][0] for layout in (a, b, c, d)]
        accumulates, inputs = COMPUTES[operation["compute"]]
        reason = ""
        if (
            types[0] != types[1]
            or types[0] not in inputs
            or types[3] not in (types[0], accumulates)
        ):
            reason = f"types {types}"
        if types[2] != types[3]:
            reason = "C and D differ"
        batches = {self.objects[layout][4] for layout in (a, b, c, d)}
        if len(batches) > 1:
            reason = f"batches {batches}"
        if operation[A.EPILOGUE] != 1:
            name = EPILOGUES[operation[A.EPILOGUE]]
            rows = self.objects[d][1]
            k = self.objects[a][1 if operation[A.TRANSA] else 2]
            reason = reason or epilogues.refusal(
                name, rows, k, DTYPES[types[3]], operation[A.EPILOGUE_AUX_LD]
            )
            needs = "aux" in name or name.startswith("d")
            pointers = [operation[A.BIAS_POINTER], operation[A.EPILOGUE_AUX_POINTER]][: 1 + needs]
            if not all(pointers) or any(p % 16 for p in pointers):
                reason = f"pointers {pointers}"
        if reason:
            raise cuBLASLtError(f"CUBLAS_STATUS_INVALID_VALUE (7): {reason}")

    def _finished(self, operation: dict[Any, int], member: int, s: Any, out: Any) -> Any:
        """The result of the epilogue of a member, which is written for row-major arrays."""
        if operation[A.EPILOGUE] == 1:
            return s
        name, (rows, cols) = EPILOGUES[operation[A.EPILOGUE]], out.shape
        own = operation[A.BIAS_POINTER] + member * operation[A.BIAS_BATCH_STRIDE] * out.itemsize
        bias = self._matrix(own, (rows, 1, rows), out.dtype)[:, 0]
        ld, apart = operation[A.EPILOGUE_AUX_LD], operation[A.EPILOGUE_AUX_BATCH_STRIDE]
        apart = apart // 8 if "relu" in name else apart * out.itemsize
        aux = operation[A.EPILOGUE_AUX_POINTER] + member * apart
        matrix = None
        if ld and "relu" in name:
            matrix = self._matrix(aux, (ld // 8, cols, ld // 8), np.uint8).T
        elif ld:
            matrix = self._matrix(aux, (rows, cols, ld), out.dtype).T
        return epilogues.apply(name, s.T, bias, matrix).T

    def _views(self, address: int, layout: int, assumed: int) -> list[np.ndarray[Any, Any]]:
        """The matrices of a batch, each aligned to as many bytes as the algorithm assumes."""
        dtype, rows, cols, ld, batch, stride = self.objects[layout]
        apart = stride * np.dtype(DTYPES[dtype]).itemsize
        if assumed and batch > 1 and apart % assumed:
            raise cuBLASLtError("CUDA_ERROR_MISALIGNED_ADDRESS")
        starts = (address + i * apart for i in range(batch))
        return [self._matrix(start, (rows, cols, ld), DTYPES[dtype]) for start in starts]

    @staticmethod
    def _matrix(address: int, shape: tuple[int, int, int], dtype: Any) -> np.ndarray[Any, Any]:
        """A view of the column-major (rows, cols) matrix with a leading dimension."""
        rows, cols, ld = shape
        size = np.dtype(dtype).itemsize
        raw = (ctypes.c_char * (size * (ld * (cols - 1) + rows))).from_address(address)
        flat = np.frombuffer(raw, np.uint8).view(dtype)
        return np.lib.stride_tricks.as_strided(flat, (rows, cols), (size, size * ld))
