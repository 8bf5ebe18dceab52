"""Types of arrays that every module shares."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = Any
"""An array of a backend: numpy.ndarray, or the device's array with the same attributes."""

HostArray = npt.NDArray[Any]
"""An array in the host's memory, of any dtype."""

HostVector = npt.NDArray[np.float64]
"""A float64 array in the host's memory."""
