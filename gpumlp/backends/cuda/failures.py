"""Turn errors of CuPy and cublasLt into errors of gpumlp."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from gpumlp.errors import DeviceError, OutOfMemoryError, first_line

INSTALL = 'pip install "gpumlp[cuda13]" (or "gpumlp[cuda12]" for a driver older than 580)'


class ErrorTranslator:
    """Raises CuPy's and cublasLt's errors again as `DeviceError`, with the original as the cause.

    ``with translate(doing):`` translates errors and raises an error if another GPU is current.
    Calls that every step makes skip the check of the current GPU, which takes time: they use
    ``except translate.foreign`` and `failure`.

    Args:
        index, name: of the GPU.

    Attributes:
        foreign: the error classes that are translated.
    """

    def __init__(self, cuda: Any, lt: Any, index: int, name: str) -> None:
        self._cuda, self._index, self._name = cuda, index, name
        self.foreign: tuple[type[Exception], ...] = (
            cuda.runtime.CUDARuntimeError,
            cuda.driver.CUDADriverError,
            lt.cuBLASLtError,
        )

    @contextlib.contextmanager
    def __call__(self, doing: str = "") -> Iterator[None]:
        """Translate errors.  A message starts with `doing`, such as "compiling x"."""
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
        except DeviceError:
            raise
        except RuntimeError as error:  # CuPy found no headers of CUDA, for example
            raise DeviceError(
                f"{doing or 'CuPy'}: {first_line(error)}; to install CUDA's headers and libraries, "
                f"{INSTALL}, or set CUDA_PATH to a CUDA toolkit"
            ) from error

    def failure(self, error: BaseException, doing: str) -> DeviceError:
        """The `DeviceError` for an error of another library."""
        before = f"{doing}: " if doing else ""
        return DeviceError(
            f"{before}{first_line(error)}; after such an error the process must be restarted"
        )
