"""Launches of CuPy's functions on the stream of a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpumlp.backends.cuda.dependent import DependentLaunches
from gpumlp.backends.cuda.failures import ErrorTranslator


class Launches:
    """What launches kernels.

    Args:
        stream: returns the stream of the next launch.
        errors: translates CuPy's errors.
        dependent: see `dependent_launches`.

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
