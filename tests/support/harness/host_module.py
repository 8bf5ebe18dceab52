"""Compile CUDA sources of the library with g++ and call their kernels on NumPy arrays.

    module = HostModule([source, …])
    module.get_kernel("gather", source)((1, 1), (64, 4), (x, index, out, rows, cols, packed))

The call is that of a kernel of `gpumlp.backends.cuda.protocol`.  Unlike the CUDA driver, it checks
number, type and memory order of the arguments.  With sanitize="address,undefined" or "thread", the
interpreter must have been started with the sanitizer preloaded: see `sanitizer_environment`.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

HERE = Path(__file__).resolve().parent
CACHE = Path(
    os.environ.get("GPUMLP_HARNESS_CACHE")
    or Path(tempfile.gettempdir()) / f"gpumlp-harness-{os.getuid()}"
)
# -Og: a storage type takes 6 s of a processor (11 s with -O1), and the kernels run as fast
FLAGS = (
    "-std=c++17", "-Og", "-g1", "-fPIC", "-fno-strict-aliasing", "-fdata-sections",
    "-fvisibility=hidden", "-U_FORTIFY_SOURCE", f"-I{HERE}",
    "-Wall", "-Werror", "-Wno-unused-function", "-Wno-unknown-pragmas",
)  # fmt: skip


class KernelError(RuntimeError):
    """The kernel or its call broke a rule that the harness checks."""


class Source(Protocol):
    """A source to compile: `gpumlp.backends.cuda.source.KernelSource`, or a test's own."""

    @property
    def headers(self) -> tuple[str, ...]:
        """The headers of the CUDA toolkit that the text includes."""

    def text(self) -> str:
        """The complete CUDA C++ source."""


def kernel_names(source: Source) -> list[str]:
    """The names of the kernels in a source."""
    return re.findall(r"^GPUMLP_KERNEL\((\w+),", source.text(), re.MULTILINE)


class HostModule:
    """Sources compiled together, each in a namespace of its own.

    Raises:
        KernelError: g++ cannot compile them; the message is that of g++.
    """

    def __init__(self, sources: Iterable[Source], sanitize: str = "") -> None:
        self.spaces = {source: f"s{i}" for i, source in enumerate(dict.fromkeys(sources))}
        # PyDLL keeps the GIL, so that only one launch runs at a time
        self.shared_object = ctypes.PyDLL(str(self._build(sanitize)))

    def get_kernel(self, name: str, source: Source) -> HostKernel:
        """The kernel `name` of one of the sources."""
        return HostKernel(self.shared_object, f"{self.spaces[source]}_{name}", name)

    def _build(self, sanitize: str) -> Path:
        headers = sorted({header for source in self.spaces for header in source.headers})
        flags = [*FLAGS, *(f"-isystem{include_folder(header)}" for header in headers)]
        watch = {"": ["-O2"], "thread": ["-DWITH_TSAN"]}.get(sanitize, ["-DWITH_ASAN"])
        instrument = [f"-fsanitize={sanitize}", "-fno-sanitize-recover=all"] if sanitize else []
        scheduler, header, fibers = (
            HERE / name for name in ("cuda_on_cpu.cpp", "cuda_on_cpu.h", "fibers.h")
        )
        compile_it = [*FLAGS, *watch, "-c", str(scheduler)]
        runtime = compiled([scheduler, header, fibers], compile_it, ".o")
        includes = "".join(f"#include <{name}>\n" for name in (*headers, header.name))
        text, layout = self._translation_unit(), self._linker_script()
        first, unit, script = (
            cached(content, suffix, lambda content=content: content)
            for content, suffix in ((includes, ".h"), (text, ".cpp"), (layout, ".ld"))
        )
        flags += instrument
        # to read the headers takes longer than all else that g++ does for one source
        precompiled = compiled([first, header], [*flags, "-x", "c++-header", str(first)], ".gch")
        begin = ["-Winvalid-pch", "-include", str(precompiled.with_suffix(""))]  # g++ adds .gch
        link = ["-shared", str(unit), str(runtime), f"-Wl,-T,{script}"]
        return compiled([unit, script, runtime, header], [*flags, *begin, *link], ".so")

    def _translation_unit(self) -> str:
        text = ""
        for source, space in self.spaces.items():
            for name in (f"shared_begin_{space}", f"shared_end_{space}"):
                text += f'extern "C" __attribute__((visibility("hidden"))) char {name}[];\n'
            text += f"namespace gpumlp {{ namespace {{ namespace {space} {{\n"
            text += f"{source.text()}\n}}}}}}\n"
        for source, space in self.spaces.items():
            text += "".join(f"CUDA_ON_CPU_EXPORT({space}, {k})\n" for k in kernel_names(source))
        return text

    def _linker_script(self) -> str:
        """Gather __shared__ variables of each source: g++ ignores section attributes in templates.

        They fill whole pages, because with ThreadSanitizer each block maps them again.
        """
        sections = ""
        for space in self.spaces.values():
            mangled = f"_ZZN6gpumlp12_GLOBAL__N_1{len(space)}{space}"
            sections += (
                f"shared_{space} : ALIGN(4096) {{ shared_begin_{space} = .; *(.bss.{mangled}*) "
                f". = ALIGN(4096); shared_end_{space} = .; }}\n"
            )
        return f"SECTIONS {{\n{sections}}} INSERT AFTER .bss;\n"


class _Launch(ctypes.Structure):
    """The struct of the same name in cuda_on_cpu.h."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3),
        ("first_block", ctypes.c_uint64), ("blocks", ctypes.c_uint64),
        ("dynamic_bytes", ctypes.c_uint64), ("order", ctypes.c_int),
    )  # fmt: skip


class HostKernel:
    """One kernel, which is called as on a device."""

    def __init__(self, library: ctypes.PyDLL, symbol: str, name: str) -> None:
        self.name = name
        self._launch = getattr(library, f"launch_{symbol}")
        self._launch.restype = ctypes.c_char_p
        signature = getattr(library, f"signature_{symbol}")
        signature.restype = ctypes.c_char_p
        self.parameters = signature().decode().split()
        matches = [re.fullmatch(r"(\w+)(\*?)(const)?", each) for each in self.parameters]
        self._parsed = [match.groups() for match in matches if match]
        assert len(self._parsed) == len(self.parameters)

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[Any], *,
        order: int = 0, blocks: range = range(0), shared_mem: int = 0,
    ) -> None:  # fmt: skip
        """Run the kernel.

        Args:
            grid: size of the grid, x first.
            block: size of a block, x first.
            args: arrays, and NumPy scalars of exactly the parameters' types.
            order: the order of blocks, warps and lanes: 0 forward, 1 backward, other numbers seed a
                shuffle.
            blocks: the numbers of the blocks to run, x fastest; empty: all blocks.
            shared_mem: bytes of dynamic shared memory.

        Raises:
            KernelError: an argument or the launch is wrong for the kernel, or its threads wait for
                each other forever.
        """
        if type(grid) is not tuple or type(block) is not tuple:
            raise KernelError(f"{self.name}: CuPy takes grid and block as tuples")
        if len(args) != len(self.parameters):
            raise KernelError(
                f"{self.name} has {len(self.parameters)} parameters, got {len(args)} arguments"
            )
        cells = (ctypes.c_uint64 * len(args))(*(self._cell(i, a) for i, a in enumerate(args)))
        begin = ctypes.addressof(cells)
        pointers = (ctypes.c_void_p * len(args))(*range(begin, begin + 8 * len(args), 8))
        sizes = (((*size, 1, 1)[:3]) for size in (grid, block))
        request = _Launch(*sizes, blocks.start, len(blocks), shared_mem, order)
        error = self._launch(ctypes.byref(request), pointers)
        if error:
            raise KernelError(f"{self.name}: {error.decode()}")

    def _cell(self, i: int, value: Any) -> int:
        """The bytes that cuLaunchKernel would copy as argument i: a number, or an address."""
        wanted, pointer, constant = self._parsed[i]
        if not pointer:
            if not isinstance(value, np.generic) or _type_of(value.dtype) != wanted:
                raise KernelError(
                    f"{self.name}: argument {i} is {type(value).__name__}, "
                    f"the kernel needs a NumPy scalar {wanted}"
                )
            return int.from_bytes(value.tobytes(), sys.byteorder)
        if not isinstance(value, np.ndarray):
            raise KernelError(f"{self.name}: argument {i} must be an array")
        if _type_of(value.dtype) != wanted:
            raise KernelError(
                f"{self.name}: argument {i} is {_type_of(value.dtype)}, the kernel needs {wanted}"
            )
        flags = value.flags
        if not flags.c_contiguous:
            raise KernelError(f"{self.name}: argument {i} is not contiguous")
        if not constant and not flags.writeable:
            raise KernelError(f"{self.name}: argument {i} is read-only")
        address: int = value.__array_interface__["data"][0]  # faster than value.ctypes
        return address


@cache  # to make the name of a dtype takes longer than all other checks of an argument
def _type_of(dtype: np.dtype[Any]) -> str:
    """The type as the signatures of kernels write it: "f4", "i8", …; "b2" is bfloat16."""
    return "b2" if dtype.name == "bfloat16" else dtype.str[1:]


# ---- compiling -----------------------------------------------------------------------------------


def sanitizer_environment(sanitize: str) -> dict[str, str]:
    """The environment in which a new interpreter can load a sanitized module."""
    name = "libtsan.so" if sanitize == "thread" else "libasan.so"
    found = subprocess.run(
        ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    return {
        **os.environ,
        "LD_PRELOAD": os.path.realpath(found.stdout.strip()),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "TSAN_OPTIONS": "halt_on_error=1:report_signal_unsafe=0",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": str(HERE.parents[2]),
    }


def include_folder(header: str) -> Path:
    """The folder of one of CUDA's headers, which also has what the header includes on a CPU."""
    for folder in (p for entry in sys.path for p in Path(entry).glob("nvidia/*/include")):
        if (folder / header).exists() and (folder / "nv" / "target").exists():
            return folder
    raise FileNotFoundError(f'{header} is not installed: pip install "gpumlp[test]"')


def cached(key: str, suffix: str, make: Callable[[], str]) -> Path:
    """The cache file of `key`, to which the text of make() is written.

    One thread of one process makes it, and the others wait: what takes long is not done twice.
    """
    path = CACHE / (hashlib.sha256(key.encode()).hexdigest()[:20] + suffix)
    if not path.exists():
        CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.with_name(f"{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                partial = path.with_name(f"{path.name}.partial")
                partial.write_text(make())
                partial.replace(path)
    return path


def compiled(inputs: Sequence[Path], arguments: Sequence[str], suffix: str) -> Path:
    """The file that g++ makes of the inputs, once, and by one process at a time.

    All copies of the repository share it: the key has the contents of the inputs, and not where
    they are.
    """
    key = hashlib.sha256(repr(arguments).replace(str(HERE.parents[2]), "").encode())
    for path in inputs:
        key.update(path.read_bytes())
    CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = CACHE / (key.hexdigest()[:20] + suffix)
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            partial = f"{target}.partial"
            command = ["g++", *arguments, "-o", partial]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise KernelError(f"g++ failed:\n{done.stderr[:4000]}")
            Path(partial).replace(target)
    return target
