"""The CPU backend's library: marks of its tests, and single products."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from gpumlp.backends import get_backend
from gpumlp.backends.cpu import backend as cpu_backend
from gpumlp.backends.cpu.code import Code
from gpumlp.backends.cpu.loading import Library, installed

LIBRARY = installed()
needs_library = pytest.mark.skipif(not isinstance(LIBRARY, Library), reason=str(LIBRARY))
EMULATED_TILES = Path(__file__).with_name("emulated_tiles.hpp")
"""A header to include before others: AMX's instructions for processors without it."""
needs_compiler = pytest.mark.skipif(not shutil.which("c++"), reason="there is no C++ compiler")


def multiplied_on_cpu(
    precision: str, a: Any, b: Any, out: Any, factors: Any = None, threads: int = 1
) -> Any:
    """A copy of `out` after the library's product of a and b, on so many threads."""
    backend: Any = get_backend("cpu", precision)
    out = out.copy()
    work = backend._lower._product(a, b, out, factors)
    program = cpu_backend.Program(backend._library, backend._blas, Code([work]))
    program._threads = threads
    program()
    return out
