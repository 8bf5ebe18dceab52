"""The description of a product, and cublasLt's descriptors for it.

cublasLt sees a row-major (m, n) array as a column-major (n, m) one.  Its bias vectors and its sums
run over the rows of its D, which are the columns of our array: the features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from math import gcd
from typing import Any, NamedTuple

import numpy as np

from gpumlp.backends.cuda.protocol import Epilogue
from gpumlp.io.types import Array

WORKSPACE_BYTES = 32 << 20  # Hopper's algorithms want as much; with less, they lose up to a third
CANDIDATES = 32  # asked of the heuristic

# dtype -> cudaDataType_t; precision -> cublasComputeType_t; epilogue -> cublasLtEpilogue_t
# (CUDA's library_types.h, cublas_api.h, cublasLt.h)
DATA_TYPE = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}
COMPUTE_TYPE = {"float64": 70, "float32": 68, "tf32": 77, "bfloat16": 68, "float16": 68}
EPILOGUE = {
    "": 1, "bias": 4, "relu_bias": 6, "gelu_bias": 36, "relu_aux_bias": 134, "gelu_aux_bias": 164,
    "drelu_bgrad": 152, "dgelu_bgrad": 208,
}  # fmt: skip
POINTERS_ON_DEVICE = 1
ALIGNMENT = 256  # bytes, of all arrays of a network; cublasLt assumes as much if nothing is said
SUMS_IN_COMPUTE_TYPE = 2  # the only reduction of split-K that does not round its partial sums


class Gemm(NamedTuple):  # the key of a dictionary at every product: a dataclass hashes slower
    """out (m, n) ← op(a) op(b), all row-major; op(a) is (m, k), op(b) is (k, n).

    Attributes:
        dtype, out: the dtypes of a and b, and of the result.
        compute: the backend's precision.
        epilogue: its name, or "".
        aux: the entries between two rows of the epilogue's aux; for a bit mask, the bits.
        factors: whether alpha and beta are in device memory; if not, they are 1 and 0.
        multiprocessors: how many of them it may use; 0: all.
        alignment: the bytes, a power of two up to ALIGNMENT, to which a, b and out are aligned.
        batch: how many products of this shape it is.
        strides: of a batch, the entries between two members of a, of b and of out.
        apart: of a batch, the entries between two members of the epilogue's bias and of its aux;
            of a bit mask, the bits.
        row: the entries between two rows of b, which may be columns of an array; 0: as many as a
            row has.
    """

    m: int
    n: int
    k: int
    transpose_a: bool
    transpose_b: bool
    dtype: str
    out: str
    compute: str
    epilogue: str = ""
    aux: int = 0
    factors: bool = False
    alignment: int = ALIGNMENT
    multiprocessors: int = 0
    batch: int = 1
    strides: tuple[int, int, int] = (0, 0, 0)
    apart: tuple[int, int] = (0, 0)
    row: int = 0

    @classmethod
    def of(
        cls, a: Array, b: Array, out: Array, transpose_a: bool, transpose_b: bool, compute: str,
        factors: Array | None, epilogue: Epilogue | None, alignment: int = ALIGNMENT,
        multiprocessors: int = 0,
    ) -> Gemm:  # fmt: skip
        """The description of a product of these arrays, or of a batch if they have 3 dimensions."""
        m, n = out.shape[-2:]
        k = a.shape[-2] if transpose_a else a.shape[-1]
        bias, aux = (epilogue.bias, epilogue.aux) if epilogue else (None, None)
        batch, strides, own = 1, (0, 0, 0), (0, 0)
        if out.ndim == 3 and len(out) > 1:
            batch, apart = len(out), (a.strides[0], b.strides[0], out.strides[0])
            alignment = gcd(alignment, *apart)  # each member is aligned to as many bytes
            strides = apart[0] // a.itemsize, apart[1] // b.itemsize, apart[2] // out.itemsize
            own = _apart(bias), _apart(aux)
        of_aux = 0 if aux is None else aux.shape[-1] * _entries(aux)
        row = b.strides[-2] // b.itemsize if b.shape[-2] > 1 else b.shape[-1]
        return cls(
            m, n, k, transpose_a, transpose_b, a.dtype.name, out.dtype.name, compute,
            epilogue.name if epilogue else "", of_aux, factors is not None, alignment,
            multiprocessors, batch, strides, own, row if row != b.shape[-1] else 0,
        )  # fmt: skip

    @property
    def scale(self) -> str:
        """The dtype of alpha and beta."""
        return "float64" if self.compute == "float64" else "float32"

    @property
    def letters(self) -> str:
        """BLAS's letters for a and b: NN, NT, TN or TT."""
        return "NT"[self.transpose_a] + "NT"[self.transpose_b]

    def __str__(self) -> str:
        types = self.dtype + (f"->{self.out}" if self.out != self.dtype else "")
        more = [self.epilogue, f"aux {self.aux}" * bool(self.aux), "factors" * self.factors]
        more.append(f"on {self.multiprocessors} multiprocessors" * bool(self.multiprocessors))
        more.append(f"rows of {self.row}" * bool(self.row))
        more.append(f"aligned to {self.alignment}" * (self.alignment < ALIGNMENT))
        if self.batch > 1:
            more.append("batch of {} at strides {} {} {}".format(self.batch, *self.strides))
            more.append("and {} {}".format(*self.apart) * bool(self.epilogue))
        parts = [self.letters, f"{self.m} {self.n} {self.k}", types, f"in {self.compute}", *more]
        return " ".join(part for part in parts if part)

    def layouts(self) -> dict[str, tuple[int, int, int]]:
        """(rows, columns, leading dimension) of cublasLt's A, B and D, which are column-major.

        A row-major (r, c) array is a column-major (c, r) one, so outᵀ = op(b)ᵀ op(a)ᵀ.  cublasLt's
        A is our b and its B is our a, and each is transposed exactly if ours is.
        """
        return {
            "A": (self.k, self.n, self.row or self.k)
            if self.transpose_b
            else (self.n, self.k, self.row or self.n),
            "B": (self.m, self.k, self.m) if self.transpose_a else (self.k, self.m, self.k),
            "D": (self.n, self.m, self.n),
        }


def _entries(aux: Array) -> int:
    """The entries of an item of aux: 8 in a byte of a bit mask."""
    return 8 if aux.dtype == np.uint8 else 1


def _apart(a: Array | None) -> int:
    """The entries between two members of an array of an epilogue."""
    return 0 if a is None else a.strides[0] // a.itemsize * _entries(a)


@dataclass(frozen=True)
class Algorithm:
    """The 64 bytes that describe one algorithm of cublasLt, and the workspace it needs in bytes."""

    data: bytes
    workspace: int

    @cached_property
    def address(self) -> int:
        """The address of the bytes, valid while this object lives."""
        return int(np.frombuffer(self.data, np.uint8).ctypes.data)


class Operands(NamedTuple):
    """Addresses of the arrays of one product; 0 for an array that it lacks.

    bias and aux are aligned to 16 bytes.  a, b and out of another library may be aligned to less.
    """

    a: int
    b: int
    out: int
    bias: int = 0
    aux: int = 0
    factors: int = 0

    @property
    def alignment(self) -> int:
        """The largest power of two up to ALIGNMENT that divides the addresses of a, b and out."""
        bits = self.a | self.b | self.out | ALIGNMENT
        return bits & -bits


class Plan:
    """cublasLt's descriptors for one `Gemm`.  They need the driver's library but no device."""

    def __init__(self, lt: Any, handle: int, gemm: Gemm) -> None:
        """Lt: the module `nvmath.bindings.cublasLt`."""
        self._lt, self._handle, self.gemm = lt, handle, gemm
        self._attributes = attribute = lt.MatmulDescAttribute
        inputs, result = DATA_TYPE[gemm.dtype], DATA_TYPE[gemm.out]
        self.operation = lt.matmul_desc_create(COMPUTE_TYPE[gemm.compute], DATA_TYPE[gemm.scale])
        self._set(attribute.TRANSA, np.int32(gemm.transpose_b))
        self._set(attribute.TRANSB, np.int32(gemm.transpose_a))
        self._set(attribute.EPILOGUE, np.uint32(EPILOGUE[gemm.epilogue]))
        if gemm.factors:
            self._set(attribute.POINTER_MODE, np.int32(POINTERS_ON_DEVICE))
        if gemm.multiprocessors:
            self._set(attribute.SM_COUNT_TARGET, np.int32(gemm.multiprocessors))
        if gemm.aux:
            self._set(attribute.EPILOGUE_AUX_LD, np.int64(gemm.aux))
        self.a, self.b, self.d = (
            lt.matrix_layout_create(data, *shape)
            for data, shape in zip((inputs, inputs, result), gemm.layouts().values(), strict=True)
        )
        if gemm.batch > 1:
            self._set_batch()
        self._factors = np.array([1, 0], gemm.scale)  # if they are not in device memory
        self._alpha = int(self._factors.ctypes.data)
        self._pointers = (0, 0)

    def point(self, bias: int, aux: int) -> None:
        """Set the addresses of the epilogue's arrays.  The heuristic reads them too."""
        if (bias, aux) == self._pointers:
            return
        self._set(self._attributes.BIAS_POINTER, np.uint64(bias))
        self._set(self._attributes.EPILOGUE_AUX_POINTER, np.uint64(aux))
        self._pointers = bias, aux

    def candidates(self) -> list[Algorithm]:
        """The usable algorithms, in the heuristic's order, best first."""
        results = np.zeros(CANDIDATES, self._lt.matmul_heuristic_result_dtype)
        count = np.zeros(1, np.int32)
        preference = self._preference()
        try:
            self._lt.matmul_algo_get_heuristic(
                self._handle, self.operation, self.a, self.b, self.d, self.d, preference,
                CANDIDATES, results.ctypes.data, count.ctypes.data,
            )  # fmt: skip
        finally:
            self._lt.matmul_preference_destroy(preference)
        return [
            Algorithm(r["algo"].tobytes(), int(r["workspace_size"]))
            for r in results[: count[0]]
            if r["state"] == 0
        ]

    def accepts(self, algorithm: Algorithm) -> bool:
        """Whether cublasLt can run an algorithm that an earlier process has chosen."""
        result = np.zeros(1, self._lt.matmul_heuristic_result_dtype)
        try:
            self._lt.matmul_algo_check(
                self._handle, self.operation, self.a, self.b, self.d, self.d,
                algorithm.address, result.ctypes.data,
            )  # fmt: skip
        except self._lt.cuBLASLtError:
            return False
        return bool(result[0]["state"] == 0 and result[0]["workspace_size"] <= WORKSPACE_BYTES)

    def run(self, algorithm: Algorithm, at: Operands, stream: int, workspace: int) -> None:
        """Enqueue the product on the stream."""
        self.point(at.bias, at.aux)
        alpha = at.factors if self.gemm.factors else self._alpha
        beta = alpha + self._factors.itemsize
        self._lt.matmul(
            self._handle, self.operation, alpha, at.b, self.a, at.a, self.b, beta,
            at.out, self.d, at.out, self.d, algorithm.address, workspace, WORKSPACE_BYTES, stream,
        )  # fmt: skip

    def close(self) -> None:
        """Free the descriptors."""
        self._lt.matmul_desc_destroy(self.operation)
        for layout in (self.a, self.b, self.d):
            self._lt.matrix_layout_destroy(layout)

    def _preference(self) -> int:
        """What algorithms may use and assume, and how they sum if the result has 16 bits."""
        preference: int = self._lt.matmul_preference_create()
        attribute = self._lt.MatmulPreferenceAttribute
        write = partial(_write, self._lt.matmul_preference_set_attribute, preference)
        write(attribute.MAX_WORKSPACE_BYTES, np.uint64(WORKSPACE_BYTES))
        if self.gemm.out in ("float16", "bfloat16"):
            write(attribute.REDUCTION_SCHEME_MASK, np.uint32(SUMS_IN_COMPUTE_TYPE))
        for each in "ABCD":
            name = f"MIN_ALIGNMENT_{each}_BYTES"
            write(getattr(attribute, name), np.uint32(self.gemm.alignment))
        return preference

    def _set_batch(self) -> None:
        attribute, (of_a, of_b, of_out) = self._lt.MatrixLayoutAttribute, self.gemm.strides
        for layout, stride in ((self.a, of_b), (self.b, of_a), (self.d, of_out)):
            write = partial(_write, self._lt.matrix_layout_set_attribute, layout)
            write(attribute.BATCH_COUNT, np.int32(self.gemm.batch))
            write(attribute.STRIDED_BATCH_OFFSET, np.int64(stride))
        if self.gemm.epilogue:
            bias, aux = self.gemm.apart
            self._set(self._attributes.BIAS_BATCH_STRIDE, np.int64(bias))
            self._set(self._attributes.EPILOGUE_AUX_BATCH_STRIDE, np.int64(aux))

    def _set(self, attribute: int, value: np.generic) -> None:
        _write(self._lt.matmul_desc_set_attribute, self.operation, attribute, value)


def _write(setter: Callable[..., None], to: int, attribute: int, value: np.generic) -> None:
    cell = np.array(value)
    setter(to, int(attribute), cell.ctypes.data, cell.nbytes)
