"""Marks of tests of the CPU backend's library."""

import shutil

import pytest

from gpumlp.backends.cpu.loading import Library, installed

LIBRARY = installed()
needs_library = pytest.mark.skipif(not isinstance(LIBRARY, Library), reason=str(LIBRARY))
needs_compiler = pytest.mark.skipif(not shutil.which("c++"), reason="there is no C++ compiler")
