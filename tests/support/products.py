"""One matrix product: its operands, the call of cublasLt and the comparison with NumPy."""

import ml_dtypes
import numpy as np

from gpumlp.backends.cuda.plans import Gemm, Operands
from tests.support.harness.memory import aligned, aligned_empty

TOLERANCE = {"float64": 1e-14, "float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}
TYPES = {"tf32": np.float32, "bfloat16": ml_dtypes.bfloat16}


def dtype(compute):
    """The type of the operands in the precision `compute`."""
    return np.dtype(TYPES.get(compute, compute))


class Product:
    """The operands and the result of one product."""

    def __init__(self, m, n, k, transpose_a=False, transpose_b=False, compute="float32", **more):
        self.rng = np.random.default_rng([m, n, k])
        kind, self.letters = dtype(compute), (transpose_a, transpose_b)
        batch = (more.pop("batch"),) if "batch" in more else ()
        self.a = self.normal((*batch, *((k, m) if transpose_a else (m, k))), kind)
        self.b = self.normal((*batch, *((n, k) if transpose_b else (k, n))), kind)
        self.out = aligned_empty((*batch, m, n), more.pop("out", kind))
        self.compute, self.epilogue, self.factors = compute, more.pop("epilogue", None), None
        assert not more

    def normal(self, shape, kind):
        return aligned(self.rng.standard_normal(shape), kind)

    @property
    def exact(self):
        """The product in float64, of the operands as they are rounded."""
        a, b = self.a.astype(np.float64), self.b.astype(np.float64)
        a, b = (x.swapaxes(-1, -2) if t else x for x, t in zip((a, b), self.letters, strict=True))
        return a @ b

    def on(self, blas, fallback=None):
        arrays = [self.a, self.b, self.out, None, None, self.factors]
        if self.epilogue:
            arrays[3:5] = self.epilogue.bias, self.epilogue.aux
        at = Operands(*(0 if each is None else each.ctypes.data for each in arrays))
        gemm = Gemm.of(
            self.a, self.b, self.out, *self.letters, self.compute, self.factors, self.epilogue,
            at.alignment,
        )  # fmt: skip
        return blas(gemm, at, fallback)

    def check(self, want, got=None):
        got = self.out if got is None else got
        tolerance = TOLERANCE[got.dtype.name] * np.abs(want).max()
        np.testing.assert_allclose(got.astype(np.float64), want, rtol=0, atol=tolerance)
