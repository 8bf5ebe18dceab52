"""NVRTC, the compiler on users' machines, from PyPI's nvidia-cuda-nvrtc.  It needs no GPU."""

from __future__ import annotations

import ctypes
import json
import re
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from gpumlp.backends.cuda.source import KernelSource
from tests.support.harness.host_module import cached, include_folder


class CompileError(RuntimeError):
    """NVRTC cannot compile the source; the message is its log."""


def resources(source: KernelSource, arch: int) -> dict[str, dict[str, int]]:
    """Kernel -> registers, spilled bytes, bytes of stack and of shared memory, on sm_`arch`."""
    key = f"{version()} sm_{arch}\n{source.text()}"
    path = cached(key, ".json", lambda: json.dumps(_report(source, arch)))
    found: dict[str, dict[str, int]] = json.loads(path.read_text())
    return found


@cache
def ptx(source: KernelSource, arch: int) -> str:
    """The source compiled to PTX, NVIDIA's intermediate language."""
    option = f"-arch=compute_{arch}"

    def text() -> str:
        return compile_source(_library(), source, _folders(source), option)[1].rstrip("\0")

    return cached(_of_ptx(source, arch), ".ptx", text).read_text()


def _of_ptx(source: KernelSource, arch: int) -> str:
    return f"{version()} compute_{arch}\n{source.text()}"


def _report(source: KernelSource, arch: int) -> dict[str, dict[str, int]]:
    options = f"-arch=sm_{arch}", "--ptxas-options=-v"
    log, intermediate = compile_source(_library(), source, _folders(source), *options)
    cached(_of_ptx(source, arch), ".ptx", lambda: intermediate.rstrip("\0"))  # half of the time
    if "warning" in log:
        raise CompileError(log)
    patterns = {
        "registers": r"Used (\d+) registers", "spilled": r"(\d+) bytes spill stores",
        "stack": r"(\d+) bytes stack frame", "shared": r"(\d+) bytes smem",
    }  # fmt: skip
    table = {}
    for part in re.split(r"Compiling entry function ", log)[1:]:
        numbers = {what: re.search(pattern, part) for what, pattern in patterns.items()}
        name = part.split("'")[1]
        table[name] = {what: int(match[1]) if match else 0 for what, match in numbers.items()}
    return table


def compile_source(
    nvrtc: ctypes.CDLL, source: KernelSource, folders: Iterable[Path], *options: str
) -> tuple[str, str]:
    """The log and the PTX.  folders: of the headers that are included."""
    program, includes = ctypes.c_void_p(), [f"-I{folder}" for folder in folders]
    everything = [o.encode() for o in ("-std=c++17", *includes, *options)]
    text, name = source.text().encode(), source.file.encode()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, name, 0, None, None)
    try:
        arguments = (ctypes.c_char_p * len(everything))(*everything)
        failed = nvrtc.nvrtcCompileProgram(program, len(everything), arguments)
        log = _text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
        if failed:
            raise CompileError(f"{source.file} for {source.dtype}:\n{log}")
        return log, _text(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _folders(source: KernelSource) -> list[Path]:
    """Without 16-bit types there are no headers."""
    return list(dict.fromkeys(include_folder(header) for header in source.headers))


def _text(get_size: Any, get: Any, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    get_size(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    get(program, buffer)
    return buffer.value.decode()


@cache
def version() -> str:
    """The version of NVRTC, such as "13.5"."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


@cache
def _library() -> ctypes.CDLL:
    for entry in sys.path:
        if found := open_in(Path(entry)):
            return found
    raise FileNotFoundError('NVRTC is not installed: pip install "gpumlp[test]"')


def open_in(folder: Path) -> ctypes.CDLL | None:
    """NVRTC of a package that is installed in the folder."""
    paths = sorted(folder.glob("nvidia/*/lib/libnvrtc.so.*"))
    return ctypes.CDLL(str(paths[0])) if paths else None
