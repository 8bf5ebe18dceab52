"""NumPy's names for a device's number types; bfloat16 is the one that NumPy itself lacks."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.errors import DeviceError


def dtype_of(name: str) -> np.dtype[Any]:
    """The dtype called `name`, "bfloat16" included.

    Raises:
        DeviceError: it is bfloat16 and ml_dtypes, which has it, is missing.
    """
    if name != "bfloat16":
        return np.dtype(name)
    try:
        from ml_dtypes import bfloat16
    except ImportError as error:
        raise DeviceError("bfloat16 needs ml_dtypes: pip install ml_dtypes") from error
    dtype: np.dtype[Any] = np.dtype(bfloat16)
    return dtype
