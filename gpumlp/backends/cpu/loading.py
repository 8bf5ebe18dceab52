"""The compiled operations: the library that is installed with gpumlp, and users' own entries.

The installed library exists for several instruction sets, and the best that the processor has is
loaded.  A user's own entry is compiled once, where there is a C++ compiler, and cached by content.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
import warnings
from functools import cache
from pathlib import Path

from gpumlp.backends.cpu import source
from gpumlp.backends.cpu.flags import FLAGS, INSTRUCTION_SETS
from gpumlp.functions import Regularizer
from gpumlp.functions.entry import Entry
from gpumlp.io.paths import cache_folder


class Library:
    """The library of one instruction set, and the entries that were compiled for it.

    Attributes:
        instruction_set: its name, such as "avx2".
        run, read_rows: `gpumlp_run` and `gpumlp_read_rows` of kernels/cpu/program.cpp.
    """

    def __init__(self, path: Path, instruction_set: str) -> None:
        self._library = ctypes.CDLL(str(path))
        if _version(self._library) != _expected():
            raise OSError("it was made from other sources than these")
        self.instruction_set = instruction_set
        self.run = self._library.gpumlp_run
        self.run.restype = None
        number, pointer = ctypes.c_int64, ctypes.c_void_p
        self.run.argtypes = [pointer, number, number, pointer, pointer, number, pointer]
        self.read_rows = self._library.gpumlp_read_rows
        self.read_rows.restype = number
        self.read_rows.argtypes = [ctypes.c_int, number, number, pointer, number, pointer]

    def address(self, name: str) -> int:
        """The address of a function."""
        return _address(self._library, name)

    def operation(self, real: str, name: str, entry: Entry, omega: Regularizer | None) -> int:
        """The address of an entry's operation, or 0 if it can be had for NumPy only.

        real: "float" or "double".  name: one of `source.operations`.
        """
        if not source.has_source(entry) or (omega is not None and not source.has_source(omega)):
            return 0
        symbol = f"{real}_{name}"
        if hasattr(self._library, symbol):
            return _address(self._library, symbol)
        own = _compiled(source.text(entry, omega), self.instruction_set)
        return 0 if own is None else _address(own, symbol)


@cache
def installed() -> Library | str:
    """The library, or why there is none."""
    for name in (name for name, each in INSTRUCTION_SETS.items() if each.usable()):
        for path in sorted(Path(__file__).parent.glob(f"_{name}.*")):
            try:
                return Library(path, name)
            except (OSError, ValueError, ModuleNotFoundError) as error:
                return f"{path} cannot be loaded ({error}); install gpumlp again"
    return "its library is missing; install a C++ compiler, and then gpumlp again"


@cache
def _expected() -> str:
    """The digest of the sources that are here."""
    return source.version(source.built_in(source.headers()))


def _version(library: ctypes.CDLL) -> str:
    """The digest of the source from which a library was made."""
    digest = (ctypes.c_char * len(_expected())).in_dll(library, "gpumlp_version")
    return digest.raw.decode("ascii", "replace")


def _address(library: ctypes.CDLL, name: str) -> int:
    return ctypes.cast(library[name], ctypes.c_void_p).value or 0


@cache
def _compiled(text: str, instruction_set: str) -> ctypes.CDLL | None:
    """The library of this source; None if there is no compiler, or if it does not compile."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        return None
    flags = [*FLAGS, *INSTRUCTION_SETS[instruction_set].flags]
    content = [_expected(), text, *flags]
    digest = hashlib.sha256("\0".join(content).encode()).hexdigest()[:24]
    try:
        folder = cache_folder() / "cpu"
        folder.mkdir(parents=True, exist_ok=True)
        library = folder / f"{digest}.so"
        if not library.exists():
            _compile(compiler, flags, text, library)
        return ctypes.CDLL(str(library))
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        why = next((line for line in said if "error:" in line), said[0])
        warnings.warn(
            "a function of your own runs by its NumPy expression, because its CUDA expression was "
            f"not compiled for the CPU ({why}); correct that expression, or leave it out",
            stacklevel=2,
        )
        return None


def _compile(compiler: str, flags: list[str], text: str, library: Path) -> None:
    """Write the library, as a whole or not at all."""
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        path, made = Path(folder) / "entry.cpp", Path(folder) / library.name
        path.write_text(text, encoding="utf-8")
        command = [compiler, *flags, "-shared", f"-I{source.headers()}", str(path), "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, encoding="utf-8", errors="replace")
        made.replace(library)
