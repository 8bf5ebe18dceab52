"""Launches of kernels on the stream of a device, by CuPy or, ahead of time, by the driver.

Programmatic dependent launch makes a kernel ready while the one before it still runs.  Each of our
kernels waits for that one's end before it accesses memory: see `after_previous_launch` in
kernels/common.cuh.  So only the time to launch it is saved.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from gpumlp.backends.cuda.failures import ErrorTranslator
from gpumlp.errors import DeviceError
from gpumlp.io.types import Array

CAPABILITY = 9  # Hopper, the first that can


class DependentLaunches:
    """Launches of the driver's cuLaunchKernelEx."""

    def __init__(self, driver: Any, address: Callable[[Array], int]) -> None:
        self._driver, self._address = driver, address

    def __call__(
        self, function: int, grid: tuple[int, ...], block: tuple[int, int],
        arguments: tuple[Any, ...], stream: int,
    ) -> None:  # fmt: skip
        """Launch a CUfunction.  The driver copies the arguments before it returns."""
        driver, config = self._driver, self._driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = (*grid, 1)[:3]
        config.blockDimX, config.blockDimY, config.blockDimZ = *block, 1
        config.hStream, config.attrs, config.numAttrs = stream, [self._attribute()], 1
        cells = [
            np.array([a]) if isinstance(a, np.generic) else np.array([self._address(a)], np.uint64)
            for a in arguments
        ]
        pointers = np.array([cell.ctypes.data for cell in cells], np.uint64)
        (result,) = driver.cuLaunchKernelEx(config, function, int(pointers.ctypes.data), 0)
        if result != driver.CUresult.CUDA_SUCCESS:
            raise DeviceError(
                f"the driver refuses a dependent launch ({result.name}); set "
                "GPUMLP_DEPENDENT_LAUNCH=0"
            )

    def _attribute(self) -> Any:
        driver = self._driver
        name = "CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION"
        attribute, value = driver.CUlaunchAttribute(), driver.CUlaunchAttributeValue()
        attribute.id = getattr(driver.CUlaunchAttributeID, name)
        value.programmaticStreamSerializationAllowed = 1
        attribute.value = value
        return attribute


def dependent_launches(major: int, address: Callable[[Array], int]) -> DependentLaunches | None:
    """None if the device, of this major compute capability, or its driver's module cannot do it.

    GPUMLP_DEPENDENT_LAUNCH=0 turns it off.
    """
    if major < CAPABILITY or os.environ.get("GPUMLP_DEPENDENT_LAUNCH") == "0":
        return None
    try:
        from cuda.bindings import driver
    except ImportError:
        return None
    return DependentLaunches(driver, address)


class Launches:
    """What launches kernels.

    Args:
        stream: returns the stream of the next launch.

    Attributes:
        rehearsing: kernels are compiled, and do not run.
        dependently: kernels that can wait for the one before them are made ready early.
    """

    def __init__(
        self,
        stream: Callable[[], Any],
        errors: ErrorTranslator,
        dependent: DependentLaunches | None,
    ) -> None:
        self._stream, self._errors, self.dependent = stream, errors, dependent
        self.rehearsing = self.dependently = False

    def of(self, function: Any, name: str, waits: bool = True) -> Callable[..., None]:
        """What launches a function of CuPy with (grid, block, arguments).

        waits: whether the kernel can wait for the one before it.
        """

        def launch(grid: Any, block: Any, arguments: tuple[Any, ...]) -> None:
            if self.rehearsing:
                return
            stream = self._stream()
            try:
                if waits and self.dependently and self.dependent:
                    self.dependent(int(function.ptr), grid, block, arguments, int(stream.ptr))
                else:
                    function(grid, block, arguments, stream=stream)
            except self._errors.foreign as error:
                raise self._errors.failure(error, f"launching {name}") from error

        return launch
