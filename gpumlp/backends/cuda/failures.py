"""Other libraries' errors as ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from gpumlp.errors import DeviceError, OutOfMemoryError


class Errors:
    """CuPy's and cublasLt's error classes as one `DeviceError`, the original as its cause.

    ``with errors(doing):`` turns them, and refuses to work while another device is current.  What
    every step does goes without the latter: ``except errors.foreign``, and `failure`.

    Args:
        cuda: the module `cupy.cuda`.
        lt: that of cublasLt.
        index, name: the device's.

    Attributes:
        foreign: the classes.
    """

    def __init__(self, cuda: Any, lt: Any, index: int, name: str) -> None:
        self._cuda, self._index, self._name = cuda, index, name
        self.foreign = (
            cuda.runtime.CUDARuntimeError,
            cuda.driver.CUDADriverError,
            lt.cuBLASLtError,
        )

    @contextlib.contextmanager
    def __call__(self, doing: str = "") -> Iterator[None]:
        """`doing`, "compiling x" say, is what a message begins with."""
        cuda = self._cuda
        current = int(cuda.Device().id)
        if current != self._index:
            raise DeviceError(
                f"this network is on GPU {self._index} but the current one is {current}; "
                f"work within `with cupy.cuda.Device({self._index}):`"
            )
        try:
            yield
        except cuda.memory.OutOfMemoryError as error:
            raise OutOfMemoryError(
                f"out of GPU memory on {self._name}: {error}; "
                'use a smaller batch_size or network, data="stream" for large data, or free other '
                "programs' memory"
            ) from error
        except cuda.compiler.CompileException as error:
            raise DeviceError(f"{doing}: {error}") from error
        except self.foreign as error:
            raise self.failure(error, doing) from error

    def failure(self, error: BaseException, doing: str) -> DeviceError:
        """The error to raise for a foreign one."""
        before = f"{doing}: " if doing else ""
        return DeviceError(
            f"{before}{first_line(error)}; after such an error the process must be started anew"
        )


def first_line(error: BaseException) -> str:
    """The error's first line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
