"""Array types that every module uses."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = Any
"""An array of a backend: numpy.ndarray, or a GPU array with the same attributes."""

HostArray = npt.NDArray[Any]
"""An array in host memory, of any dtype."""

HostVector = npt.NDArray[np.float64]
"""A float64 array in host memory."""
