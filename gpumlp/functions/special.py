"""The error function, which NumPy lacks."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from gpumlp.functions.entry import Array


def erf(x: Array) -> Array:
    """Return the error function of x, elementwise, in the dtype of x; by SciPy if installed."""
    value = _erf()(x)  # x may be an object that is no array but calls ufuncs: no np.asarray
    value = np.asarray(value) if isinstance(value, float) else value
    return value.astype(x.dtype, copy=False)


@cache
def _erf() -> Any:
    try:
        from scipy.special import erf as scipy_erf
    except ImportError:
        return np.frompyfunc(math.erf, 1, 1)  # exact, about 100 times slower than SciPy's
    return scipy_erf
